"""MuJoCo's soft constraints: rows, their softness, and the acceleration that minimises Gauss' principle.

    a = argmin  (a - a0)^T M (a - a0) / 2 + sum_i D_i min(J_i a - aref_i, 0)^2 / 2

https://mujoco.readthedocs.io/en/stable/computation/index.html, the primal problem of a pyramidal friction cone.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

MAX_STEPS, LINE_STEPS = 20, 6
MIN_IMPEDANCE, MAX_IMPEDANCE = 1e-4, 0.9999  # of MuJoCo


@struct.dataclass
class Rows:
    """One-sided constraints: edges `J` of contacts, then a limit of each hinge, of sign `side`; D is 0 where open."""

    J: Float[Array, "m nv"]
    side: Float[Array, " n"]
    D: Float[Array, " m+n"]
    aref: Float[Array, " m+n"]

    def times(self, a: Float[Array, " nv"]) -> Float[Array, " m+n"]:
        return jnp.concatenate([self.J @ a, self.side * a[: len(self.side)]])

    def transposed(self, f: Float[Array, " m+n"]) -> Float[Array, " nv"]:
        m, n = len(self.J), len(self.side)
        return (f[:m] @ self.J).at[:n].add(self.side * f[m:])

    def gram(self, D: Float[Array, " m+n"]) -> Float[Array, "nv nv"]:
        """Rows^T diag(D) Rows."""
        m, n = len(self.J), len(self.side)
        limits = jnp.zeros(self.J.shape[1], D.dtype).at[:n].set(D[m:])
        return self.J.T @ (D[:m, None] * self.J) + jnp.diag(limits)


def softness(
    solref: Float[Array, " 2"],
    solimp: Float[Array, " 5"],
    timestep: Float[Array, ""],
    pos: Float[Array, " k"],
    velocity: Float[Array, " k"],
    invweight: Float[Array, " k"],
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """(D, aref) of constraints at `pos` (negative: violated) that move at `velocity`; D is 0 where not violated."""
    time, ratio = jnp.maximum(solref[0], 2 * timestep), solref[1]
    low, high = jnp.clip(solimp[0], MIN_IMPEDANCE, MAX_IMPEDANCE), jnp.clip(solimp[1], MIN_IMPEDANCE, MAX_IMPEDANCE)
    middle, power = jnp.clip(solimp[3], MIN_IMPEDANCE, MAX_IMPEDANCE), jnp.maximum(solimp[4], 1.0)
    stiffness = 1 / (high * time * ratio) ** 2
    damping = 2 / (high * time)
    # Outside of (0, 1) the powers are not needed and their gradients may be infinite.
    depth = jnp.maximum(-pos, 0.0) / jnp.maximum(solimp[2], 1e-15)
    x = jnp.clip(depth, 1e-9, 1 - 1e-6)
    rising = x**power / middle ** (power - 1)
    settling = 1 - (1 - x) ** power / (1 - middle) ** (power - 1)
    share = jnp.where(depth >= 1 - 1e-6, 1.0, jnp.where(x < middle, rising, settling))
    impedance = low + share * (high - low)
    D = impedance / ((1 - impedance) * invweight)
    return jnp.where(pos < 0, D, 0.0), -damping * velocity - stiffness * impedance * pos


def constrained_acceleration(
    M: Float[Array, "nv nv"], force: Float[Array, " nv"], rows: Rows, start: Float[Array, " nv"]
) -> tuple[Float[Array, " nv"], Float[Array, " m+n"]]:
    """(acceleration, force of each constraint) under the generalised `force`.

    Solved to the end without a derivative; its derivative is that of one more Newton step in which the set of pressing
    constraints is held fixed, which is the implicit function theorem at the solution.
    """
    still = jax.lax.stop_gradient
    a = still(_newton(*still((M, force, rows, start))))
    D = jnp.where(still(rows.times(a) < rows.aref), rows.D, 0.0)
    residual = force - M @ a - rows.transposed(D * (rows.times(a) - rows.aref))
    H = still(M + rows.gram(D))
    a = a + _solve(H, residual)
    return a, -D * (rows.times(a) - rows.aref)


def unrolled_acceleration(
    M: Float[Array, "nv nv"], force: Float[Array, " nv"], rows: Rows, start: Float[Array, " nv"]
) -> tuple[Float[Array, " nv"], Float[Array, " m+n"]]:
    """As `constrained_acceleration`, but a single Newton step from `start`, and the derivative of all its arithmetic.

    It is what reverse mode through stock MJX is, which there is for `iterations=1` alone: neither the acceleration nor
    its derivative is that of the solution. For comparison only (experiments/stage3).
    """
    a = _newton_step(M, force, rows, start, rows.times(start) - rows.aref)[0]
    jar = rows.times(a) - rows.aref
    return a, -jnp.where(jar < 0, rows.D, 0.0) * jar


def _newton(M: Array, force: Array, rows: Rows, a: Array) -> Array:
    """Newton's method with an exact search along each step, until a whole step leaves the pressing set as it was."""

    def body(carry):
        a, jar, full = _newton_step(M, force, rows, *carry[:2])
        return a, jar, full, carry[3] + 1

    start = (a, rows.times(a) - rows.aref, jnp.asarray(False), jnp.int32(0))
    return jax.lax.while_loop(lambda c: ~c[2] & (c[3] < MAX_STEPS), body, start)[0]


def _newton_step(M: Array, force: Array, rows: Rows, a: Array, jar: Array) -> tuple[Array, Array, Array]:
    """The acceleration, its residuals, and whether the whole step was taken."""
    pressing = jar < 0
    D = jnp.where(pressing, rows.D, 0.0)
    slope = M @ a - force
    step = -_solve(M + rows.gram(D), slope + rows.transposed(D * jar))
    along = rows.times(step)
    linear, square = step @ slope, step @ (M @ step)

    def search(bracket, _):
        low, high, t = bracket
        at = jar + t * along
        D = jnp.where(at < 0, rows.D, 0.0)
        first = linear + t * square + jnp.sum(D * along * at)
        second = square + jnp.sum(D * along**2)
        low, high = jnp.where(first < 0, t, low), jnp.where(first < 0, high, t)
        guess = t - first / second
        # Beyond the bracket: its middle, or twice as far where it is still open.
        inside = (guess >= low) & (guess <= high)
        other = jnp.where(jnp.isinf(high), 2 * low, (low + high) / 2)
        return (low, high, jnp.where(inside, guess, other)), None

    zero = jnp.zeros((), a.dtype)
    (_, _, t), _ = jax.lax.scan(search, (zero, zero + jnp.inf, zero + 1), None, length=LINE_STEPS)
    full = ((jar + along < 0) == pressing).all()  # the minimum of this set's parabola is the minimum
    t = jnp.where(full, 1.0, t).astype(a.dtype)
    a, jar = a + t * step, jar + t * along
    return a, jar, full


def _solve(H: Array, b: Array) -> Array:
    return cho_solve((jnp.linalg.cholesky(H), True), b)
