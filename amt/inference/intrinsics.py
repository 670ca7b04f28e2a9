"""The camera of a clip: as it is given, or a stated assumption."""

from typing import Any, NamedTuple

import numpy as np

from amt.errors import UserError
from amt.structs import Camera

ORTHONORMAL_TOLERANCE = 1e-3  # numbers typed from a calibration file have three or four digits
MIN_VIEW, MAX_VIEW = np.radians(1.0), np.radians(150.0)  # along the longer side: the limits of what a pinhole camera is
MAX_OFF_AXIS = np.radians(60.0)  # of the frames' middle from the optical axis: crops of a larger frame are inside
MAX_SKEW = 0.05  # of the focal length
NORMALISED = 10.0  # pixels: no camera has a focal length below
MAX_REACH = 20.0  # metres from the origin of the world
MAX_ROLL = np.radians(45)  # from which a camera is seldom held
BELOW = 0.01  # metres that a camera may be below the table by rounding


class ClipCamera(NamedTuple):
    """A camera; in words what was assumed or is doubtful about it (nothing: all was given); and how it is understood.

    `understood` is one line: where the camera is above the table, where it looks, how wide it sees.
    """

    camera: Camera
    assumptions: tuple[str, ...]
    understood: str


def make_camera(K: Any, T_world_camera: Any, width: int, height: int, fov: float) -> ClipCamera:
    """The camera of frames of `width` x `height` pixels.

    `K` is 3x3 (nested, or 9 numbers row by row) in pixels of these frames; `T_world_camera` 4x4 or 3x4
    likewise, in metres, world z up, the table at z = 0. Where K is empty, `fov` (radians) is assumed along the longer
    side, as phones and webcams turn but keep their lens; where T_world_camera is empty, a level camera. Raises
    `UserError` on other shapes, numbers that are not finite, rotations that are none, and cameras that cannot be: one
    that is normalised, below the table, or that sees nothing as low as itself.
    """
    assumptions = []
    if given_K := _is_given(K):
        K = _numbers("camera.K", K, (3, 3))
        _check_intrinsics(K, width, height)
        assumptions += _doubts(K, width, height)
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
        _check_place(T_world_camera, K, width, height)
        place = _describe(T_world_camera)
        if abs(_roll(T_world_camera) or 0.0) > MAX_ROLL:
            assumptions.append(
                f"By camera.T_world_camera the camera was {place}. If it was not turned so, {_likely(T_world_camera)}."
            )
    else:
        from amt.robot.human import LEVEL_CAMERA  # MuJoCo comes with it: not before all is checked

        T_world_camera, place = LEVEL_CAMERA, "held level (assumed)"
        assumptions.append("The camera's pose is unknown: it is assumed to be held level, looking ahead.")
    wide, high = np.degrees([_view(K, 0, width), _view(K, 1, height)])
    view = f"field of view {wide:.0f} x {high:.0f} degrees{'' if given_K else ' (assumed)'}"
    camera = Camera(K=K.astype(np.float32), T_world_camera=np.asarray(T_world_camera, np.float32))
    return ClipCamera(camera, tuple(assumptions), f"camera {place}; {view}")


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


