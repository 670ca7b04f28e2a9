"""What arm and fingers keep away from, against MuJoCo C and closed forms."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt.robot import build_scene, load_robot
from amt.robot.guards import COLUMN_CLEARANCE, LINK_CLEARANCE, MIN_SINE, TABLE_CLEARANCE, arm_guards
from amt.robot.residuals import arm_residual, joint_box, wrist_residual
from amt.robot.solver import solve_pose
from tests.robot.hands import REST

SINES, TABLE, COLUMN, LINKS = slice(0, 2), slice(2, 8), slice(8, 10), slice(10, 14)
ELBOW, WRIST_2 = 2, 4
HAND_REACH = 0.12  # from the palm's origin to where fingertips are when the hand is open


def _mujoco(q) -> mujoco.MjData:
    model = build_scene(table=False).compile()
    data = mujoco.MjData(model)
    data.qpos[:6] = q
    mujoco.mj_forward(model, data)
    return data


def _guards(q) -> np.ndarray:
    return np.asarray(arm_guards(load_robot(), jnp.asarray(q, jnp.float32)))


def _arm(**joints) -> np.ndarray:
    q = REST[:6].copy()
    for name, value in joints.items():
        q[load_robot().joint(f"{name}_joint")] = value
    return q


def test_a_comfortable_pose_is_free():
    np.testing.assert_array_equal(_guards(REST[:6]), 0)


@pytest.mark.parametrize(("name", "index"), [("elbow", 0), ("wrist_2", 1)])
def test_singular_poses_are_those_without_manipulability(name, index):
    """The guard rises where the smallest singular value of MuJoCo's Jacobian falls, to 1 where that is 0."""
    angles = np.arcsin(MIN_SINE) * np.array([1.1, 0.8, 0.4, 1e-9])
    guards, smallest = [], []
    for angle in angles:
        q = _arm(**{name: angle})
        guards.append(_guards(q)[SINES][index])
        data = _mujoco(q)
        J = np.zeros((6, data.model.nv))
        mujoco.mj_jacSite(data.model, data, J[:3], J[3:], data.model.site("wrist").id)
        smallest.append(np.linalg.svd(J[:, :6])[1][-1])
    assert guards[0] == 0 and (np.diff(guards) > 0).all() and guards[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(smallest) < 0).all() and smallest[-1] < 1e-3


def test_heights_over_the_table_and_distances_from_the_column():
    for q in (_arm(shoulder_lift=0.1), _arm(shoulder_lift=-0.4, elbow=2.3), _arm(shoulder_lift=-1.9, elbow=2.6)):
        data = _mujoco(q)
        palm, z = data.site("palm").xpos, data.site("palm").xmat.reshape(3, 3)[:, 2]
        hand = [palm, palm + HAND_REACH * z]
        arm = [data.body(name).xpos for name in ("forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link")]
        height = np.array([p[2] for p in arm + hand])
        column = np.array([np.hypot(*p[:2]) for p in hand])
        guards = _guards(q)
        np.testing.assert_allclose(guards[TABLE], np.maximum(1 - height / TABLE_CLEARANCE, 0), atol=1e-4)
        np.testing.assert_allclose(guards[COLUMN], np.maximum(1 - column / COLUMN_CLEARANCE, 0), atol=1e-4)


def test_distances_of_the_hand_from_the_long_links():
    """Against the closest of many points along each link."""
    close = []
    for elbow in (2.2, 2.6, 3.0):
        q = _arm(elbow=elbow, wrist_1=0.6)
        data = _mujoco(q)
        palm, z = data.site("palm").xpos, data.site("palm").xmat.reshape(3, 3)[:, 2]
        ends = np.stack([palm, palm + HAND_REACH * z])
        distance = []
        for start, end in (("upper_arm_link", "forearm_link"), ("forearm_link", "wrist_1_link")):
            way = np.linspace(0, 1, 2001)[:, None, None]
            link = (1 - way) * data.body(start).xpos + way * data.body(end).xpos
            distance.append(np.linalg.norm(ends - link, axis=-1).min(0))
        close.append(np.concatenate(distance))
        np.testing.assert_allclose(_guards(q)[LINKS], np.maximum(1 - close[-1] / LINK_CLEARANCE, 0), atol=1e-4)
    assert (np.array(close) < LINK_CLEARANCE).any()


def test_the_arm_stays_off_the_table():
    """A wrist target below the table: without the guard the hand goes there."""
    robot = load_robot()
    box = jnp.asarray(joint_box(robot)[:6], jnp.float32)
    data = _mujoco(REST[:6])
    rotation = data.site("wrist").xmat.reshape(3, 3)
    wanted = data.site("wrist").xpos * [1, 1, 0] - [0, 0, 0.05]
    target = jnp.asarray(wanted, jnp.float32), jnp.asarray(rotation, jnp.float32)
    start = jnp.asarray(REST[:6], jnp.float32)

    def height(residual):
        q = jax.jit(lambda: solve_pose(residual, target, start, *box.T, 40))()
        return _mujoco(q).site("wrist").xpos[2]

    assert height(wrist_residual(robot)) < -0.04
    assert height(arm_residual(robot)) > height(wrist_residual(robot)) + 0.02
