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
    faces = faces[np.abs(_area(uv[faces])) > 1e-12]
    corners, inverse = uv[faces], 1 / points[faces, 2]
    after, last = np.roll(corners, -1, 1), np.roll(corners, -2, 1)
    # Weight k of a pixel is slope x + rise y + start, all of them positive inside; 1 / depth is linear in the image.
    area = _area(corners)[:, None]
    slope, rise = (after - last)[..., 1] / area, (last - after)[..., 0] / area
    start = (after[..., 0] * last[..., 1] - after[..., 1] * last[..., 0]) / area
    face, y = _spread(corners[..., 1].min(-1), corners[..., 1].max(-1), image.shape[0])
    slope, rest = slope[face], rise[face] * y[:, None] + start[face]
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = -rest / slope
    low = np.where(slope > 0, ends, np.where((slope == 0) & (rest < 0), np.inf, -np.inf)).max(-1)
    high = np.where(slope < 0, ends, np.inf).min(-1)
    row, x = _spread(low, high, image.shape[1])
    weight = slope[row] * x[:, None] + rest[row]
    np.minimum.at(image, (y[row], x), 1 / (weight * inverse[face[row]]).sum(-1))
    return np.where(np.isfinite(image), image, 0.0)


def _area(corners: Float64[np.ndarray, "f 3 2"]) -> Float64[np.ndarray, " f"]:
    """Twice the area of triangles, negative for those that turn the other way."""
    (ax, ay), (bx, by) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    return ax * by - ay * bx


def _spread(
    low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every whole number of every interval that lies in 0 ... size - 1, and which interval it is of."""
    first = np.ceil(np.clip(low, 0, size)).astype(int)
    count = np.maximum(np.floor(np.clip(high, -1, size - 1)).astype(int) - first + 1, 0)
    which = np.repeat(np.arange(len(low)), count)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(count) - count - first, count)


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
