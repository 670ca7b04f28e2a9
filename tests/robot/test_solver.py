import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from amt.robot.solver import Problem, limit_rate, solve_trajectory


def _affine(q, target):
    A, b = target
    return A @ q - b, A


def _problem(A, b, weight, acceleration, bound, rate=1e3):
    T, n = len(A), A.shape[-1]
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    box = np.full((T, n), bound)
    return Problem((f32(A), f32(b)), f32(weight), f32(acceleration), f32(np.full(n, rate)), f32(-box), f32(box))


def _random(T=7, m=5, n=3, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, m, n)), 2 * rng.normal(size=(T, m))


def _dense(A, b, weight, acceleration):
    """The same sum of squares as one matrix and its right side."""
    T, m, n = A.shape
    rows = np.zeros((T, m, T, n))
    rows[np.arange(T), :, np.arange(T)] = np.sqrt(weight)[:, None, None] * A
    second = np.sqrt(acceleration[2:])[:, None] * np.diff(np.eye(T), n=2, axis=0)
    dense = np.concatenate([rows.reshape(T * m, T * n), np.kron(second, np.eye(n))])
    return dense, np.concatenate([(np.sqrt(weight)[:, None] * b).ravel(), np.zeros((T - 2) * n)])


def test_trajectory_solution_matches_scipy_with_bounds():
    A, b = _random()
    weight = np.array([1, 1, 0.5, 1, 1, 2, 1.0])
    acceleration = np.array([9, 9, 0.4, 0.2, 0.0, 0.4, 0.4])
    expected = scipy.optimize.lsq_linear(*_dense(A, b, weight, acceleration), (-0.5, 0.5), tol=1e-12).x
    start = jnp.zeros((7, 3), jnp.float32)
    found = solve_trajectory(_affine, _problem(A, b, weight, acceleration, 0.5), start, 40)
    assert (np.abs(expected) > 0.4999).any()
    np.testing.assert_allclose(found, expected.reshape(7, 3), atol=2e-3)  # single precision, squared condition number


def test_padding_stays_and_does_not_pull():
    A, b = _random()
    weight, acceleration = np.array([1, 1, 1, 1, 1, 0, 0.0]), np.array([0, 0, 1, 1, 1, 0, 0.0])
    start = jnp.full((7, 3), 9.0, jnp.float32)
    found = np.asarray(solve_trajectory(_affine, _problem(A, b, weight, acceleration, 10.0, rate=5.0), start, 20))
    dense, right = _dense(A[:5], b[:5], weight[:5], acceleration[:5])
    expected = np.linalg.lstsq(dense, right)[0].reshape(5, 3)
    np.testing.assert_allclose(found[:5], expected, atol=2e-3)
    np.testing.assert_array_equal(found[5:], 9.0)


def test_steps_beyond_the_rate_cost():
    A, b = np.broadcast_to(np.eye(3), (7, 3, 3)), np.repeat([[0.0] * 3, [1.0] * 3], [3, 4], axis=0)
    problem = _problem(A, b, np.full(7, 1e-3), np.zeros(7), 10.0, rate=0.3)
    found = np.asarray(solve_trajectory(_affine, problem, jnp.zeros((7, 3), jnp.float32), 40))
    assert 0.25 < np.abs(np.diff(found, axis=0)).max() < 0.3


def test_derivative_is_that_of_the_solution():
    """Against differences of scipy's bounded least squares; the bound is active somewhere."""
    A, b = _random(seed=3)
    weight, acceleration = np.ones(7), np.full(7, 0.3)
    cotangent = np.random.default_rng(4).normal(size=(7, 3))
    direction = np.random.default_rng(5).normal(size=b.shape)

    def solved(b):
        return solve_trajectory(_affine, _problem(A, b, weight, acceleration, 0.5), jnp.zeros((7, 3)), 40)

    gradient = jax.grad(lambda b: jnp.sum(solved(b) * cotangent.astype(np.float32)))(jnp.asarray(b, jnp.float32))
    reference = lambda b: scipy.optimize.lsq_linear(*_dense(A, b, weight, acceleration), (-0.5, 0.5), tol=1e-12).x  # noqa: E731
    change = (reference(b + 1e-4 * direction) - reference(b - 1e-4 * direction)) / 2e-4
    assert (np.abs(reference(b)) > 0.4999).any()
    np.testing.assert_allclose(np.sum(gradient * direction), np.sum(change * cotangent.ravel()), rtol=5e-3)


def test_rate_limit_holds_and_leaves_slow_motion_alone():
    rng = np.random.default_rng(2)
    step = jnp.array([0.1, 0.2])
    fast = jnp.asarray(rng.uniform(-1, 1, (50, 2)), jnp.float32)
    limited = np.asarray(limit_rate(fast, step))
    assert (np.abs(np.diff(limited, axis=0)) <= np.array([0.1, 0.2]) + 1e-6).all()
    assert np.abs(limited).max() <= np.abs(np.asarray(fast)).max()
    slow = jnp.asarray(np.linspace(0, [1, 2], 30), jnp.float32)
    np.testing.assert_allclose(limit_rate(slow, step), slow, atol=1e-6)
