"""Crops side by side, with the skeletons that were predicted over those that are known."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from amt.viz.overlay import Canvas, draw_skeleton

COLUMNS = 4
TILE = 256  # pixels, the side that each crop is drawn at
LABEL = (255, 255, 255)


def contact_sheet(
    images: UInt8[np.ndarray, "n size size 3"],
    K: Float[np.ndarray, "n 3 3"],
    predicted: Float[np.ndarray, "n 21 3"],
    labelled: Float[np.ndarray, "n 21 3"],
    valid: Bool[np.ndarray, " n"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Rows of `COLUMNS` crops (RGB): predictions in the fingers' colours, labels (where `valid`) in white below them.

    Joints are metres in the frame of each crop's camera, whose intrinsics `K` are in pixels of the crop.
    """
    zoom = TILE / images.shape[1]
    tiles = np.zeros((-len(images) // COLUMNS * -COLUMNS, TILE, TILE, 3), np.uint8)
    for i, image in enumerate(images):
        tile = cv2.resize(np.ascontiguousarray(image), (TILE, TILE), interpolation=cv2.INTER_LINEAR)
        canvas = Canvas(tile, np.diag([zoom, zoom, 1.0]) @ K[i])
        if valid[i]:
            draw_skeleton(canvas, labelled[i], LABEL)
        draw_skeleton(canvas, predicted[i])
        tiles[i] = canvas.image
    rows = tiles.reshape(-1, COLUMNS, TILE, TILE, 3).swapaxes(1, 2)
    return rows.reshape(-1, COLUMNS * TILE, 3)