def _check_intrinsics(K: np.ndarray, width: int, height: int) -> None:
    """`UserError` on numbers that are no camera's."""
    shown = f"camera.K={K.ravel().tolist()}"
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise UserError(f"camera.K: focal lengths have to be positive (pixels), found  fx={K[0, 0]:g}, fy={K[1, 1]:g}")
    if not np.allclose(K[2], [0, 0, 1]) or K[1, 0] != 0:
        raise UserError(f"{shown}: expected fx,s,cx,0,fy,cy,0,0,1 row by row; is it transposed?")
    if max(K[0, 0], K[1, 1]) < NORMALISED:
        hint = f"they look like millimetres; expected pixels of the {width}x{height} frames"
        if np.abs(K[:2, 2]).max() <= 1.5:
            hint = f"K looks normalised by the image size; multiply row 1 by {width} and row 2 by {height}"
        raise UserError(f"{shown}: focal lengths of {K[0, 0]:g} and {K[1, 1]:g} pixels cannot be: {hint}")
    if abs(K[0, 1]) > MAX_SKEW * K[0, 0]:
        raise UserError(f"{shown}: a skew of {K[0, 1]:g} cannot be; expected the order fx,0,cx,0,fy,cy,0,0,1")
    if not 1 / 4 <= K[0, 0] / K[1, 1] <= 4:
        raise UserError(f"{shown}: fx and fy are too different; expected both in pixels of the {width}x{height} frames")
    view = max(_view(K, 0, width), _view(K, 1, height))
    if not MIN_VIEW <= view <= MAX_VIEW:
        raise UserError(
            f"{shown}: the {width}x{height} frames would span {np.degrees(view):.3g} degrees, expected "
            f"{np.degrees(MIN_VIEW):.0f} to {np.degrees(MAX_VIEW):.0f}; focal lengths are in pixels of these frames"
        )
    middle = np.array([width - 1, height - 1]) / 2
    off = np.arctan(np.hypot(*((middle - K[:2, 2]) / [K[0, 0], K[1, 1]])))
    if off > MAX_OFF_AXIS:
        raise UserError(
            f"{shown}: the principal point ({K[0, 2]:g}, {K[1, 2]:g}) is {np.degrees(off):.0f} degrees away from the "
            f"middle of the {width}x{height} frames; expected it near ({middle[0]:g}, {middle[1]:g})"
        )


def _doubts(K: np.ndarray, width: int, height: int) -> list[str]:
    """What is possible, as frames may be cut out of larger ones, but seldom meant."""
    doubts = []
    size = 2 * np.round(K[:2, 2])  # of the frames that the principal point would be in the middle of
    here, ratio = f"these are {width}x{height}", size / [width, height]
    offset, belongs = (
        np.abs(ratio - 1).max(),
        f"camera.K seems to belong to frames of {size[0]:.0f}x{size[1]:.0f} pixels",
    )
    if abs(np.log(width / height)) > 0.1 and np.abs(size / [height, width] - 1).max() < 0.1:
        doubts.append(
            f"{belongs} on their side, {here}, upright: swap fx and fy, and cx and cy as the frames were turned."
        )
    elif offset > 0.2 and ratio.min() > 0 and np.ptp(np.log(ratio)) < 0.03:
        doubts.append(f"{belongs}, {here} (no crop of them?): multiply its first two rows by {1 / ratio.mean():.4g}.")
    elif offset > 0.3:
        where = "outside" if offset > 1 else "far from the middle of"
        doubts.append(
            f"The principal point of camera.K, ({K[0, 2]:.0f}, {K[1, 2]:.0f}), lies {where} the "
            f"{width}x{height} frames: K seems to belong to another size, unless they are cut out of larger ones."
        )
    if not 0.9 <= K[0, 0] / K[1, 1] <= 1.1:
        doubts.append(
            f"The focal lengths of camera.K, {K[0, 0]:.0f} and {K[1, 1]:.0f}, say that pixels are not square: K has to "
            f"be of the {width}x{height} frames as players show them."
        )
    return doubts


def _view(K: np.ndarray, axis: int, size: int) -> float:
    """The angle (radians) that `size` pixels span along x (0) or y (1)."""
    first, last = (-0.5 - K[axis, 2]) / K[axis, axis], (size - 0.5 - K[axis, 2]) / K[axis, axis]
    return float(np.arctan(last) - np.arctan(first))


