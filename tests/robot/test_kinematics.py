import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt.errors import UserError
from amt.robot import build_scene, forward, load_robot
from amt.robot.model import FRAMES


@pytest.fixture(scope="module")
def qpos():
    limits = load_robot().limits
    return np.random.default_rng(0).uniform(limits[:, 0], limits[:, 1], (30, 22))


def test_frames_match_mujoco(qpos):
    frames = forward(load_robot(), jnp.asarray(qpos, jnp.float32))
    model = build_scene().compile()
    data = mujoco.MjData(model)
    for row, pose in enumerate(qpos):
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        for name in FRAMES:
            T = np.asarray(frames[name][row])
            # Single precision over ten joints: 3e-7 measured.
            np.testing.assert_allclose(T[:3, 3], data.site(name).xpos, atol=1e-6)
            np.testing.assert_allclose(T[:3, :3].ravel(), data.site(name).xmat, atol=2e-6)


def test_batch_shapes_and_root(qpos):
    robot = load_robot()
    q = jnp.asarray(qpos, jnp.float32)
    single = forward(robot, q[0])
    batched = forward(robot, q.reshape(3, 10, 22))
    in_palm = forward(robot, q[0], ("th_tip",), root="palm")["th_tip"]
    assert batched["palm"].shape == (3, 10, 4, 4)
    np.testing.assert_allclose(batched["ff_tip"][0, 0], single["ff_tip"], atol=1e-6)
    np.testing.assert_allclose(single["palm"] @ in_palm, single["th_tip"], atol=1e-6)


def test_joint_order_and_limits_match_the_scene():
    robot, model = load_robot(), build_scene().compile()
    assert [model.joint(i).name for i in range(22)] == list(robot.joint_names)
    assert [model.actuator(i).trnid[0] for i in range(22)] == list(range(22))
    np.testing.assert_allclose(model.jnt_range[:22], robot.limits, atol=1e-12)
    assert robot.joint("elbow_joint") == 2 and robot.joint("thj0") == 18


def test_the_hand_is_a_right_hand():
    """Index on +y, thumb on the index side, fingers curl to the palm (+x), as the frame's definition says."""
    robot = load_robot()
    straight = np.zeros(22, np.float32)
    curled = straight.copy()
    curled[[7, 8, 9]] = 1.0
    names = ("ff_tip", "rf_tip", "th_tip", "wrist")
    flat = forward(robot, jnp.asarray(straight), names, root="palm")
    bent = forward(robot, jnp.asarray(curled), names, root="palm")
    assert flat["ff_tip"][1, 3] > 0.04 and flat["rf_tip"][1, 3] < -0.04
    assert flat["th_tip"][1, 3] > 0.02
    assert flat["ff_tip"][2, 3] > 0.1 and flat["wrist"][2, 3] < 0
    assert bent["ff_tip"][0, 3] > 0.04


def test_the_left_hand_is_the_mirror_image_of_the_right():
    """The same angles, but for spread fingers, put every fingertip at its mirror image, and the simulation agrees."""
    right, left = load_robot(), load_robot("left")
    theirs = jnp.asarray(np.random.default_rng(3).uniform(*right.limits.T), jnp.float32)
    q = theirs * np.where(np.isin(right.joint_names, ("ffj0", "mfj0", "rfj0")), -1, 1).astype(np.float32)
    names = ("ff_tip", "mf_tip", "rf_tip", "th_tip", "wrist")
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    ours, theirs = (forward(*pair, names, root="palm") for pair in ((left, q), (right, theirs)))
    for name in names:
        np.testing.assert_allclose(ours[name], mirror @ theirs[name] @ mirror, atol=1e-6)
    model = build_scene(robot=left).compile()
    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    world = forward(left, q)
    for name in names:
        np.testing.assert_allclose(data.site(name).xpos, world[name][:3, 3], atol=1e-5)
    with pytest.raises(UserError, match="side 'both' is not one of right, left"):
        load_robot("both")
