"""What was seen, drawn on the frame: hand skeleton and outline, object axes and boxes, contacts, a text line.

Points are metres in the camera frame, colours RGB. Lines are cut at a plane in front of the camera, so
nothing that is behind it is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from amt.structs import Prediction

FINGER_COLORS = {
    "thumb": (255, 120, 90),
    "index": (255, 205, 60),
    "middle": (90, 220, 110),
    "ring": (70, 170, 255),
    "little": (205, 120, 255),
}
OUTLINE = (255, 255, 255)
CONTACT = (255, 50, 130)
BOX = (240, 240, 160)
AXES = ((255, 60, 60), (60, 220, 60), (80, 120, 255))

NEAR = 0.01  # metres
AXIS_LENGTH = 0.05  # metres
MIN_CONFIDENCE = 0.5  # contacts below are not drawn

# The 12 edges of a box, as pairs of corners; bit i of a corner's number is its side along axis i.
_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]


class Canvas(NamedTuple):
    """An image with its intrinsics; `scale` makes lines and letters fit images of any size."""

    image: UInt8[np.ndarray, "height width 3"]
    K: Float[np.ndarray, "3 3"]

    @property
    def scale(self) -> float:
        return max(self.image.shape[:2]) / 640

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Integer pixels of points in front of the camera; clipped far outside, where OpenCV overflows."""
        uvw = points @ self.K.T
        limit = 8 * max(self.image.shape[:2])
        return np.clip(np.rint(uvw[..., :2] / uvw[..., 2:]), -limit, limit).astype(np.int32)

    def line(self, a: np.ndarray, b: np.ndarray, color: tuple[int, int, int], width: float = 1.5) -> None:
        """The part of the segment a-b that lies in front of the camera."""
        if a[2] < b[2]:
            a, b = b, a
        if a[2] <= NEAR:
            return
        if b[2] < NEAR:
            b = a + (b - a) * (a[2] - NEAR) / (a[2] - b[2])
        start, end = self.pixels(np.stack([a, b]))
        thickness = max(1, round(width * self.scale))
        cv2.line(self.image, start.tolist(), end.tolist(), color, thickness, cv2.LINE_AA)

    def dot(self, point: np.ndarray, color: tuple[int, int, int], radius: float) -> None:
        if point[2] > NEAR:
            center = self.pixels(point).tolist()
            cv2.circle(self.image, center, max(1, round(radius * self.scale)), color, -1, cv2.LINE_AA)


def draw_overlay(
    image: UInt8[np.ndarray, "height width 3"],
    prediction: Prediction,
    index: int,
    *,
    faces: Int[np.ndarray, "f 3"],
    object_sizes: Mapping[int, Sequence[float]] | None = None,
    object_names: Mapping[int, str] | None = None,
    text: str = "",
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a copy of `image` (RGB) with what frame `index` of a prediction over T frames holds.

    `faces` are the hand's triangles; `object_sizes` are edge lengths (metres) along the model's axes, by id.
    """
    K = np.asarray(prediction.camera.K, np.float64)
    canvas = Canvas(np.ascontiguousarray(image).copy(), K[index] if K.ndim == 3 else K)
    hand, objects, contacts = jax.tree.map(
        lambda x: np.asarray(x)[index], (prediction.hand, prediction.objects, prediction.contacts)
    )
    for slot in np.flatnonzero(objects.valid):
        number = int(objects.ycb_ids[slot])
        size = (object_sizes or {}).get(number)
        draw_object(canvas, objects.pose[slot], size, (object_names or {}).get(number, f"object {number}"))
    if hand.valid:
        draw_outline(canvas, hand.vertices, faces)
        draw_skeleton(canvas, hand.joints)
        draw_contacts(canvas, contacts.points, contacts.confidence)
    _label(canvas, f"{text}  hand {'found' if hand.valid else 'lost'}".strip(), (6, 6))
    return canvas.image


def draw_skeleton(canvas: Canvas, joints: Float[np.ndarray, "21 3"], color: tuple[int, int, int] | None = None) -> None:
    """Bones from the wrist to the tips in the DexYCB order, in one `color` or one a finger."""
    for finger, own in enumerate(FINGER_COLORS.values()):
        shade = color or own
        chain = [0, *range(1 + 4 * finger, 5 + 4 * finger)]
        for a, b in zip(chain[:-1], chain[1:], strict=True):
            canvas.line(joints[a], joints[b], shade, 2.0)
        for joint in chain[1:]:
            canvas.dot(joints[joint], shade, 2.5)
    canvas.dot(joints[0], OUTLINE, 3.0)


def draw_outline(
    canvas: Canvas,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    color: tuple[int, int, int] = OUTLINE,
) -> None:
    """The silhouette of a mesh: outer and inner contours of its projected triangles."""
    seen = np.asarray(faces)[(vertices[faces][..., 2] > NEAR).all(-1)]
    if not len(seen):
        return
    mask = np.zeros(canvas.image.shape[:2], np.uint8)
    for triangle in canvas.pixels(vertices[seen]):
        cv2.fillConvexPoly(mask, triangle, 255)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas.image, contours, -1, color, max(1, round(canvas.scale)))


def draw_object(canvas: Canvas, pose: Float[np.ndarray, "3 4"], size: Sequence[float] | None, name: str) -> None:
    """The model's axes (x red, y green, z blue), a box round the origin where its size is known, its name if any."""
    pose = np.asarray(pose, np.float64)
    R, origin = pose[:, :3], pose[:, 3]
    if size is not None:
        draw_box(canvas, pose, size, BOX)
    for axis, color in enumerate(AXES):
        canvas.line(origin, origin + AXIS_LENGTH * R[:, axis], color, 2.0)
    if name and origin[2] > NEAR:
        x, y = canvas.pixels(origin).tolist()
        _label(canvas, name, (x + 6, y + 6))


def draw_box(
    canvas: Canvas, pose: Float[np.ndarray, "3 4"], size: Sequence[float], color: tuple[int, int, int]
) -> None:
    """The edges of a box round a model's origin, its axes along the model's."""
    signs = np.array([[(corner >> axis & 1) - 0.5 for axis in range(3)] for corner in range(8)])
    corners = (signs * np.asarray(size)) @ pose[:, :3].T + pose[:, 3]
    for a, b in _EDGES:
        canvas.line(corners[a], corners[b], color, 1.0)


def draw_contacts(canvas: Canvas, points: Float[np.ndarray, "c 3"], confidence: Float[np.ndarray, " c"]) -> None:
    """Those that are confident enough, pink with a white rim."""
    for point in points[confidence >= MIN_CONFIDENCE]:
        canvas.dot(point, OUTLINE, 4.0)
        canvas.dot(point, CONTACT, 3.0)


def _label(canvas: Canvas, text: str, corner: tuple[int, int]) -> None:
    """White letters on a dark band; `corner` is the band's top left."""
    height, width = canvas.image.shape[:2]
    x, y = corner
    if not (0 <= x < width and 0 <= y < height):
        return
    size, thick, pad = 0.45 * canvas.scale, max(1, round(canvas.scale)), round(4 * canvas.scale)
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    band = canvas.image[y : y + h + base + 2 * pad, x : x + w + 2 * pad]
    band[:] = band // 3
    cv2.putText(
        canvas.image,
        text,
        (x + pad, y + h + pad),
        cv2.FONT_HERSHEY_SIMPLEX,
        size,
        OUTLINE,
        thick,
        cv2.LINE_AA,
    )
