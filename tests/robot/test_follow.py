import jax
import jax.numpy as jnp
import numpy as np

from amt.robot import HandFit, Motion, load_robot, self_depth
from amt.robot.chains import fingers
from amt.robot.follow import problems
from amt.robot.human import TIPS, finger_contacts, hand_targets
from amt.robot.residuals import REST_HAND, TIP_RADIUS, hand_residual, joint_box, palm_tips
from amt.robot.solver import solve_pose, solve_trajectory
from amt.robot.streaming import start, step
from tests.precision import double_precision
from tests.robot.hands import joints_of_robot, smooth_motion

AS_IT_IS = HandFit(np.float32(1.0), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))


def _solve_one(targets, steps=40):
    robot = load_robot()
    lower, upper = jnp.asarray(joint_box(robot)[6:], jnp.float32).T
    start = jnp.asarray(REST_HAND, jnp.float32)
    return jax.jit(lambda target: solve_pose(hand_residual(robot), target, start, lower, upper, steps))(targets)


def _targets(joints, **changes):
    targets = hand_targets(load_robot(), jnp.asarray(joints, jnp.float32), jax.tree.map(jnp.asarray, AS_IT_IS))
    return targets.replace(**{name: jnp.asarray(value, jnp.float32) for name, value in changes.items()})


def test_analytic_jacobian_is_that_of_the_residual():
    robot = load_robot()
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.uniform(*joint_box(robot)[6:].T), jnp.float32)
    residual = hand_residual(robot)
    target = _targets(joints_of_robot(smooth_motion(1))[0], pinch=[0.3, 0.6, 0.9], contact_weight=np.ones(4))
    expected = jax.jacfwd(lambda q: residual(q, target)[0])(q)
    np.testing.assert_allclose(residual(q, target)[1], expected, atol=1e-6)


def test_a_pinch_closes():
    joints = joints_of_robot(smooth_motion(1))[0]
    joints[4] = joints[8] + np.array([0.0, 0.0, 0.012])  # thumb at the index finger
    q = _solve_one(_targets(joints))
    tips, _ = palm_tips(load_robot(), q)
    assert abs(np.linalg.norm(tips[3] - tips[0]) - 2 * TIP_RADIUS) < 5e-3


def test_fingertips_go_to_the_contacts():
    joints = joints_of_robot(smooth_motion(1))[0]
    free = np.asarray(fingers(load_robot(), _solve_one(_targets(joints))).points[:, 2])
    points = free + np.array([0.02, 0.0, 0.0])  # 8 mm in front of the surface
    q = _solve_one(_targets(joints, contacts=points, contact_weight=[1.0, 0.0, 0.0, 1.0]))
    gap = np.linalg.norm(np.asarray(fingers(load_robot(), q).points[:, 2]) - points, axis=-1) - TIP_RADIUS
    assert np.abs(gap[[0, 3]]).max() < 1e-3
    assert gap[[1, 2]].min() > 5e-3


def test_contacts_belong_to_the_nearest_tip():
    joints = np.zeros((1, 21, 3))
    joints[0, [8, 12, 16, 4], 0] = [0.0, 0.1, 0.2, 0.3]
    points = np.array([[[0.11, 0, 0], [0.305, 0, 0], [0.2, 0, 0], [9, 9, 9]]])
    chosen, weight = finger_contacts(joints, points, np.array([[0.9, 0.8, 0.0, 1.0]]))
    np.testing.assert_array_equal(weight, [[0, 0.9, 0, 0.8]])
    np.testing.assert_array_equal(chosen[0, [1, 3]], points[0, :2])


def test_derivative_of_the_commands_matches_differences():
    """d q / d (joints, contacts) by implicit differentiation, in double precision; a limit and a contact are active."""
    robot, T = load_robot(), 6
    with double_precision():
        q = smooth_motion(T, seed=2)
        q[:, 7] = robot.limits[7, 0]  # the index finger straight, so that its bound holds
        joints = np.asarray(joints_of_robot(q), np.float64)
        points = joints[:, TIPS] + np.array([0.02, 0.0, 0.0])
        fit = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), AS_IT_IS)
        ones, touch = jnp.ones(T), jnp.asarray(np.tile([0.0, 1.0, 0.0, 0.0], (T, 1)))
        rng = np.random.default_rng(0)
        directions, cotangent = [rng.normal(size=x.shape) for x in (joints, points)], rng.normal(size=(T, 16))

        @jax.jit
        def solved(joints, points):
            targets = jax.vmap(lambda *frame: hand_targets(robot, frame[0], fit, *frame[1:]))(joints, points, touch)
            motion = Motion(joints, ones, ones, jnp.full(22, 0.5), points, touch)
            return solve_trajectory(
                hand_residual(robot), problems(robot, targets, motion)[1], jnp.asarray(q[:, 6:]), 2000
            )

        loss = lambda joints, points: jnp.sum(solved(joints, points) * cotangent)  # noqa: E731
        gradients = jax.grad(loss, argnums=(0, 1))(joints, points)
        assert (np.asarray(solved(joints, points)) <= joint_box(robot)[6:, 0]).any()
        h = 1e-5
        for number, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
            moved = [
                [x + sign * h * direction if k == number else x for k, x in enumerate((joints, points))]
                for sign in (1, -1)
            ]
            change = (loss(*moved[0]) - loss(*moved[1])) / (2 * h)
            np.testing.assert_allclose(np.sum(gradient * direction), change, rtol=1e-4)


def test_links_stay_out_of_each_other():
    """A pose in which index and middle finger cross, asked for as human tips."""
    asked = smooth_motion(1)
    asked[:, 6:18] = [-0.3, 1.2, 0.6, 0.3, 0.4, 1.2, 0.6, 0.3, 0.0, 0.4, 0.6, 0.3]
    q = np.concatenate([asked[0, :6], _solve_one(_targets(joints_of_robot(asked)[0]))])[None]
    assert self_depth(asked)[0] > 0.008
    assert self_depth(q)[0] < 0.005


def test_stream_follows_within_its_rate_and_holds():
    robot = load_robot()
    q = smooth_motion(60, seed=4)
    joints = joints_of_robot(q).astype(np.float32)
    fit, rate = jax.tree.map(jnp.asarray, AS_IT_IS), jnp.full(22, 0.1, jnp.float32)
    stream = start(robot, joints[0], fit, jnp.asarray(q[0], jnp.float32))
    commands = []
    for t, frame in enumerate(joints):
        stream, command = step(robot, stream, frame, fit, rate, jnp.asarray(not 30 <= t < 35))
        commands.append(np.asarray(command))
    commands = np.stack(commands)
    assert (np.abs(np.diff(commands, axis=0)) <= 0.1 + 1e-6).all()
    assert (commands > robot.limits[:, 0]).all() and (commands < robot.limits[:, 1]).all()
    np.testing.assert_array_equal(commands[30:35], np.broadcast_to(commands[29], (5, 22)))
    assert np.abs(commands[:30, :6] - q[:30, :6]).max() < 0.2, "the arm is where the motion is"
    tips, wanted = (np.asarray(palm_tips(robot, jnp.asarray(x[:30, 6:], jnp.float32))[0]) for x in (commands, q))
    assert np.linalg.norm(tips - wanted, axis=-1).mean() < 0.015
