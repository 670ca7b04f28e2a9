"""Stage 3: what rollouts teach reaches the commands, and through them the pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt import hand as hand_model
from amt import physics
from amt.inference.acting import play_chunks, shares
from amt.models import factory, weights
from amt.physics import objective
from amt.structs import HandClip
from amt.training import rollouts
from amt.training.lessons import Lesson
from amt.training.step import init_params, jit_once
from configs import stage3
from tests.physics.scenes import OPENED, SQUEEZED

CONFIG = stage3.get_config("tiny")
FRAMES, STEPS = 4, CONFIG.actions.num_steps
TIMES = np.arange(FRAMES) / 30.0
COUNT = 6  # commands of a window
CAN = 4  # YCB's tomato soup can
PLAIN = rollouts.RolloutConfig(objective.WEIGHTS, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1e9, 1)
OBJECT = np.array([0.5, 0.0, 0.0508])


@pytest.fixture(scope="module")
def lesson():
    """Fingers close on a can from rest to rest within 0.3 s, and the can should rise by 1 m/s."""
    n = 16
    commands = np.array(OPENED) + np.linspace(0, 1, n)[:, None] * (np.array(SQUEEZED) - OPENED)
    path = OBJECT + np.linspace(0, n / 50, n)[:, None] * [0.0, 0.0, 1.0]
    eye = np.tile(np.eye(3), (n, 1, 1))
    return Lesson(commands, path, eye, np.zeros((n, 5)), np.eye(4), commands[0], CAN, False, 0, 1.0)


@pytest.fixture(scope="module")
def tasks(lesson):
    """Of two windows, the second a little later."""
    say = shares(TIMES, np.ones(FRAMES, bool), STEPS, 50.0, COUNT)
    return jax.tree.map(lambda *x: np.stack(x), *(rollouts.task(lesson, at, say) for at in (0.0, 0.1)))


@pytest.fixture(scope="module")
def models():
    return rollouts.object_models([CAN])


@pytest.fixture(scope="module")
def graded(models):
    @jax.jit
    def value_and_grad(commands, tasks, config, share):
        loss = lambda u: rollouts.rollout_loss(make(config), models, u, tasks, share)  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(commands)

    def make(numbers):
        return dataclasses.replace(PLAIN, clip_norm=numbers)

    return value_and_grad


@pytest.fixture(scope="module")
def commands(lesson):
    return np.stack([lesson.commands[:COUNT], lesson.commands[5 : 5 + COUNT]]).astype(np.float32)


def test_commands_of_a_window_are_those_that_are_played():
    rng = np.random.default_rng(0)
    chunks, q = rng.normal(size=(FRAMES, STEPS, 22)), rng.normal(size=22)
    valid = np.array([False, False, True, True])
    say = shares(TIMES, valid, STEPS, 50.0, 20)
    ours = rollouts.played(*(jnp.asarray(x[None], jnp.float32) for x in (say, chunks, q)))[0]
    np.testing.assert_allclose(ours, play_chunks(chunks, TIMES, valid, q, 50.0, 20), atol=1e-5)
    np.testing.assert_allclose(ours[0], q, atol=1e-6)


def test_a_task_follows_the_lesson_from_its_first_moment(lesson, tasks):
    np.testing.assert_allclose(
        tasks.goal.object_pos[1, :, 2], OBJECT[2] + (5 + np.arange(COUNT)) / 50 * 16 / 15, atol=1e-6
    )
    np.testing.assert_allclose(tasks.object_pose[1], [*OBJECT, 1, 0, 0, 0], atol=1e-6)
    aside = rollouts.task(lesson, 0.0, tasks.shares[0], (0.01, -0.02))
    np.testing.assert_allclose(aside.object_pose[:3] - tasks.object_pose[0, :3], [0.01, -0.02, 0], atol=1e-6)
    moved = aside.goal.object_pos - tasks.goal.object_pos[0]
    np.testing.assert_allclose(moved, np.tile([0.01, -0.02, 0], (COUNT, 1)), atol=1e-6)
    np.testing.assert_array_equal(aside.goal.tips, tasks.goal.tips[0])
    late = rollouts.task(lesson, 0.2, tasks.shares[0])
    assert late.goal.valid.tolist() == [True] * 6 and not rollouts.task(lesson, 0.25, tasks.shares[0]).goal.valid[-1]


def test_on_another_side_of_the_robot_the_task_is_that_of_the_turned_lesson(lesson, tasks):
    angle, pan = 0.7, np.zeros(22)
    pan[0] = angle
    R = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    there = dataclasses.replace(
        lesson,
        commands=lesson.commands + pan,
        object_pos=lesson.object_pos @ R.T,
        object_rot=R @ lesson.object_rot,
    )
    wanted = rollouts.task(there, 0.1, tasks.shares[1])
    turned = rollouts.turned_task(jax.tree.map(lambda x: x[1], tasks), angle)
    assert jax.tree.map(np.shape, turned) == jax.tree.map(np.shape, wanted)
    for ours, theirs in zip(jax.tree.leaves(turned), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert not np.allclose(turned.goal.tips, tasks.goal.tips[1], atol=0.1)


def test_the_loss_is_the_objective_of_the_rollout_and_its_slope_the_differences(models, graded, tasks, commands):
    (value, scalars), slope = graded(commands, tasks, np.float32(1e9), np.float32(1))
    model, placed = jax.tree.map(lambda x: x[CAN], models), jax.tree.map(jnp.asarray, tasks)

    @jax.jit
    def judged(u, k):
        start = physics.at_rest(model, jnp.concatenate([u[0], placed.object_pose[k]]))
        goal = jax.tree.map(lambda x: x[k], placed.goal)
        found = objective.terms(model, physics.rollout(model, start, u, follow=True), u, goal)
        return objective.total(found, objective.WEIGHTS)

    assert float(value) == pytest.approx(np.mean([judged(commands[k], k) for k in range(2)]), rel=1e-5)
    for k in range(2):
        way, step = np.sign(np.asarray(slope[k])), 1e-5  # contacts are stiff
        ends = [float(judged(commands[k] + side * step * way, k)) for side in (1, -1)]
        assert float((slope[k] * way).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step) / 2, rel=0.05)
    assert scalars["rollout_clipped_share"] == scalars["rollout_not_finite_share"] == 0


def test_the_configuration_weighs_terms_as_descent_does():
    assert CONFIG.rollout.weights.to_dict() == objective.WEIGHTS


def test_each_rollout_is_clipped_alone_and_a_broken_one_teaches_nothing(graded, tasks, commands):
    whole = graded(commands, tasks, np.float32(1e9), np.float32(1))[1]
    norms = np.linalg.norm(np.asarray(whole).reshape(2, -1), axis=1) * 2  # of two windows' mean
    bound = np.float32(norms.mean())
    (_, scalars), clipped = graded(commands, tasks, bound, np.float32(1))
    for k in range(2):
        np.testing.assert_allclose(clipped[k], whole[k] * min(1.0, bound / norms[k]), rtol=1e-3, atol=1e-5)
    assert scalars["rollout_clipped_share"] == 0.5
    pose = tasks.object_pose.copy()
    pose[0, 0] = np.nan
    (value, scalars), slope = graded(commands, tasks.replace(object_pose=pose), np.float32(1e9), np.float32(1))
    assert np.isfinite(value) and scalars["rollout_not_finite_share"] == 0.5
    assert not np.asarray(slope[0]).any()
    np.testing.assert_allclose(slope[1], 2 * whole[1], rtol=1e-3, atol=1e-5)


def test_physics_alone_reaches_the_pixels(models, tasks):
    """A finite gradient, not 0, on every picture but those that come too late to be played."""
    hand = jax.tree.map(jnp.asarray, hand_model.load())
    model = factory.from_settings(weights.architecture(CONFIG.to_dict()))
    policy = factory.build_policy(CONFIG.fusion, CONFIG.actions)
    size = CONFIG.data.image_size
    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4, dtype=np.float32), (2, FRAMES, 1, 1))
    T[..., :3, 3] = [0.5, 0.0, 0.6]
    T[..., :3, :3] = np.diag([1.0, -1.0, -1.0])  # a camera that looks down
    clip = HandClip(
        rng.uniform(0, 255, (2, FRAMES, size, size, 3)).astype(np.float32),
        np.tile(np.float32([[40, 0, 16], [0, 40, 16], [0, 0, 1]]), (2, FRAMES, 1, 1)),
        T,
        np.tile(np.float32(OPENED), (2, FRAMES, 1)),
        np.ones((2, FRAMES), bool),
        np.ones((2, FRAMES), np.float32),
    )
    params = init_params(model, 0, size, CONFIG.finder.frame_size, hand)
    act = rollouts.actor(model, policy, hand)
    look = rollouts.looker(model, hand)
    params["policy"] = jit_once(lambda clip: policy.init(jax.random.key(0), look(params, clip, {})))(clip)["params"]

    @jax.jit
    def slope(image):
        def loss(image):
            actions = act(params, clip.replace(image=image), {})
            u = rollouts.played(tasks.shares, actions.commands, clip.qpos[:, 0])
            return rollouts.rollout_loss(PLAIN, models, u, tasks, 1.0)[0]

        return jax.grad(loss)(image)

    found = np.abs(np.asarray(slope(clip.image)))
    assert np.isfinite(found).all()
    assert (found.reshape(2, FRAMES, -1).max(-1)[:, :-1] > 0).all()
