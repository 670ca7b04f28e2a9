"""The camera of a clip: as it is given, or a stated assumption."""

from typing import Any, NamedTuple

import numpy as np

from amt.errors import UserError
from amt.structs import Camera

ORTHONORMAL_TOLERANCE = 1e-3  # numbers typed from a calibration file have three or four digits


class ClipCamera(NamedTuple):
    """A camera, and in words what was assumed about it (nothing: all was given)."""

    camera: Camera
    assumptions: tuple[str, ...]


def make_camera(K: Any, T_world_camera: Any, width: int, height: int, fov: float) -> ClipCamera:
    """The camera of frames of `width` x `height` pixels.

    `K` is 3x3 (nested, or 9 numbers row by row) in pixels of these frames; `T_world_camera` 4x4 or 3x4
    likewise, in metres, world z up. Where K is empty, `fov` (radians) is assumed along the longer side, as
    phones and webcams turn but keep their lens; where T_world_camera is empty, a level camera. Raises
    `UserError` on other shapes, numbers that are not finite, f <= 0, and rotations that are none.
    """
    assumptions = []
    if _is_given(K):
        K = _numbers("camera.K", K, (3, 3))
        _check_intrinsics(K)
        if not (0 <= K[0, 2] < width and 0 <= K[1, 2] < height):
            assumptions.append(
                f"The principal point of camera.K, ({K[0, 2]:.0f}, {K[1, 2]:.0f}), lies outside the "
                f"{width}x{height} frames: K seems to belong to another size."
            )
    else:
        if not 0 < fov < np.pi:
            raise UserError(f"camera.horizontal_fov={fov}: expected an angle between 0 and pi radians")
        focal = max(width, height) / (2 * np.tan(fov / 2))
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        assumptions.append(
            f"The camera's intrinsics are unknown: a field of view of {np.degrees(fov):.0f} degrees along "
            f"the longer side (focal length {focal:.0f} pixels) is assumed. Distances from the camera are "
            "off in proportion to the error of the focal length; set camera.K to get them right."
        )
    if _is_given(T_world_camera):
        T_world_camera = _numbers("camera.T_world_camera", T_world_camera, (4, 4))
        _check_pose(T_world_camera)
    else:
        from amt.robot.human import LEVEL_CAMERA  # MuJoCo comes with it: not before all is checked

        T_world_camera = LEVEL_CAMERA
        assumptions.append("The camera's pose is unknown: it is assumed to be held level, looking ahead.")
    camera = Camera(K=K.astype(np.float32), T_world_camera=np.asarray(T_world_camera, np.float32))
    return ClipCamera(camera, tuple(assumptions))


def _is_given(value: Any) -> bool:
    return value is not None and not (hasattr(value, "__len__") and len(value) == 0)


def _numbers(field: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = shape
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{field}={value!r}: expected {rows}x{columns} numbers") from None
    if shape == (4, 4) and array.shape in ((12,), (3, 4)):
        array = np.append(array.ravel(), [0.0, 0.0, 0.0, 1.0])
    if array.shape not in (shape, (rows * columns,)):
        found = "x".join(map(str, array.shape)) or "one number"
        raise UserError(f"{field}: found {found}, expected {rows}x{columns}, or {rows * columns} numbers row by row")
    if not np.isfinite(array).all():
        raise UserError(f"{field}={array.ravel().tolist()}: every number has to be finite")
    return array.reshape(shape)


def _check_intrinsics(K: np.ndarray) -> None:
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise UserError(f"camera.K: focal lengths have to be positive (pixels), found  fx={K[0, 0]:g}, fy={K[1, 1]:g}")
    if not np.allclose(K[2], [0, 0, 1]) or K[1, 0] != 0:
        raise UserError(f"camera.K={K.ravel().tolist()}: expected fx,s,cx,0,fy,cy,0,0,1 row by row; is it transposed?")


def _check_pose(T: np.ndarray) -> None:
    R = T[:3, :3]
    turned = np.abs(R @ R.T - np.eye(3)).max() > ORTHONORMAL_TOLERANCE or np.linalg.det(R) < 0
    if turned or not np.allclose(T[3], [0, 0, 0, 1]):
        raise UserError(
            f"camera.T_world_camera={T.ravel().tolist()}: expected a rotation and a translation, [R|t], row by row"
        )
