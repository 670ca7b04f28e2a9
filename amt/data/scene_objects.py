"""The YCB objects as the robot's scene holds them: boxes, cylinders and capsules, with their published masses."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.data.synthetic.models import MASSES
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry.primitives import BOX
from amt.robot.scene import Part, SceneObject


def scene_object(
    ycb_id: int, pos: Float[np.ndarray, " 3"], rot: Float[np.ndarray, "3 3"], name: str = "object"
) -> SceneObject:
    """YCB object 1..21 at a pose in the robot's base frame, metres and kilograms.

    A box or a cylinder (`amt.data.ycb`); banana, pitcher, mug and power drill of several parts. Vessels are solid: a
    hand cannot grip the bowl by its rim. Raises UserError for an unknown id.
    """
    if ycb_id not in OBJECTS:
        raise UserError(f"scene object: YCB id {ycb_id}: expected one of {min(OBJECTS)} to {max(OBJECTS)}")
    return SceneObject(
        name, "", (), _tuple(pos), _quat(rot), MASSES[ycb_id], parts=_COMPOUNDS.get(ycb_id, _single)(ycb_id)
    )


def _single(ycb_id: int) -> tuple[Part, ...]:
    half, axis = OBJECTS[ycb_id].primitive
    half = half.astype(np.float64)
    if axis == BOX:
        return (Part("box", _tuple(half)),)
    x, y, z = (axis + 1) % 3, (axis + 2) % 3, axis
    return (Part("cylinder", _tuple((half[x], half[z])), quat=_quat(np.eye(3)[:, [x, y, z]])),)


def _banana(ycb_id: int) -> tuple[Part, ...]:
    """Three capsules along an arc, as the generator's model has them."""
    x, y, z = OBJECTS[ycb_id].primitive.half.astype(np.float64)
    angle = np.array([-0.83, -0.3, 0.3, 0.83])
    radius = (y - 0.006) / np.sin(angle[-1])
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], -1)
    path[:, 0] += x - (path[:, 0] + z).max()
    thick = z * np.array([0.7, 1.0, 0.7])
    return tuple(_rod(a, b, r) for a, b, r in zip(path, path[1:], thick, strict=False))


def _with_handle(ycb_id: int) -> tuple[Part, ...]:
    """A cylinder and, on its +x side, an upright box for the handle."""
    half = OBJECTS[ycb_id].primitive.half.astype(np.float64)
    radius, reach = (0.056, 2 * half[0] - 0.112) if ycb_id == 11 else (half[0], 0.0257)
    middle = -half[0] + radius if ycb_id == 11 else 0.0
    body = Part("cylinder", _tuple((radius, half[2])), (middle, 0.0, 0.0))
    handle = Part("box", _tuple((reach / 2, 0.008, 0.6 * half[2])), _tuple((middle + radius + reach / 2, 0, 0)))
    return body, handle


def _drill(ycb_id: int) -> tuple[Part, ...]:
    """Barrel, grip and battery."""
    x, y, z = OBJECTS[ycb_id].primitive.half.astype(np.float64)
    low = np.array([-0.35 * x, -y + 0.04, 0])
    barrel = _rod([-x + 0.028, y - 0.034, 0], [x - 0.028, y - 0.034, 0], 0.028)
    grip = _rod([-0.12 * x, y - 0.055, 0], low, 0.019)
    return barrel, grip, Part("box", _tuple((0.045, 0.02, z)), _tuple((-0.3 * x, -y + 0.02, 0)))


_COMPOUNDS = {10: _banana, 11: _with_handle, 14: _with_handle, 15: _drill}


def _rod(start, end, radius: float) -> Part:
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    along = end - start
    length = np.linalg.norm(along)
    turn = Rotation.align_vectors([along / length], [[0.0, 0.0, 1.0]])[0].as_matrix()
    return Part("capsule", _tuple((radius, length / 2)), _tuple((start + end) / 2), _quat(turn))


def _quat(rot) -> tuple[float, ...]:
    return _tuple(Rotation.from_matrix(rot).as_quat()[[3, 0, 1, 2]])


def _tuple(values) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
