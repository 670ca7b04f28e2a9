"""Retargeting frame by frame, as they come: the newest pose of a sliding window that is solved together.

    state = start(robot, joints, fit, q)
    state, q = step(robot, state, joints, fit, rate)    # for each frame

Joints are a right hand's in the robot's base frame (metres), `fit` comes from `fit_hand` on a few seconds of the same
person, and the first `q`, like the base, from `retarget` on them. Only the past is looked at, so there is no delay;
the newest pose of a window is less smooth than the same pose would be with its future.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.robot.follow import Motion, problems
from amt.robot.human import HandFit, hand_targets
from amt.robot.model import NUM_ARM_JOINTS, Robot
from amt.robot.residuals import arm_residual, hand_residual
from amt.robot.solver import solve_trajectory

WINDOW = 8  # frames
START_STEPS, STEPS = 40, 3


@flax.struct.dataclass
class Stream:
    """The window's joints, oldest first, its poses as last solved, and the last command."""

    joints: Float[Array, "window 21 3"]
    poses: Float[Array, "window 22"]
    command: Float[Array, " 22"]


@functools.partial(jax.jit, static_argnames="robot")
def start(robot: Robot, joints: Float[Array, "21 3"], fit: HandFit, q: Float[Array, " 22"]) -> Stream:
    """A stream whose robot stands where the first frame wants it, near `q`; `command` is that pose."""
    window = jnp.broadcast_to(joints, (WINDOW, 21, 3))
    poses = jnp.broadcast_to(q, (WINDOW, len(q)))
    poses = _solve(robot, window, poses, fit, jnp.full_like(q, jnp.inf), 1.0, START_STEPS)
    return Stream(window, poses, poses[-1])


@functools.partial(jax.jit, static_argnames="robot")
def step(
    robot: Robot,
    stream: Stream,
    joints: Float[Array, "21 3"],
    fit: HandFit,
    rate: Float[Array, " 22"],
    smoothness: Float[Array, ""] | float = 1.0,
    valid: Bool[Array, ""] | bool = True,
) -> tuple[Stream, Float[Array, " 22"]]:
    """The next command, no joint more than `rate` radians from the last. Not `valid`: the robot holds."""
    window = jnp.concatenate([stream.joints[1:], joints[None]])
    poses = jnp.concatenate([stream.poses[1:], stream.poses[-1:]])
    poses = _solve(robot, window, poses, fit, rate, smoothness, STEPS)
    command = stream.command + jnp.clip(poses[-1] - stream.command, -rate, rate)
    stream = jax.tree.map(lambda new, old: jnp.where(valid, new, old), Stream(window, poses, command), stream)
    return stream, stream.command


def _solve(robot, joints, poses, fit, rate, smoothness, steps) -> Float[Array, "window 22"]:
    ones = jnp.ones(WINDOW, joints.dtype)
    nothing = jnp.zeros((WINDOW, 4, 3), joints.dtype)
    motion = Motion(joints, ones, ones * smoothness, rate, nothing, nothing[..., 0])
    arm, hand = problems(robot, jax.vmap(lambda frame: hand_targets(frame, fit))(joints), motion)
    parts = (
        (arm_residual(robot), arm, poses[:, :NUM_ARM_JOINTS]),
        (hand_residual(robot), hand, poses[:, NUM_ARM_JOINTS:]),
    )
    return jnp.concatenate([solve_trajectory(residual, problem, q, steps) for residual, problem, q in parts], axis=-1)
