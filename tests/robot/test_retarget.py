import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt.errors import UserError
from amt.robot import build_scene, fit_hand, human_tips, load_robot, retarget, retarget_errors
from amt.robot.model import FINGERS
from amt.robot.streaming import start
from tests.robot.hands import hand_pose, joints_of_robot, parametric_joints, smooth_motion

EYE = np.eye(4)
FPS = 30.0


def _assert_obeys_limits(trajectory):
    robot = load_robot()
    qpos = np.asarray(trajectory.qpos, np.float64)
    assert np.isfinite(qpos).all()
    assert (qpos > robot.limits[:, 0]).all() and (qpos < robot.limits[:, 1]).all()
    assert (np.abs(np.diff(qpos, axis=0)) * FPS <= robot.max_velocity * (1 + 1e-4)).all()


def test_follows_its_own_motion():
    """A motion the robot can do is followed; smoothing and the rest pose leave a little."""
    hand = hand_pose(joints_of_robot(smooth_motion(90)))
    trajectory = retarget(hand, scale=1.0, T_world_camera=EYE, T_base_world=EYE)
    errors = retarget_errors(trajectory, hand, scale=1.0, T_world_camera=EYE)
    _assert_obeys_limits(trajectory)
    assert trajectory.names == load_robot().joint_names
    np.testing.assert_allclose(np.diff(trajectory.time), 1 / FPS, rtol=1e-4)
    assert errors["wrist_position_mm"].max() < 2
    assert errors["wrist_rotation_deg"].max() < 2
    assert errors["fingertip_position_mm"].mean() < 3
    assert errors["fingertip_direction_deg"].mean() < 8


def test_places_the_base_so_that_the_motion_is_in_reach():
    """The same motion, seen somewhere else in a world 5 m away: no base is given."""
    joints = joints_of_robot(smooth_motion(60, seed=3))
    c, s = np.cos(2.0), np.sin(2.0)
    T_world_camera = np.array([[c, -s, 0, 5], [s, c, 0, -2], [0, 0, 1, 0.7], [0, 0, 0, 1]])
    hand = hand_pose(joints)
    trajectory = retarget(hand, scale=1.0, T_world_camera=T_world_camera)
    errors = retarget_errors(trajectory, hand, scale=1.0, T_world_camera=T_world_camera)
    _assert_obeys_limits(trajectory)
    assert errors["wrist_position_mm"].mean() < 3 and errors["wrist_rotation_deg"].mean() < 3
    T = np.asarray(trajectory.T_base_world)
    np.testing.assert_allclose(T[2, :3], [0, 0, 1], atol=1e-6)  # the base stands upright
    on_table = retarget(hand, scale=1.0, T_world_camera=T_world_camera, base_height=0.75)
    np.testing.assert_allclose(on_table.T_base_world[2, 3], -0.75, atol=1e-5)


def test_open_hand_and_fist():
    open_hand, fist = parametric_joints(0.05), parametric_joints(1.45)
    trajectory = retarget(hand_pose([open_hand] * 30 + [fist] * 30))
    fingers = np.asarray(trajectory.qpos)[:, 6:18].reshape(-1, 3, 4)
    flexion = fingers[..., 1:].sum(-1)
    assert (flexion[5] < 1.2).all(), "straight human fingers, straight robot fingers"
    assert (flexion[-5] > 3.0).all(), "a fist stays a fist"


def test_fit_does_not_depend_on_the_size_of_the_hand():
    sizes = [retarget(hand_pose([parametric_joints(0.6, size)] * 3)).qpos[:, 6:] for size in (0.8, 1.1)]
    # A pinch is one in the human's own metres: 0.006 rad measured.
    np.testing.assert_allclose(sizes[0], sizes[1], atol=1e-2)


def test_left_hand_is_followed_mirrored():
    right = np.stack([parametric_joints(curl) for curl in np.linspace(0, 1, 20)])
    left = right * np.array([-1.0, 1, 1])
    follow_right = retarget(hand_pose(right))
    follow_left = retarget(hand_pose(left, is_left=True))
    np.testing.assert_array_equal(follow_left.qpos, follow_right.qpos)


