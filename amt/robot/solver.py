"""Levenberg-Marquardt inside a box, for one pose and for a whole trajectory at once.

Both minimise squared residuals. Bounds are kept exactly by projection: a variable at its bound whose gradient
points outwards is frozen for the step (Bertsekas 1982, "Projected Newton methods"), and the step is clipped.
Compiled once per residual function and shape: `residual(q, target)` must be a long-lived function.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

Residual = Callable[[Array, Any], Array]

MIN_DAMPING, MAX_DAMPING = 1e-6, 1e6


def solve_pose(
    residual: Residual,
    target: Any,
    q: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    steps: int,
) -> Float[Array, " n"]:
    """The pose near `q` with the smallest |residual(q, target)|^2. To be used inside jit, vmap and scan."""

    def step(carry, _):
        q, cost, damping = carry
        J, r = _linearise(residual)(q, target)
        gradient = J.T @ r
        free = _free(q, gradient, lower, upper)
        H = J.T @ J * free[:, None] * free[None, :]
        H = H + jnp.diag(damping * (jnp.diag(H) + 1e-4) + (1 - free))
        trial = jnp.clip(q - cho_solve((jnp.linalg.cholesky(H), True), gradient * free), lower, upper)
        trial_cost = jnp.sum(residual(trial, target) ** 2)
        better = trial_cost < cost
        return (
            jnp.where(better, trial, q),
            jnp.where(better, trial_cost, cost),
            _adapt(damping, better),
        ), None

    q = jnp.clip(q, lower, upper)
    start = (q, jnp.sum(residual(q, target) ** 2), jnp.asarray(1e-2, q.dtype))
    return jax.lax.scan(step, start, None, length=steps)[0][0]


@functools.partial(jax.jit, static_argnames=("residual", "steps"))
def track(
    residual: Residual,
    targets: Any,
    q_start: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    steps: int = 6,
) -> Float[Array, "T n"]:
    """Frame after frame, each warm-started from the last."""

    def frame(q, target):
        q = solve_pose(residual, target, q, lower, upper, steps)
        return q, q

    return jax.lax.scan(frame, q_start, targets)[1]


@functools.partial(jax.jit, static_argnames=("residual", "steps"))
def solve_trajectory(
    residual: Residual,
    targets: Any,
    q: Float[Array, "T n"],
    weight: Float[Array, " T"],
    stiffness: Float[Array, " T"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    steps: int = 20,
) -> Float[Array, "T n"]:
    """All frames together: sum_t weight_t |residual(q_t)|^2 + sum_t stiffness_t |q_t - q_(t-1)|^2.

    `stiffness[0]` is not used. The normal equations are block tridiagonal and are solved in O(T).
    """
    stiffness = stiffness.at[0].set(0.0)
    batched = jax.vmap(residual)
    linearised = jax.vmap(_linearise(residual))

    def cost_of(q):
        return jnp.sum(weight * jnp.sum(batched(q, targets) ** 2, axis=-1)) + jnp.sum(
            stiffness[1:] * jnp.sum((q[1:] - q[:-1]) ** 2, axis=-1)
        )

    def step(carry, _):
        q, cost, damping = carry
        J, r = linearised(q, targets)
        pull = stiffness[:, None] * (q - jnp.roll(q, 1, axis=0))
        gradient = weight[:, None] * jnp.einsum("tmi,tm->ti", J, r) + pull - jnp.roll(pull, -1, axis=0)
        free = _free(q, gradient, lower[None], upper[None])
        diagonal = stiffness + jnp.roll(stiffness, -1)
        H = weight[:, None, None] * jnp.einsum("tmi,tmj->tij", J, J)
        H = H * free[:, :, None] * free[:, None, :]
        D = jnp.einsum("tii->ti", H)
        extra = diagonal[:, None] * free + damping * (D + 1e-4) + (1 - free)
        H = H + extra[:, :, None] * jnp.eye(q.shape[1], dtype=q.dtype)[None]
        coupling = stiffness[:, None] * free * jnp.roll(free, 1, axis=0)
        trial = jnp.clip(q - _solve_tridiagonal(H, coupling, gradient * free), lower[None], upper[None])
        trial_cost = cost_of(trial)
        better = trial_cost < cost
        return (
            jnp.where(better, trial, q),
            jnp.where(better, trial_cost, cost),
            _adapt(damping, better),
        ), None

    q = jnp.clip(q, lower[None], upper[None])
    start = (q, cost_of(q), jnp.asarray(1e-3, q.dtype))
    return jax.lax.scan(step, start, None, length=steps)[0][0]


def limit_rate(q: Float[Array, "T n"], step: Float[Array, " n"]) -> Float[Array, "T n"]:
    """The trajectory with |q_t - q_(t-1)| <= step: the mean of a limiter run forwards and one run backwards.

    Forwards lags and backwards leads, their mean does neither; both sets of constraints are convex, so the
    mean keeps the rate, and whatever box `q` was in.
    """

    def follow(last, wanted):
        now = last + jnp.clip(wanted - last, -step, step)
        return now, now

    forwards = jax.lax.scan(follow, q[0], q)[1]
    backwards = jax.lax.scan(follow, q[-1], q, reverse=True)[1]
    return (forwards + backwards) / 2


def _linearise(residual: Residual) -> Callable[[Array, Any], tuple[Array, Array]]:
    """(q, target) -> (Jacobian [m,n], residual [m]), from one evaluation."""

    def twice(q, target):
        r = residual(q, target)
        return r, r

    return jax.jacfwd(twice, has_aux=True)


def _solve_tridiagonal(H: Array, coupling: Array, b: Array) -> Array:
    """Solve for x with diagonal blocks H_t and off-diagonal blocks -diag(coupling_t) between t - 1 and t."""

    def eliminate(carry, inputs):
        inverse, y = carry
        H_t, c, b_t = inputs
        C = H_t - c[:, None] * inverse * c[None, :]
        inverse_t = cho_solve((jnp.linalg.cholesky(C), True), jnp.eye(c.shape[0], dtype=c.dtype))
        y_t = b_t + c * (inverse @ y)
        return (inverse_t, y_t), (inverse_t, y_t)

    def substitute(carry, inputs):
        inverse, y, c_next = inputs
        x = inverse @ (y + c_next * carry)
        return x, x

    n = b.shape[1]
    zero = jnp.zeros(n, b.dtype)
    _, (inverses, y) = jax.lax.scan(eliminate, (jnp.eye(n, dtype=b.dtype), zero), (H, coupling, b))
    return jax.lax.scan(substitute, zero, (inverses, y, jnp.roll(coupling, -1, axis=0)), reverse=True)[1]


def _free(q: Array, gradient: Array, lower: Array, upper: Array) -> Array:
    """1 where a variable may move downhill, 0 where its bound forbids it."""
    blocked = ((q <= lower) & (gradient > 0)) | ((q >= upper) & (gradient < 0))
    return jnp.where(blocked, 0.0, 1.0).astype(q.dtype)


def _adapt(damping: Array, better: Array) -> Array:
    return jnp.clip(jnp.where(better, damping * 0.3, damping * 5.0), MIN_DAMPING, MAX_DAMPING)
