"""The objective's terms by hand, and descent through the simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt import physics
from amt.errors import UserError
from amt.physics import objective, optimise
from amt.robot import forward, load_robot
from tests.physics.scenes import CLOSED, LIFTED, OPENED, SQUEEZED, scene


@pytest.fixture(scope="module")
def cylinder():
    return physics.put(scene("cylinder"))


def goal_of(model, q, position, rotation):
    hand = jax.vmap(lambda x: objective.hand_frames(model, x))(q)
    valid = jnp.ones(len(q), bool)
    return objective.Goal(position, rotation, hand.tips, hand.wrist_pos, hand.wrist_rot, valid)


def test_hand_frames_are_those_of_the_robots_kinematics(cylinder):
    model, _ = cylinder
    q = jnp.asarray(LIFTED, jnp.float32)
    ours, theirs = objective.hand_frames(model, q), forward(load_robot(), q)
    tips = np.stack([theirs[f"{finger}_tip"][:3, 3] for finger in ("ff", "mf", "rf", "th")])
    np.testing.assert_allclose(ours.tips, tips, atol=2e-6)
    np.testing.assert_allclose(ours.wrist_pos, theirs["wrist"][:3, 3], atol=2e-6)
    np.testing.assert_allclose(ours.wrist_rot, theirs["wrist"][:3, :3], atol=2e-6)


def test_terms_by_hand(cylinder):
    """3 cm and half a turn off, one contact 4 mm deep with 25 N that slides at 0.2 m/s; the second time is masked."""
    model, state = cylinder
    q = jnp.tile(jnp.asarray(OPENED, jnp.float32), (2, 1))
    states = jax.tree.map(lambda x: jnp.stack([x, x]), physics.at_rest(model, jnp.concatenate([q[0], state.qpos[22:]])))
    none = jnp.zeros_like(states.touch.dist)
    touch = physics.Touch(none.at[0, 0].set(-0.004), none.at[0, 0].set(25.0), none.at[0, 0].set(0.2))
    states = states.replace(touch=touch)
    position = states.qpos[:, 22:25] + jnp.asarray([[0.0, 0.03, 0.0]])
    rotation = jnp.broadcast_to(jnp.diag(jnp.asarray([-1.0, -1.0, 1.0])), (2, 3, 3))
    goal = goal_of(model, q, position, rotation).replace(valid=jnp.asarray([True, False]))
    found = objective.terms(model, states, q + 0.1, goal)
    expected = {"object_position": 0.03, "object_rotation": 2.0, "fingertips": 1e-4, "wrist_position": 1e-4,
                "wrist_rotation": 0.0, "slip": 0.2 * 25 / 26, "effort": 0.01,
                "penetration": 0.003, "force": 15.0}  # fmt: skip
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=2e-3, abs=1e-6), name
    assert found.keys() == objective.WEIGHTS.keys()
    with pytest.raises(KeyError, match="differ"):
        objective.total(found, {"slip": 1.0})


def test_descent_squeezes_what_would_slip():
    """From a grasp that is too loose to keep a heavy can in its place against the lift, the object's error falls."""
    loose = np.array([*OPENED[:6], *(0.75 * np.array(CLOSED) + 0.25 * OPENED[6:])])
    spec = scene("cylinder", mass=0.4)
    model, state = physics.put(spec)
    times = np.linspace(0, 1, 24)[:, None]
    q = jnp.asarray(OPENED + np.minimum(3 * times, 1) * (loose - OPENED), jnp.float32)
    position = jnp.tile(state.qpos[22:25], (24, 1))
    goal = goal_of(model, q, position, jnp.broadcast_to(jnp.eye(3), (24, 3, 3)))
    start = physics.at_rest(model, jnp.concatenate([q[0], state.qpos[22:]]))
    batch = jax.tree.map(lambda x: x[None], (model, start, q, goal))
    *_, last = all_of = list(optimise.optimise(*batch, iterations=8))
    first = all_of[0]
    np.testing.assert_array_equal(first.controls[0], q)
    assert float(last.best[0]) < 0.97 * float(first.best[0])
    np.testing.assert_allclose(optimise.judge(*batch), first.best, rtol=1e-4)
    limits, controls = load_robot().limits, np.asarray(last.controls)
    assert (controls >= limits[:, 0]).all() and (controls <= limits[:, 1]).all()


def test_the_mean_over_scenes_counts():
    """A still hand beside a can that should stay, and beside the same can that should be 10 cm further."""
    model, state = physics.put(scene("cylinder"))
    q = jnp.tile(jnp.asarray(OPENED, jnp.float32), (4, 1))
    start = physics.at_rest(model, jnp.concatenate([q[0], state.qpos[22:]]))
    place, turn = jnp.tile(state.qpos[22:25], (4, 1)), jnp.broadcast_to(jnp.eye(3), (4, 3, 3))
    goals = [goal_of(model, q, place + jnp.asarray([[x, 0.0, 0.0]]), turn) for x in (0.0, 0.1)]
    pair = [jax.tree.map(lambda *x: jnp.stack(x), *two) for two in ([model] * 2, [start] * 2, goals)]
    models, states, both = pair
    apart = optimise.judge(models, states, jnp.stack([q, q]), both)
    assert float(apart[1] - apart[0]) == pytest.approx(objective.WEIGHTS["object_position"] * 0.1, rel=0.02)
    together = optimise.judge(models, states, q[None], both)
    np.testing.assert_allclose(together, apart.mean(keepdims=True), rtol=1e-4)
    with pytest.raises(UserError, match="2 scenes for 3 command sequences"):
        optimise.judge(models, states, jnp.stack([q, q, q]), both)


def test_one_program_for_objects_of_all_shapes():
    models, states = zip(*(physics.put(scene(shape)) for shape in ("box", "cylinder", "capsule")), strict=True)
    together = physics.stack(models), jax.tree.map(lambda *x: jnp.stack(x), *states)
    controls = jnp.tile(jnp.asarray(SQUEEZED, jnp.float32), (3, 4, 1))
    both = jax.jit(jax.vmap(physics.rollout))(*together, controls)
    alone = jax.jit(physics.rollout)
    for k in range(3):
        single = alone(models[k], states[k], controls[k])
        np.testing.assert_allclose(both.qpos[k], single.qpos, atol=2e-5)
    other, _ = physics.put(scene("box"), num_shapes=2)
    with pytest.raises(UserError, match="as many objects"):
        physics.stack([models[0], other])
