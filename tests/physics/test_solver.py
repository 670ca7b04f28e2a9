"""The contact solver on a small problem, against scipy; and the single step that studies compare it with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from amt.physics import solver

NV, EDGES, HINGES = 6, 8, 4


@pytest.fixture(scope="module")
def problem():
    """Mass matrix, force, one-sided rows of which about half press, and the acceleration that scipy finds."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(NV, NV))
    M, force = half @ half.T + NV * np.eye(NV), 5 * rng.normal(size=NV)
    rows = solver.Rows(
        J=rng.normal(size=(EDGES, NV)),
        side=rng.choice([-1.0, 1.0], HINGES),
        D=rng.uniform(0, 20, EDGES + HINGES),
        aref=rng.normal(size=EDGES + HINGES),
    )
    whole = np.concatenate([rows.J, np.eye(HINGES, NV) * rows.side[:, None]])

    def gauss(a):
        below = np.minimum(whole @ a - rows.aref, 0)
        off = a - np.linalg.solve(M, force)
        return off @ M @ off / 2 + (rows.D * below**2).sum() / 2

    found = minimize(gauss, np.zeros(NV), method="BFGS", options={"gtol": 1e-9}).x
    assert 2 < (whole @ found < rows.aref).sum() < EDGES + HINGES - 2
    arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (M, force, rows))
    return *arrays, found


def test_the_acceleration_is_the_minimum_of_gauss_principle(problem):
    M, force, rows, found = problem
    a, pressed = solver.constrained_acceleration(M, force, rows, jnp.zeros(NV))
    np.testing.assert_allclose(a, found, atol=1e-4)
    np.testing.assert_allclose(M @ a, force + rows.transposed(pressed), atol=1e-3)
    assert (np.asarray(pressed) >= 0).all()


def test_one_step_from_the_solution_is_the_solution_and_from_elsewhere_it_is_not(problem):
    """Of the values and of the derivatives with respect to the force."""
    M, force, rows, found = problem

    def of(solve, start):
        value = lambda f: solve(M, f, rows, jnp.asarray(start, jnp.float32))[0]  # noqa: E731
        return np.asarray(value(force)), np.asarray(jax.jacrev(value)(force))

    solved = of(solver.constrained_acceleration, np.zeros(NV))
    for ours, theirs in zip(of(solver.unrolled_acceleration, found), solved, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    for ours, theirs in zip(of(solver.unrolled_acceleration, found + 3.0), solved, strict=True):
        assert np.abs(ours - theirs).max() > 0.01
