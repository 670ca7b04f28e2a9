"""Own art for the textures of the YCB-like objects: colours, bands, words; nothing is copied from the real labels.

A texture is 512 px square; `MAIN`, `SECOND` and `THIRD` of `amt.data.synthetic.shapes` say what lies where.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from amt.data.synthetic.shapes import MAIN, SECOND, THIRD

SIZE = 512
STEEL, BLACK, WHITE = (178, 180, 184), (28, 28, 30), (238, 238, 234)
# Main, second and third colour, label colour and words of every object; without a label colour there is no label.
PALETTE = {
    1: ((32, 66, 140), STEEL, STEEL, (236, 228, 205), "COFFEE"),
    2: ((196, 30, 36), WHITE, WHITE, (246, 210, 70), "CRACKERS"),
    3: ((240, 208, 40), WHITE, WHITE, (245, 245, 240), "SUGAR"),
    4: ((200, 28, 34), STEEL, STEEL, (246, 244, 236), "TOMATO"),
    5: ((246, 202, 32), (232, 190, 28), WHITE, (196, 40, 34), "MUSTARD"),
    6: ((40, 110, 190), STEEL, STEEL, (240, 240, 240), "TUNA"),
    7: ((118, 66, 38), WHITE, WHITE, (240, 224, 190), "PUDDING"),
    8: ((206, 40, 60), WHITE, WHITE, (250, 236, 220), "GELATIN"),
    9: ((28, 78, 152), STEEL, STEEL, (246, 216, 70), "HAM"),
    10: ((236, 200, 54), (120, 96, 40), WHITE, None, ""),
    11: ((52, 96, 176), (44, 84, 160), (50, 92, 170), None, ""),
    12: ((238, 240, 240), (40, 92, 168), WHITE, (52, 120, 190), "CLEANER"),
    13: ((192, 40, 38), (206, 52, 48), WHITE, None, ""),
    14: ((186, 34, 36), (170, 30, 32), (182, 34, 36), None, ""),
    15: ((222, 110, 34), BLACK, (40, 40, 42), (30, 30, 32), "18V"),
    16: ((184, 138, 92), WHITE, WHITE, None, ""),
    17: ((222, 96, 34), STEEL, STEEL, None, ""),
    18: ((236, 236, 236), BLACK, BLACK, (40, 40, 44), "MARKER"),
    19: (BLACK, (90, 90, 94), (210, 96, 30), None, ""),
    20: (BLACK, (90, 90, 94), (210, 96, 30), None, ""),
    21: ((150, 50, 44), WHITE, WHITE, None, ""),
}
BOXES = (2, 3, 7, 8)


def texture(ycb_id: int) -> UInt8[np.ndarray, "512 512 3"]:
    """The texture of an object, RGB, the same every time."""
    rng = np.random.default_rng([20, ycb_id])
    main, second, third, label, words = PALETTE[ycb_id]
    image = np.tile(np.array(main, np.uint8), (SIZE, SIZE, 1))
    for cell, color in ((SECOND, second), (THIRD, third)):
        x0, y0, x1, y1 = _pixels(cell)
        image[y0 - 4 : y1 + 4, x0 - 3 : x1 + 3] = color
    x0, y0, x1, y1 = _pixels(MAIN)
    if ycb_id in BOXES:
        for column in range(3):
            for row in range(2):
                w, h = (x1 - x0) // 3, (y1 - y0) // 2
                _label(rng, image[row * h : (row + 1) * h, column * w : (column + 1) * w], label, words)
    elif label is not None:
        band = image[y0 + (y1 - y0) // 5 : y1 - (y1 - y0) // 4, x0:x1]
        for k in range(2):
            _label(rng, band[:, k * (x1 - x0) // 2 : (k + 1) * (x1 - x0) // 2], label, words)
    if ycb_id == 10:
        for _ in range(60):
            at = (int(rng.integers(x0, x1)), int(rng.integers(y0, y1)))
            cv2.ellipse(image, at, (int(rng.integers(1, 4)), int(rng.integers(2, 9))), 0, 0, 360, (120, 84, 30), -1)
    image = image.astype(np.float32)
    if ycb_id == 10:
        image[y0 : y0 + 30, x0:x1] *= 0.55
        image[y1 - 24 : y1, x0:x1] *= 0.6
    if ycb_id == 16:
        rows = np.cumsum(rng.normal(0, 0.2, SIZE))[:, None] + np.linspace(0, 30, SIZE)[:, None]
        image *= (1 + 0.12 * np.sin(rows * 3 + np.linspace(0, 2, SIZE)[None]))[..., None].astype(np.float32)
    if ycb_id in (11, 13, 14):
        image[y0 + 4 : y0 + 14, x0:x1] *= 0.85
    grain = rng.normal(0, 9 if ycb_id in (16, 21) else 3, (SIZE // 2, SIZE // 2, 1)).astype(np.float32)
    image += cv2.resize(grain, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _pixels(cell):
    x0, y0, x1, y1 = cell
    return round(x0 * SIZE), round((1 - y1) * SIZE), round(x1 * SIZE), round((1 - y0) * SIZE)


def _label(rng, area, color, words) -> None:
    """A panel with a word, a blot and lines of small print, drawn into a view of the image."""
    h, w = area.shape[:2]
    patch = np.ascontiguousarray(area)
    inset = max(int(0.08 * w), 3)
    cv2.rectangle(patch, (inset, int(0.12 * h)), (w - inset, int(0.55 * h)), color, -1)
    ink = tuple(float(c) for c in (255 - np.array(color)) * 0.55)
    scale = (w - 3 * inset) / max(cv2.getTextSize(words, 0, 1.0, 2)[0][0], 1)
    cv2.putText(patch, words, (int(1.5 * inset), int(0.4 * h)), 0, scale, ink, max(int(3 * scale), 1), cv2.LINE_AA)
    blot = tuple(float(c) for c in rng.uniform(60, 230, 3))
    cv2.circle(patch, (int(rng.uniform(0.3, 0.7) * w), int(0.75 * h)), int(0.13 * min(w, h)), blot, -1, cv2.LINE_AA)
    for k in range(3):
        y = int((0.86 + 0.04 * k) * h)
        cv2.line(patch, (inset, y), (int(rng.uniform(0.5, 0.95) * w), y), color, 1)
    area[:] = patch
