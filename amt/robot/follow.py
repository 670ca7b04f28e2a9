"""From joints of a hand in the robot's base frame to 22 joint commands: pure, compiled, differentiable."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.robot.human import HandFit, HandTargets, hand_targets
from amt.robot.model import NUM_ARM_JOINTS, Robot
from amt.robot.residuals import REST_HAND, arm_residual, hand_residual, joint_box
from amt.robot.solver import Problem, limit_rate, solve_trajectory, track

# Square metres per square radian between the steps of neighbouring frames, at 30 frames per second.
ARM_ACCELERATION, HAND_ACCELERATION = 5e-2, 5e-2
ARM_STRIDE, HAND_STRIDE = 8, 4  # every n-th frame is solved first, to start from
FIRST_STEPS = 12


@flax.struct.dataclass
class Motion:
    """What is asked of T frames: joints of a hand in the base frame, and how they are to be followed.

    The hand is of the robot's side. `weight` 0 is padding at the end. `smoothness` multiplies the cost of acceleration
    that ends in a frame, 1 is usual. `rate` is the joints' largest step between frames, radians. `contacts` in the base
    frame, one point a finger in robot order; `contact_weight` 0 is no contact.
    """

    joints: Float[Array, "T 21 3"]
    weight: Float[Array, " T"]
    smoothness: Float[Array, " T"]
    rate: Float[Array, " 22"]
    contacts: Float[Array, "T 4 3"]
    contact_weight: Float[Array, "T 4"]


@functools.partial(jax.jit, static_argnames=("robot", "steps"))
def follow(
    robot: Robot, motion: Motion, fit: HandFit, q_arm: Float[Array, " 6"], steps: int = 6
) -> Float[Array, "T 22"]:
    """Commands for all frames together; the arm starts near `q_arm`. T must be a multiple of 8.

    Differentiable with respect to `motion` and `fit`: `solver.solve_trajectory` says how.
    """
    targets = jax.vmap(lambda *frame: hand_targets(robot, frame[0], fit, *frame[1:]))(
        motion.joints, motion.contacts, motion.contact_weight
    )
    arm, hand = problems(robot, targets, motion)
    guess = jax.lax.stop_gradient(arm)
    q_arm = track(arm_residual(robot), _every(ARM_STRIDE, guess.targets), q_arm, guess.lower[0], guess.upper[0])
    q_arm = solve_trajectory(arm_residual(robot), arm, _between(ARM_STRIDE, q_arm), steps)
    rest = jnp.broadcast_to(jnp.asarray(REST_HAND, q_arm.dtype), (len(q_arm) // HAND_STRIDE, len(REST_HAND)))
    coarse = jax.lax.stop_gradient(_coarse(hand))
    q_hand = solve_trajectory(hand_residual(robot), coarse, rest, FIRST_STEPS)
    q_hand = solve_trajectory(hand_residual(robot), hand, _between(HAND_STRIDE, q_hand), steps)
    q = jnp.concatenate([q_arm, q_hand], axis=-1)
    last = jnp.sum((motion.weight > 0).astype(jnp.int32)) - 1
    return limit_rate(q[jnp.minimum(jnp.arange(len(q)), last)], motion.rate)


def problems(robot: Robot, targets: HandTargets, motion: Motion) -> tuple[Problem, Problem]:
    """What the arm and the hand have to solve."""
    limits = jnp.broadcast_to(
        jnp.asarray(joint_box(robot), motion.joints.dtype), (len(motion.weight), *robot.limits.shape)
    )
    whole = Problem(targets, motion.weight, motion.smoothness, motion.rate, limits[..., 0], limits[..., 1])

    def part(which, targets, acceleration):
        return whole.replace(
            targets=targets,
            acceleration=motion.smoothness * acceleration,
            rate=whole.rate[which],
            lower=whole.lower[:, which],
            upper=whole.upper[:, which],
        )

    return (
        part(slice(0, NUM_ARM_JOINTS), (targets.wrist_pos, targets.wrist_rot), ARM_ACCELERATION),
        part(slice(NUM_ARM_JOINTS, None), targets, HAND_ACCELERATION),
    )


def _coarse(problem: Problem) -> Problem:
    """Every HAND_STRIDE-th frame of a problem; the same curve has that power 4 of the acceleration there."""
    every = functools.partial(_every, HAND_STRIDE)
    return Problem(
        targets=every(problem.targets),
        weight=every(problem.weight),
        acceleration=every(problem.acceleration) / HAND_STRIDE**4,
        rate=problem.rate * HAND_STRIDE,
        lower=every(problem.lower),
        upper=every(problem.upper),
    )


def _every(stride: int, tree):
    return jax.tree.map(lambda x: x[::stride], tree)


def _between(stride: int, q: Float[Array, "K n"]) -> Float[Array, "T n"]:
    """K poses, `stride` frames apart, and straight lines between them."""
    share = (jnp.arange(stride, dtype=q.dtype) / stride)[None, :, None]
    after = jnp.concatenate([q[1:], q[-1:]])
    return (q[:, None] + share * (after - q)[:, None]).reshape(-1, q.shape[1])
