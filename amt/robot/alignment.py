"""How a human's hand is laid into the robot's: the rigid transform that brings most fingertips into reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.errors import UserError
from amt.robot.human import HandFit, fit_scale, hand_targets
from amt.robot.model import NUM_ARM_JOINTS, Robot
from amt.robot.residuals import REST_HAND, joint_box, reach_residual
from amt.robot.solver import solve_pose

NUM_FRAMES, ROUNDS, FIRST_STEPS, STEPS = 64, 8, 20, 4
# Metres (and metres a radian) that a shift (and a tilt) weighs per frame, against fingertips out of reach.
SHIFT_WEIGHT, TILT_LEVER = 0.13, 0.015
MAX_OFFSET, MAX_ANGLE = 0.05, 0.35  # metres along each axis; radians about each axis


def fit_hand(robot: Robot, joints: Float[np.ndarray, "T 21 3"], scale: float | str = "fit") -> HandFit:
    """The fit of one person's hand, of the robot's side, from joints of a motion (any frame, metres).

    scale: 'fit' is robot finger length over human finger length; or the number itself. The transform alternates
    between solving 64 frames and a Gauss-Newton step in which their joints move along (variable projection).
    Raises UserError for a scale that is neither.
    """
    if scale == "fit":
        scale = fit_scale(robot, joints)
    elif isinstance(scale, str) or not 0 < scale < np.inf:
        raise UserError(f"retarget: scale must be 'fit' or a positive number, got {scale!r}")
    chosen = joints[np.linspace(0, len(joints) - 1, NUM_FRAMES).round().astype(int)]
    return jax.tree.map(np.asarray, _align(robot, jnp.asarray(chosen, jnp.float32), jnp.float32(scale)))


@functools.partial(jax.jit, static_argnames="robot")
def _align(robot: Robot, joints: Array, scale: Array) -> HandFit:
    residual = reach_residual(robot)  # pinches and collisions pull fingertips away from where they are wanted
    lower, upper = jnp.asarray(joint_box(robot)[NUM_ARM_JOINTS:], jnp.float32).T
    held = jnp.diag(jnp.array([TILT_LEVER] * 3 + [SHIFT_WEIGHT] * 3) ** 2) * len(joints)
    bound = jnp.array([MAX_ANGLE] * 3 + [MAX_OFFSET] * 3)

    def fit_of(placed):
        return HandFit(scale, _rotation(placed[:3]), placed[3:])

    def wanted(frame, placed):
        return hand_targets(robot, frame, fit_of(placed))

    def solve(placed, q, steps):
        return jax.vmap(lambda frame, q: solve_pose(residual, wanted(frame, placed), q, lower, upper, steps))(joints, q)

    def normal(frame, q, placed):
        """Hessian and gradient with respect to `placed` when q moves along."""
        r, J = residual(q, wanted(frame, placed))
        A = jax.jacfwd(lambda placed: residual(q, wanted(frame, placed))[0])(placed)
        J = J * ((q > lower) & (q < upper)).astype(q.dtype)[None]
        A = A - J @ jnp.linalg.solve(J.T @ J + 1e-7 * jnp.eye(len(q)), J.T @ A)
        return A.T @ A, A.T @ r

    def improve(carry, _):
        placed, q = carry
        H, gradient = (jnp.sum(x, axis=0) for x in jax.vmap(lambda frame, q: normal(frame, q, placed))(joints, q))
        placed = placed - jnp.linalg.solve(H + held, gradient + held @ placed)
        placed = jnp.clip(placed, -bound, bound)
        return (placed, solve(placed, q, STEPS)), None

    start = jnp.zeros(6)
    q = jnp.broadcast_to(jnp.asarray(REST_HAND, jnp.float32), (len(joints), len(REST_HAND)))
    placed = jax.lax.scan(improve, (start, solve(start, q, FIRST_STEPS)), None, length=ROUNDS)[0][0]
    return fit_of(placed)


def _rotation(turn: Float[Array, " 3"]) -> Float[Array, "3 3"]:
    """The matrix of a rotation vector (Rodrigues)."""
    angle = jnp.sqrt(jnp.sum(turn**2) + 1e-12)
    x, y, z = turn / angle
    zero = jnp.zeros_like(x)
    K = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    return jnp.eye(3) + jnp.sin(angle) * K + (1 - jnp.cos(angle)) * K @ K