def _check_pose(T: np.ndarray) -> None:
    """`UserError` on a matrix that is not a rotation and a translation, with the likely cause."""
    shown, R = f"camera.T_world_camera={T.ravel().tolist()}", T[:3, :3]
    expected = "expected a rotation and a translation, [R|t], row by row"
    if not np.allclose(T[3], [0, 0, 0, 1]):
        transposed = not T[:3, 3].any() and T[3, 3] == 1
        raise UserError(f"{shown}: {expected}; {'it is transposed' if transposed else 'its last row is not 0,0,0,1'}")
    size = np.cbrt(abs(np.linalg.det(R)))
    if size == 0 or np.abs(R @ R.T / size**2 - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise UserError(f"{shown}: {expected}; the first three columns are not orthogonal and of one length")
    if np.linalg.det(R) < 0:
        raise UserError(
            f"{shown}: {expected}; it mirrors (its determinant is negative): is a world or camera left-handed?"
        )
    if np.abs(R @ R.T - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise UserError(f"{shown}: {expected}; the rotation is scaled by {size:.4g}: divide it, and t where it is, too")


def _check_place(T: np.ndarray, K: np.ndarray, width: int, height: int) -> None:
    """`UserError` on a camera that cannot see a table at z = 0, with the likely cause."""
    shown, distance = f"camera.T_world_camera={T.ravel().tolist()}", np.abs(T[:3, 3]).max()
    if distance > MAX_REACH:
        raise UserError(
            f"{shown}: the camera is {distance:g} m away from the world's origin, expected at most {MAX_REACH:.0f} m; "
            "is the translation in millimetres? divide it by 1000"
        )
    if T[2, 3] < -BELOW:
        wrong = f"{-T[2, 3]:.2f} m below the table"
    elif not _sees_below(T, K, width, height):
        wrong = f"{_describe(T)}: nothing as low as the camera itself is in view"
    else:
        return
    raise UserError(f"{shown}: with z up, and the table at z = 0, the camera is {wrong}; {_likely(T)}")


def _sees_below(T: np.ndarray, K: np.ndarray, width: int, height: int) -> bool:
    """Whether any corner's ray goes down."""
    x, y = np.meshgrid([-0.5, width - 0.5], [-0.5, height - 0.5])
    rays = np.linalg.solve(K, np.stack([x.ravel(), y.ravel(), np.ones(4)]))
    return bool((T[2, :3] @ rays < 0).any())


def _likely(T: np.ndarray) -> str:
    """What the matrix seems to be instead: what would make of it an upright camera that looks at the table."""
    if np.allclose(T, np.eye(4)):
        return "leave it empty where the camera's pose is unknown"
    opengl, y_up = np.diag([1.0, -1, -1, 1]), np.eye(4)
    y_up[1:3, 1:3] = [[0, -1], [1, 0]]
    ways = {
        "the inverse, T_camera_world": np.linalg.inv(T),
        "of a camera with OpenGL's axes (y up, z backward)": T @ opengl,
        "OpenGL's view matrix, T_camera_world with y up and z backward": np.linalg.inv(opengl @ T),
        "of a world with y up": y_up @ T,
        "of a world with y up and a camera with OpenGL's axes": y_up @ T @ opengl,
        "of a world with z down": opengl @ T,
    }
    likely = [f"{name} (then {_describe(way)})" for name, way in ways.items() if _is_usual(way)]
    return (
        f"the matrix seems to be {' or '.join(likely)}"
        if likely
        else "the matrix has to map camera to world coordinates"
    )


def _is_usual(T: np.ndarray) -> bool:
    """An upright camera above the table that looks down on a place within four metres, or is level."""
    down, height = -T[2, 2], T[2, 3]
    looks = height < 4 * down if down > 0.1 else abs(down) < 0.1 and height < 1.5
    return bool(0.05 < height < 4 and looks and abs(_roll(T) or 0.0) < MAX_ROLL)


def _describe(T: np.ndarray) -> str:
    """Where a camera is above the table and where it looks, in words."""
    pitch = np.degrees(np.arcsin(np.clip(-T[2, 2], -1, 1)))
    looks = "level" if abs(pitch) < 0.5 else f"{'down' if pitch > 0 else 'up'} {abs(pitch):.0f} degrees"
    roll = np.degrees(_roll(T) or 0.0)
    rolled = "upside down" if abs(roll) > 135 else "" if abs(roll) < 2 else f"rolled by {abs(roll):.0f} degrees"
    return f"{T[2, 3]:.2f} m above the table, looking {looks}{', ' if rolled else ''}{rolled}"


def _roll(T: np.ndarray) -> float | None:
    """The angle (radians) of the image's down from the world's; None for a camera that looks up or down steeply."""
    right, below = -T[2, 0], -T[2, 1]
    return float(np.arctan2(right, below)) if np.hypot(right, below) > 0.25 else None
