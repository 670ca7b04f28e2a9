import jax.numpy as jnp
import numpy as np
import scipy.optimize

from amt.robot.solver import limit_rate, solve_trajectory


def _affine(q, target):
    A, b = target
    return A @ q - b


def test_trajectory_solution_matches_scipy_with_bounds():
    rng = np.random.default_rng(1)
    T, m, n, k = 7, 5, 3, 0.4
    A, b = rng.normal(size=(T, m, n)), 2 * rng.normal(size=(T, m))
    weight = np.array([1, 1, 0, 1, 1, 2, 1.0])
    rows = [np.zeros((m, T * n)) for _ in range(T)]
    for t in range(T):
        rows[t][:, t * n : (t + 1) * n] = np.sqrt(weight[t]) * A[t]
    difference = np.sqrt(k) * np.kron(np.diff(np.eye(T), axis=0), np.eye(n))
    dense = np.concatenate([*rows, difference])
    right = np.concatenate([(np.sqrt(weight)[:, None] * b).ravel(), np.zeros((T - 1) * n)])
    expected = scipy.optimize.lsq_linear(dense, right, (-0.5, 0.5), tol=1e-12).x.reshape(T, n)

    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    found = solve_trajectory(
        _affine, (f32(A), f32(b)), f32(np.zeros((T, n))), f32(weight), f32(np.full(T, k)), f32([-0.5] * n),
        f32([0.5] * n), steps=40,
    )  # fmt: skip
    assert (np.abs(expected) == 0.5).any() or (np.abs(expected) > 0.4999).any()
    np.testing.assert_allclose(found, expected, atol=2e-3)  # single precision, squared condition number


def test_rate_limit_holds_and_leaves_slow_motion_alone():
    rng = np.random.default_rng(2)
    step = jnp.array([0.1, 0.2])
    fast = jnp.asarray(rng.uniform(-1, 1, (50, 2)), jnp.float32)
    limited = np.asarray(limit_rate(fast, step))
    assert (np.abs(np.diff(limited, axis=0)) <= np.array([0.1, 0.2]) + 1e-6).all()
    assert np.abs(limited).max() <= np.abs(np.asarray(fast)).max()
    slow = jnp.asarray(np.linspace(0, [1, 2], 30), jnp.float32)
    np.testing.assert_allclose(limit_rate(slow, step), slow, atol=1e-6)
