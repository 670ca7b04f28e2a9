"""Visible surface discrepancy of the BOP scores, with depth images drawn by a z-buffer of our own.

Source: Hodan et al., "BOP: Benchmark for 6D Object Pose Estimation", ECCV 2018, section 2.2, and
https://github.com/thodan/bop_toolkit (bop_toolkit_lib/pose_error.py, visibility.py, misc.py)
"""

import numpy as np
from jaxtyping import Bool, Float, Float64

from amt.data.objects import Mesh

DELTA = 15.0  # millimetres behind the measured surface that still count as visible
TAUS = np.arange(0.05, 0.51, 0.05)  # of the diameter
NEAREST = 1.0  # millimetres; triangles that reach nearer are not drawn


def vsd(
    pose: Float64[np.ndarray, "3 4"],
    truth: Float64[np.ndarray, "3 4"],
    mesh: Mesh,
    diameter: float,
    depth: Float[np.ndarray, "h w"],
    K: Float64[np.ndarray, "3 3"],
) -> Float64[np.ndarray, " 10"]:
    """The error for every tolerance of `TAUS`, 0 to 1; millimetres. Depth of 0 is unknown, and hides nothing."""
    points = [mesh.vertices @ T[:, :3].T + T[:, 3] for T in (pose, truth)]
    window = _window(np.concatenate(points), K, depth.shape)
    ray = _rays(K, window)
    seen = depth[window].astype(np.float64) * ray
    ours, theirs = (draw(x, mesh.faces, K, window) * ray for x in points)
    visible = _visible(theirs, seen)
    ours_visible = _visible(ours, seen) | (visible & (ours > 0))
    both, either = visible & ours_visible, (visible | ours_visible).sum()
    if not either:
        return np.ones(len(TAUS))
    gaps = np.abs(ours[both] - theirs[both]) / diameter
    return ((gaps[:, None] >= TAUS).sum(0) + either - both.sum()) / either


def draw(
    points: Float64[np.ndarray, "v 3"], faces: np.ndarray, K: Float64[np.ndarray, "3 3"], window: tuple[slice, slice]
) -> Float64[np.ndarray, "h w"]:
    """Depth of a mesh (camera frame) in a window (rows, columns) of the image, 0 where there is none.

    As in the toolkit's renderers, pixel 0 is seen along the ray through 0.5.
    """
    rows, columns = window
    image = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf)
    faces = faces[(points[faces, 2] > NEAREST).all(-1)]
    uv = (points @ K.T)[:, :2] / np.maximum(points[:, 2:], NEAREST) - 0.5 - [columns.start, rows.start]
    corners, inverse = uv[faces], 1 / points[faces, 2]
    low = np.maximum(np.ceil(corners.min(1)), 0).astype(int)
    high = np.minimum(np.floor(corners.max(1)), [image.shape[1] - 1, image.shape[0] - 1]).astype(int)
    size = np.maximum(high - low + 1, 0)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size[np.abs(area) < 1e-12] = 0
    # Every pixel of every triangle's rectangle, one after the other.
    many = size.prod(-1)
    which = np.repeat(np.arange(len(faces)), many)
    k = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many)
    pixel = low[which] + np.stack([k % size[which, 0], k // size[which, 0]], -1)
    to = corners[which] - pixel[:, None]
    weight = np.stack([_cross(to[:, (i + 1) % 3], to[:, (i + 2) % 3]) for i in range(3)], -1) / area[which, None]
    inside = (weight >= 0).all(-1)
    pixel, z = pixel[inside], 1 / (weight * inverse[which]).sum(-1)[inside]
    np.minimum.at(image, (pixel[:, 1], pixel[:, 0]), z)
    return np.where(np.isfinite(image), image, 0.0)


def _window(points, K, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of an image in which points are seen."""
    ahead = points[points[:, 2] > NEAREST]
    if not len(ahead):
        return slice(0, 0), slice(0, 0)
    uv = (ahead @ K.T)[:, :2] / ahead[:, 2:]
    low = np.clip(np.floor(uv.min(0)), 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(uv.max(0)) + 1, low, shape[::-1]).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _rays(K, window) -> Float64[np.ndarray, "h w"]:
    """Distance from the camera over depth, at every pixel; here the toolkit has pixel 0 at 0."""
    rows, columns = (np.arange(part.start, part.stop) for part in window)
    x, y = (columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]
    return np.sqrt(x[None] ** 2 + y[:, None] ** 2 + 1)


def _visible(distance, seen) -> Bool[np.ndarray, "h w"]:
    return (distance > 0) & ((distance - seen <= DELTA) | (seen == 0))


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
