"""YCB objects in the robot's scene: their extents and masses, and that the differentiable simulation takes them."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt import physics
from amt.data.scene_objects import scene_object
from amt.data.synthetic.models import MASSES
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.robot import build_scene


def extents(model: mujoco.MjModel, body: str) -> np.ndarray:
    """Half extents along the object's axes, from support functions of its geoms."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for g in np.flatnonzero(model.geom_bodyid == model.body(body).id):
        R = np.zeros(9)
        mujoco.mju_quat2Mat(R, model.geom_quat[g])
        R, size = np.abs(R.reshape(3, 3)), model.geom_size[g]
        kind = mujoco.mjtGeom(model.geom_type[g])
        if kind == mujoco.mjtGeom.mjGEOM_BOX:
            reach = R @ size
        else:
            reach = R[:, 2] * size[1] + size[0] * (
                1 if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else np.sqrt(np.maximum(1 - R[:, 2] ** 2, 0))
            )
        low, high = np.minimum(low, model.geom_pos[g] - reach), np.maximum(high, model.geom_pos[g] + reach)
    return (high - low) / 2


@pytest.mark.parametrize("ycb_id", OBJECTS)
def test_it_is_as_large_and_as_heavy_as_the_real_one(ycb_id):
    turned = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
    scene = build_scene([scene_object(ycb_id, np.array([0.5, 0.1, 0.4]), turned)])
    model = scene.compile()
    assert model.body("object").mass[0] == pytest.approx(MASSES[ycb_id])
    half = OBJECTS[ycb_id].primitive.half.astype(float)
    found = extents(model, "object")
    if ycb_id == 14:
        half[0] += 0.0257 / 2  # the mug's extents are without its handle
    if ycb_id == 11:
        half[1] = 0.056  # the pitcher's are those of its length with the handle
    np.testing.assert_allclose(found, half, atol=0.012 if ycb_id in (10, 15) else 1e-6)
    held, state = physics.put(scene, num_shapes=3)
    assert held.shape_kind.shape == (1, 3) and np.isclose(held.mass[0], MASSES[ycb_id])
    np.testing.assert_allclose(state.qpos[22:25], [0.5, 0.1, 0.4], atol=1e-6)


def test_an_unknown_object_is_refused():
    with pytest.raises(UserError, match="YCB id 22: expected one of 1 to 21"):
        scene_object(22, np.zeros(3), np.eye(3))