def test_left_robot_is_the_mirror_image_of_the_right_one():
    """A left hand on a left robot, and its mirror image on a right one: fingertips in the world by MuJoCo C."""
    motion = joints_of_robot(smooth_motion(40, seed=1))
    right, left = hand_pose(motion), hand_pose(motion * np.array([-1.0, 1, 1]), is_left=True)
    robots = [load_robot(side) for side in ("right", "left")]
    done = [
        retarget(hand, robot, T_world_camera=EYE, base_height=0.0)
        for hand, robot in zip((right, left), robots, strict=True)
    ]
    tips = [_tips_in_the_world(*pair) for pair in zip(done, robots, strict=True)]
    np.testing.assert_allclose(tips[1], tips[0] * [-1, 1, 1], atol=1e-3)
    fingers = [np.asarray(trajectory.qpos)[:, 6:].reshape(-1, 4, 4) for trajectory in done]
    spread = np.where(np.arange(4) == 0, -1, 1) * np.array([1, 1, 1, 0])[:, None] + np.array([0, 0, 0, 1])[:, None]
    np.testing.assert_allclose(fingers[1], fingers[0] * spread, atol=2e-2)
    assert np.abs(fingers[0][:, :3, 0]).max() > 0.1, "it would not be noticed"
    own = human_tips(left, done[1].T_base_world, EYE, robots[1])
    np.testing.assert_allclose(_to_world(own, done[1]), left.joints[:, [4, 8, 12, 16, 20]], atol=1e-5)
    errors = retarget_errors(done[1], left, robots[1], T_world_camera=EYE)
    assert errors["wrist_position_mm"].max() < 2 and errors["fingertip_position_mm"].mean() < 8
    # The other hand does the same there, mirrored, as a left hand does on a right robot.
    np.testing.assert_array_equal(retarget(right, robots[1], T_world_camera=EYE, base_height=0.0).qpos, done[1].qpos)
    # Streaming starts where the trajectory does.
    fits = [fit_hand(robot, np.asarray(hand.joints)) for hand, robot in zip((right, left), robots, strict=True)]
    mirror = np.diag([1, -1, 1])
    np.testing.assert_allclose(fits[1].rotation, mirror @ fits[0].rotation @ mirror, atol=1e-3)
    np.testing.assert_allclose(fits[1].offset, mirror @ fits[0].offset, atol=1e-4)
    T = np.asarray(done[1].T_base_world, np.float32)
    joints = left.joints[0] @ T[:3, :3].T + T[:3, 3]
    command = start(robots[1], joints, jax.tree.map(jnp.asarray, fits[1]), jnp.asarray(done[1].qpos[0])).command
    streamed = done[1].replace(qpos=np.asarray(command)[None])
    assert np.linalg.norm(_tips_in_the_world(streamed, robots[1]) - tips[1][:1], axis=-1).max() < 0.02


def _tips_in_the_world(trajectory, robot):
    model = build_scene(robot=robot).compile()
    data, tips = mujoco.MjData(model), []
    for pose in np.asarray(trajectory.qpos, np.float64):
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        tips.append([data.site(f"{finger}_tip").xpos.copy() for finger in FINGERS])
    return _to_world(np.array(tips), trajectory)


def _to_world(points, trajectory):
    T = np.linalg.inv(trajectory.T_base_world)
    return points @ T[:3, :3].T + T[:3, 3]


def test_human_tips_in_the_base_frame():
    joints = np.stack([parametric_joints(0.3)] * 2)
    T_base_world = np.eye(4)
    T_base_world[:3, 3] = [0.1, 0.2, 0.3]
    tips = human_tips(hand_pose(joints), T_base_world)
    # The level camera: its right is the world's -y, its down -z, its forward +x.
    x, y, z = joints[0, 8]
    np.testing.assert_allclose(tips[0, 1], [z + 0.1, -x + 0.2, -y + 0.3], atol=1e-6)
    assert tips.shape == (2, 5, 3)


def test_holds_while_no_hand_is_seen():
    joints = joints_of_robot(smooth_motion(60, seed=5))
    valid = np.ones(60, bool)
    valid[:4] = valid[20:33] = valid[55:] = False
    joints[~valid] = np.nan
    hand = hand_pose(joints, valid)
    trajectory = retarget(hand, T_world_camera=EYE, T_base_world=EYE)
    qpos = np.asarray(trajectory.qpos)
    _assert_obeys_limits(trajectory)
    np.testing.assert_array_equal(trajectory.valid, valid)
    assert (qpos[:4] == qpos[4]).all() and (qpos[20:33] == qpos[19]).all() and (qpos[55:] == qpos[54]).all()
    assert (np.abs(np.diff(qpos[33:55], axis=0)).max(0)[:6] > 0).all(), "it moves again afterwards"
    errors = retarget_errors(trajectory, hand, T_world_camera=EYE)
    assert all((np.isnan(error) == ~valid).all() for error in errors.values())


@pytest.mark.parametrize("case", ["noise", "far", "degenerate"])
def test_impossible_targets_stay_inside_the_limits(case):
    rng = np.random.default_rng(0)
    joints = {
        "noise": rng.normal(0, 0.3, (50, 21, 3)),
        "far": rng.normal(0, 0.1, (50, 21, 3)) + np.linspace(-50, 50, 50)[:, None, None],
        "degenerate": np.zeros((50, 21, 3)),
    }[case]
    _assert_obeys_limits(retarget(hand_pose(joints)))


def test_one_frame():
    trajectory = retarget(hand_pose([parametric_joints(0.4)]))
    assert trajectory.qpos.shape == (1, 22)
    _assert_obeys_limits(trajectory)


def test_is_deterministic():
    hand = hand_pose(joints_of_robot(smooth_motion(40, seed=7)))
    first, second = retarget(hand), retarget(hand)
    np.testing.assert_array_equal(first.qpos, second.qpos)
    np.testing.assert_array_equal(first.T_base_world, second.T_base_world)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": np.zeros(2, bool)}, "no frame has a valid hand"),
        ({"joints": np.full((2, 21, 3), np.nan, np.float32)}, "not finite"),
        ({"joints": np.zeros((2, 20, 3), np.float32)}, r"\[T,21,3\]"),
    ],
)
def test_bad_hands_are_user_errors(change, message):
    hand = hand_pose([parametric_joints(0.4)] * 2).replace(**change)
    with pytest.raises(UserError, match=message):
        retarget(hand)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": "big"},
        {"scale": -1.0},
        {"fps": 0.0},
        {"smoothness": 0.0},
        {"T_base_world": np.eye(3)},
        {"T_world_camera": np.eye(3)},
    ],
)
def test_bad_arguments_are_user_errors(arguments):
    with pytest.raises(UserError):
        retarget(hand_pose([parametric_joints(0.4)] * 2), **arguments)
