"""Retargeting frame by frame, as they come: a filtered hand, and one pose near the last command.

    stream = start(robot, joints, fit, q)
    stream, q = step(robot, stream, joints, fit, rate)    # for each frame

Joints are those of a hand of the robot's side in its base frame (metres), `fit` comes from `fit_hand` on a few seconds
of the same person, and the first `q`, like the base, from `retarget` on them. The filter is one-euro (Casiez et al.
2012): a low-pass whose cutoff rises with speed, so that slow motion is calm and fast motion late by a frame at most.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amt.robot.human import HandFit, HandTargets, hand_targets
from amt.robot.model import NUM_ARM_JOINTS, Robot
from amt.robot.residuals import arm_residual, hand_residual, joint_box
from amt.robot.solver import Residual, solve_pose

FPS = 30.0  # what the cutoffs are meant for
MIN_CUTOFF, SPEED_CUTOFF = 0.7, 20.0  # hertz; hertz per (metre per second)
CUTOFF_OF_SPEED = 2.0  # hertz, of the speed itself
ANCHOR = 0.13  # metres per radian from the last command: calms, and keeps to one branch
START_STEPS, STEPS = 40, 4


@flax.struct.dataclass
class Stream:
    """The filtered joints, how fast each point moves (metres per second), and the last command."""

    joints: Float[Array, "21 3"]
    speed: Float[Array, " 21"]
    command: Float[Array, " 22"]


@functools.partial(jax.jit, static_argnames="robot")
def start(robot: Robot, joints: Float[Array, "21 3"], fit: HandFit, q: Float[Array, " 22"]) -> Stream:
    """A stream whose robot stands where the first frame wants it, near `q`; `command` is that pose."""
    command = _solve(robot, hand_targets(robot, joints, fit), q, jnp.full_like(q, jnp.inf), 0.0, START_STEPS)
    return Stream(joints, jnp.zeros(21, joints.dtype), command)


@functools.partial(jax.jit, static_argnames="robot")
def step(
    robot: Robot,
    stream: Stream,
    joints: Float[Array, "21 3"],
    fit: HandFit,
    rate: Float[Array, " 22"],
    valid: Bool[Array, ""] | bool = True,
) -> tuple[Stream, Float[Array, " 22"]]:
    """The next command, no joint more than `rate` radians from the last. Not `valid`: the robot holds."""
    change = joints - stream.joints
    moved = jnp.sqrt(jnp.sum(change**2, axis=-1) + 1e-12) * FPS
    speed = stream.speed + _share(jnp.full_like(moved, CUTOFF_OF_SPEED)) * (moved - stream.speed)
    filtered = stream.joints + _share(MIN_CUTOFF + SPEED_CUTOFF * speed)[:, None] * change
    command = _solve(robot, hand_targets(robot, filtered, fit), stream.command, rate, ANCHOR, STEPS)
    new = Stream(filtered, speed, command)
    stream = jax.tree.map(lambda new, old: jnp.where(valid, new, old), new, stream)
    return stream, stream.command


def _share(cutoff: Array) -> Array:
    """Of a new value, for a low-pass with this cutoff in hertz."""
    return 1 / (1 + FPS / (2 * np.pi * cutoff))


def _solve(robot: Robot, targets: HandTargets, q: Array, rate: Array, anchor: float, steps: int) -> Array:
    box = jnp.asarray(joint_box(robot), q.dtype)
    lower, upper = jnp.maximum(box[:, 0], q - rate), jnp.minimum(box[:, 1], q + rate)
    parts = (
        (arm_residual(robot), (targets.wrist_pos, targets.wrist_rot), slice(0, NUM_ARM_JOINTS)),
        (hand_residual(robot), targets, slice(NUM_ARM_JOINTS, None)),
    )
    solved = [
        solve_pose(_near(residual, q[part], anchor), target, q[part], lower[part], upper[part], steps)
        for residual, target, part in parts
    ]
    return jnp.concatenate(solved)


def _near(residual: Residual, last: Array, anchor: float) -> Residual:
    def near(q, target):
        r, J = residual(q, target)
        return jnp.concatenate([r, anchor * (q - last)]), jnp.concatenate([J, anchor * jnp.eye(len(q), dtype=q.dtype)])

    return near
