"""Levenberg-Marquardt inside a box, for one pose and for a whole trajectory at once.

Both minimise squared residuals. Bounds are kept exactly by projection: a variable at its bound whose gradient
points outwards is frozen for the step (Bertsekas 1982, "Projected Newton methods"), and the step is clipped.
A residual function answers with its Jacobian, `residual(q [n], target) -> (r [m], J [m,n])`, and must be
long-lived: it is a static argument of the compiled solver.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

Residual = Callable[[Array, Any], tuple[Array, Array]]

MIN_DAMPING, MAX_DAMPING = 1e-2, 1e6  # less damping is refused too often where bounds and guards switch
RATE_WEIGHT, RATE_MARGIN = 1.0, 0.97  # metres squared per radian squared above this share of the allowed step


@flax.struct.dataclass
class Problem:
    """T frames to be solved together; trees of `targets` have T in front.

    `weight` multiplies each frame's residuals (0: the frame is padding), `acceleration` the squared second
    difference that ends in it (the first two are not used). `rate` is the joints' largest step between frames.
    """

    targets: Any
    weight: Float[Array, " T"]
    acceleration: Float[Array, " T"]
    rate: Float[Array, " n"]
    lower: Float[Array, "T n"]
    upper: Float[Array, "T n"]


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
        q, r, J, damping = carry
        gradient = J.T @ r
        free = _free(q, gradient, lower, upper)
        H = J.T @ J * free[:, None] * free[None, :]
        H = H + jnp.diag(damping * (jnp.diag(H) + 1e-4) + (1 - free))
        trial = jnp.clip(q - cho_solve((jnp.linalg.cholesky(H), True), gradient * free), lower, upper)
        r_trial, J_trial = residual(trial, target)
        better = jnp.sum(r_trial**2) < jnp.sum(r**2)
        q, r, J = (jnp.where(better, *pair) for pair in ((trial, q), (r_trial, r), (J_trial, J)))
        return (q, r, J, _adapt(damping, better)), None

    q = jnp.clip(q, lower, upper)
    return jax.lax.scan(step, (q, *residual(q, target), jnp.asarray(MIN_DAMPING, q.dtype)), None, length=steps)[0][0]


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def solve_trajectory(residual: Residual, problem: Problem, q: Float[Array, "T n"], steps: int) -> Float[Array, "T n"]:
    """All frames together, from the guess `q`: the least of `objective`.

    The normal equations are block pentadiagonal and are solved in O(T). Differentiable with respect to
    `problem`: implicitly, on the condition that the gradient of the free variables is 0 with the exact second
    derivatives; variables at a bound are taken to stay there, and bounds have no derivative. Derivatives are
    those of the exact solution, so take enough `steps`.
    """
    evaluate = jax.vmap(residual)

    def step(carry, _):
        q, r, J, cost, damping = carry
        gradient = problem.weight[:, None] * jnp.einsum("tmi,tm->ti", J, r) + jax.grad(_motion)(q, problem)
        free = _free(q, gradient, problem.lower, problem.upper)
        H = problem.weight[:, None, None] * jnp.einsum("tmi,tmj->tij", J, J)
        extra = damping * (jnp.einsum("tii->ti", H) + 1e-4)
        trial = jnp.clip(q - _newton(problem, q, H, extra, gradient, free), problem.lower, problem.upper)
        r_trial, J_trial = evaluate(trial, problem.targets)
        trial_cost = _cost(r_trial, trial, problem)
        better = trial_cost < cost
        new, old = (trial, r_trial, J_trial, trial_cost), (q, r, J, cost)
        return (*(jnp.where(better, a, b) for a, b in zip(new, old, strict=True)), _adapt(damping, better)), None

    q = jnp.clip(q, problem.lower, problem.upper)
    r, J = evaluate(q, problem.targets)
    start = (q, r, J, _cost(r, q, problem), jnp.asarray(MIN_DAMPING, q.dtype))
    return jax.lax.scan(step, start, None, length=steps)[0][0]


def objective(residual: Residual, problem: Problem, q: Float[Array, "T n"]) -> Float[Array, ""]:
    """Half of sum_t weight_t |r(q_t)|^2 + acceleration_t |q_t - 2 q_(t-1) + q_(t-2)|^2 + steps beyond the rate."""
    return _cost(jax.vmap(residual)(q, problem.targets)[0], q, problem)


def _solve_forward(residual, problem, q, steps):
    solution = solve_trajectory(residual, problem, q, steps)
    return solution, (problem, solution)


def _solve_backward(residual, steps, saved, cotangent):
    problem, q = saved
    gradient_of = jax.grad(objective, argnums=2)
    free = _free(q, gradient_of(residual, problem, q), problem.lower, problem.upper)
    H = jax.vmap(jax.hessian(lambda q, target: jnp.sum(residual(q, target)[0] ** 2) / 2))(q, problem.targets)
    H = problem.weight[:, None, None] * H
    sensitivity = _newton(problem, q, H, jnp.zeros_like(q), cotangent, free)
    _, pull = jax.vjp(lambda problem: gradient_of(residual, problem, q), problem)
    return pull(-sensitivity)[0], jnp.zeros_like(q)


solve_trajectory.defvjp(_solve_forward, _solve_backward)


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


def _cost(r: Array, q: Array, problem: Problem) -> Array:
    return jnp.sum(problem.weight * jnp.sum(r**2, axis=-1)) / 2 + _motion(q, problem)


def _motion(q: Array, problem: Problem) -> Array:
    second = q[2:] - 2 * q[1:-1] + q[:-2]
    beyond = jnp.maximum(jnp.abs(q[1:] - q[:-1]) - RATE_MARGIN * problem.rate[None], 0.0)
    beyond = jnp.where(problem.weight[1:, None] > 0, beyond, 0.0)
    acceleration = jnp.sum(problem.acceleration[2:] * jnp.sum(second**2, axis=-1))
    return (acceleration + RATE_WEIGHT * jnp.sum(beyond**2)) / 2


def _newton(problem: Problem, q: Array, H: Array, extra: Array, gradient: Array, free: Array) -> Array:
    """The step x with (blocks H + diagonal `extra` + the second derivative of `_motion`) x = gradient; 0 where not
    free. Frames without weight stand still."""
    free = free * (problem.weight > 0).astype(q.dtype)[:, None]
    a = jnp.where(jnp.arange(len(q)) < 2, 0.0, problem.acceleration).astype(q.dtype)
    fast = (jnp.abs(q[1:] - q[:-1]) > RATE_MARGIN * problem.rate[None]) & (problem.weight[1:, None] > 0)
    fast = jnp.concatenate([jnp.zeros_like(q[:1]), RATE_WEIGHT * fast.astype(q.dtype)])
    after = lambda x, n: jnp.roll(x, -n, axis=0)  # noqa: E731
    diagonal = (a + 4 * after(a, 1) + after(a, 2))[:, None] + fast + after(fast, 1)
    first = -(2 * a + 2 * after(a, 1))[:, None] - fast
    first = first * free * jnp.roll(free, 1, axis=0)
    second = a[:, None] * free * jnp.roll(free, 2, axis=0)
    H = H * free[:, :, None] * free[:, None, :]
    added = (diagonal + extra) * free + (1 - free)
    H = H + added[:, :, None] * jnp.eye(q.shape[1], dtype=q.dtype)[None]
    return _solve_pentadiagonal(H, first, second, gradient * free)


def _solve_pentadiagonal(H: Array, first: Array, second: Array, b: Array) -> Array:
    """Solve for x [T,n] with diagonal blocks H_t, and diag(first_t), diag(second_t) between t and t - 1, t - 2.

    Block LDL^T: D_t are the pivots (kept as inverses P), E_t the filled coupling of t and t - 1.
    """
    n = b.shape[1]
    eye, zero = jnp.eye(n, dtype=b.dtype), jnp.zeros(n, b.dtype)

    def eliminate(carry, inputs):
        P1, E1, y1, P2, y2 = carry
        H_t, c1, c2, b_t = inputs
        E = jnp.diag(c1) - c2[:, None] * (P2 @ E1.T)
        EP = E @ P1
        D = H_t - EP @ E.T - c2[:, None] * P2 * c2[None, :]
        P = cho_solve((jnp.linalg.cholesky(D), True), eye)
        y = b_t - EP @ y1 - c2 * (P2 @ y2)
        return (P, E, y, P1, y1), (P, E, y)

    def substitute(carry, inputs):
        x1, x2, E1 = carry
        P, E, y, c2 = inputs
        x = P @ (y - E1.T @ x1 - c2 * x2)
        return (x, x1, E), x

    nothing = jnp.zeros_like(eye)
    _, (P, E, y) = jax.lax.scan(eliminate, (eye, nothing, zero, eye, zero), (H, first, second, b))
    inputs = (P, E, y, jnp.roll(second, -2, axis=0))
    return jax.lax.scan(substitute, (zero, zero, nothing), inputs, reverse=True)[1]


def _free(q: Array, gradient: Array, lower: Array, upper: Array) -> Array:
    """1 where a variable may move downhill, 0 where its bound forbids it."""
    blocked = ((q <= lower) & (gradient > 0)) | ((q >= upper) & (gradient < 0))
    return jnp.where(blocked, 0.0, 1.0).astype(q.dtype)


def _adapt(damping: Array, better: Array) -> Array:
    return jnp.clip(jnp.where(better, damping * 0.3, damping * 5.0), MIN_DAMPING, MAX_DAMPING)
