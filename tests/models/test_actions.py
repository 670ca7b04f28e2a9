"""Changes of joints within their limits."""

import jax
import numpy as np

from amt.models.actions import within_limits
from amt.robot import load_robot

ROBOT = load_robot()
LOW, HIGH = ROBOT.limits.astype(np.float32).T


def test_no_change_leaves_the_joints_to_the_last_bit():
    qpos = np.random.default_rng(0).uniform(LOW, HIGH, (100, 22)).astype(np.float32)
    qpos[0], qpos[1] = LOW, HIGH
    np.testing.assert_array_equal(within_limits(qpos, np.zeros_like(qpos), ROBOT.limits), qpos)


def test_no_change_leads_out_of_the_limits():
    rng = np.random.default_rng(0)
    qpos = np.concatenate([rng.uniform(LOW, HIGH, (200, 22)), [LOW, HIGH], HIGH - 1e-3 * rng.uniform(size=(200, 22))])
    change = rng.choice([-1, 1], qpos.shape) * 10.0 ** rng.uniform(-6, 30, qpos.shape)
    found = np.asarray(within_limits(qpos.astype(np.float32), change.astype(np.float32), ROBOT.limits))
    assert (found >= LOW).all() and (found <= HIGH).all()
    reached = np.asarray(within_limits(np.float32(qpos), np.full(qpos.shape, 1e9, np.float32), ROBOT.limits))
    np.testing.assert_allclose(reached, np.broadcast_to(HIGH, qpos.shape), atol=2e-5)  # 1e-6 of two turns, and rounding


def test_a_change_always_has_a_slope_and_a_small_one_is_itself():
    qpos = np.random.default_rng(0).uniform(LOW + 1e-3, HIGH - 1e-3, (100, 22)).astype(np.float32)
    slope = jax.jit(jax.grad(lambda change: within_limits(qpos, change, ROBOT.limits).sum()))
    for size in (0.0, 1e-3, 0.1, 3.0, 1e3, 1e6):
        for sign in (-1, 1):
            found = np.asarray(slope(np.full(qpos.shape, sign * size, np.float32)))
            assert (found > 0).all() and np.isfinite(found).all()
    np.testing.assert_allclose(slope(np.zeros_like(qpos)), 1, rtol=2e-6)
    small = np.full(qpos.shape, 1e-3, np.float32)
    middle = np.broadcast_to((LOW + HIGH) / 2, qpos.shape).astype(np.float32)
    np.testing.assert_allclose(within_limits(middle, small, ROBOT.limits) - middle, 1e-3, atol=1e-6)
