"""What the solver minimises: residuals in metres of the arm (6 joints) and of the hand (16 joints).

The two are independent: the arm carries the palm, and fingertip targets are given in the palm's frame.
The factories are cached, because a residual function is a static argument of the compiled solver.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.robot.human import HandTargets
from amt.robot.kinematics import forward
from amt.robot.model import FINGERS, NUM_ARM_JOINTS, NUM_JOINTS, Robot
from amt.robot.solver import Residual

# A rotation error of 1 rad weighs as much as this many metres.
ROTATION_LEVER = 0.1
# A last bone that points elsewhere: 1 rad weighs as much as this many metres.
DIRECTION_LEVER = 0.02
# Neighbouring fingertips keep the width of a finger between them (metres).
FINGER_SPACING = 0.029
# Thumb and finger closer than this in the human (scaled, metres) are a pinch: their distance is kept, too.
PINCH_DISTANCE, PINCH_WIDTH = 0.05, 0.008
# A slight pull to the rest pose decides what the targets leave open (metres per radian).
REST_WEIGHT = 3e-3

# Fingers slightly curled, thumb opposed: the middle of what a relaxed hand does.
REST_HAND = (0.0, 0.4, 0.4, 0.4) * 3 + (0.8, 0.3, 0.4, 0.4)


@functools.cache
def arm_residual(robot: Robot) -> Residual:
    """r(q [6], (position, rotation)) of the wrist frame against targets in the base frame."""

    def residual(q: Float[Array, " 6"], target: tuple[Array, Array]) -> Float[Array, " 12"]:
        position, rotation = target
        T = forward(robot, jnp.concatenate([q, jnp.zeros(NUM_JOINTS - NUM_ARM_JOINTS, q.dtype)]), ("wrist",))["wrist"]
        # The Frobenius distance of two rotations is sqrt(2) times their angle, to first order.
        turned = (T[:3, :3] - rotation) * (ROTATION_LEVER / 2**0.5)
        return jnp.concatenate([T[:3, 3] - position, turned.ravel()])

    return residual


@functools.cache
def hand_residual(robot: Robot) -> Residual:
    """r(q [16], HandTargets of one frame): tips, last-bone directions, pinches, spacing, rest pose."""

    def residual(q: Float[Array, " 16"], target: HandTargets) -> Float[Array, " 51"]:
        tips, directions = palm_tips(robot, q)
        error = tips - target.tips
        turned = (directions - target.directions) * DIRECTION_LEVER
        gap = jnp.sqrt(jnp.sum((target.tips[3:] - target.tips[:3]) ** 2, axis=-1) + 1e-12)
        pinch = (1 / (1 + jnp.exp((gap - PINCH_DISTANCE) / PINCH_WIDTH)))[:, None] * (error[3:] - error[:3])
        spacing = jnp.maximum(FINGER_SPACING - (tips[:2, 1] - tips[1:3, 1]), 0.0)
        rest = (q - jnp.asarray(REST_HAND, q.dtype)) * REST_WEIGHT
        return jnp.concatenate([error.ravel(), turned.ravel(), pinch.ravel(), spacing, rest])

    return residual


def palm_tips(
    robot: Robot, q: Float[Array, "*batch 16"]
) -> tuple[Float[Array, "*batch 4 3"], Float[Array, "*batch 4 3"]]:
    """Vectors wrist to tip and directions of the last bones, in the palm frame, in the order of FINGERS."""
    arm = jnp.zeros((*q.shape[:-1], NUM_ARM_JOINTS), q.dtype)
    names = tuple(f"{finger}_tip" for finger in FINGERS)
    frames = forward(robot, jnp.concatenate([arm, q], axis=-1), (*names, "wrist"), root="palm")
    tips = jnp.stack([frames[name] for name in names], axis=-3)
    return tips[..., :3, 3] - frames["wrist"][..., None, :3, 3], tips[..., :3, 2]
