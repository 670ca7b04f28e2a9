"""Where to put the robot's base so that a motion is in reach: a batched search over places and arm branches.

Candidates stand around the motion at several azimuths, distances and heights, always facing it (the motion
lies along the base's +x). For each, and for each branch of the arm's inverse kinematics, a few frames of the
motion are solved one after the other; the cheapest in error, singularity, clearance and joint travel wins.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.robot.guards import arm_guards, shortfall
from amt.robot.model import Robot
from amt.robot.residuals import wrist_residual
from amt.robot.solver import solve_pose

AZIMUTHS = np.arange(8) * (np.pi / 4)
DISTANCES = (0.4, 0.52, 0.64)  # base axis to the middle of the motion, horizontally
HEIGHTS = (0.2, 0.35, 0.5)  # middle of the motion over the base plane
NUM_FRAMES = 12
FIRST_FRAME_REPEATS, STEPS = 5, 6

# Elbow-up branches for a motion along +x: shoulder on either side, wrist on either side, three wrist rolls.
_SHOULDERS = ((np.pi, -1.6, 1.7), (0.0, -1.54, -1.7))
ARM_SEEDS = np.array(
    [
        (*shoulder, wrist_1, wrist_2, wrist_3)
        for shoulder, (wrist_1, wrist_2), wrist_3 in itertools.product(
            _SHOULDERS, ((-1.57, 1.57), (-1.57, -1.57)), (-1.57, 0.0, 1.57)
        )
    ],
    np.float32,
)


def place_base(
    robot: Robot,
    positions: Float[np.ndarray, "T 3"],
    rotations: Float[np.ndarray, "T 3 3"],
    limits: Float[np.ndarray, "6 2"],
    T_base_world: Float[np.ndarray, "4 4"] | None = None,
    base_height: float | None = None,
) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, " 6"]]:
    """T_base_world and the arm's first pose, for wrist targets in the world (z up).

    With `T_base_world` only the arm's branch is searched. `base_height` is the z of the mounting plane in the
    world; None searches it, too.
    """
    positions, rotations = np.asarray(positions, np.float32), np.asarray(rotations, np.float32)
    bases = _candidates(positions, base_height) if T_base_world is None else np.asarray(T_base_world, np.float32)[None]
    frames = np.linspace(0, len(positions) - 1, NUM_FRAMES).round().astype(int)
    # The first frame starts from a generic pose and gets more iterations.
    frames = np.concatenate([np.zeros(FIRST_FRAME_REPEATS - 1, int), frames])
    base, seed = (grid.ravel() for grid in np.meshgrid(np.arange(len(bases)), np.arange(len(ARM_SEEDS)), indexing="ij"))
    q_first, cost = _evaluate(
        robot,
        jnp.asarray(bases[base]),
        jnp.asarray(ARM_SEEDS[seed]),
        jnp.asarray(positions[frames]),
        jnp.asarray(rotations[frames]),
        jnp.asarray(limits, jnp.float32),
    )
    best = int(np.argmin(np.asarray(cost)))
    return bases[base[best]], np.asarray(q_first[best])


def _candidates(positions: np.ndarray, base_height: float | None) -> np.ndarray:
    middle = np.quantile(positions, [0.05, 0.95], axis=0).mean(0)  # a few lost frames do not move the base
    heights = [middle[2] - base_height] if base_height is not None else HEIGHTS
    bases = []
    for azimuth, distance, height in itertools.product(AZIMUTHS, DISTANCES, heights):
        cos, sin = np.cos(azimuth), np.sin(azimuth)
        T = np.eye(4, dtype=np.float32)
        T[:3, :3] = [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]
        T[:3, 3] = np.array([distance, 0, height]) - T[:3, :3] @ middle
        bases.append(T)
    return np.stack(bases)


@functools.partial(jax.jit, static_argnames="robot")
def _evaluate(robot, bases, seeds, positions, rotations, limits):
    residual = wrist_residual(robot)
    lower, upper = limits[:, 0], limits[:, 1]

    def one(base, seed):
        R = base[:3, :3]
        targets = (positions @ R.T + base[None, :3, 3], jnp.einsum("ij,tjk->tik", R, rotations))

        def frame(q, target):
            q = solve_pose(residual, target, q, lower, upper, STEPS)
            return q, q

        q = jax.lax.scan(frame, seed, targets)[1][FIRST_FRAME_REPEATS - 1 :]
        targets = jax.tree.map(lambda x: x[FIRST_FRAME_REPEATS - 1 :], targets)
        return q[0], _cost(robot, residual, q, targets, lower, upper)

    return jax.vmap(one)(bases, seeds)


def _cost(robot: Robot, residual, q: Array, targets, lower: Array, upper: Array) -> Array:
    """Dimensionless; 1 is about 1 cm or 6 degrees of error on average."""
    error = jnp.sqrt(jnp.sum(jax.vmap(lambda q, target: residual(q, target)[0])(q, targets) ** 2, axis=-1)) / 0.01
    near_limit = jnp.sum(shortfall(jnp.minimum(q - lower[None], upper[None] - q), 0.3), axis=-1)
    travel = jnp.sqrt(jnp.sum((q[1:] - q[:-1]) ** 2))
    return jnp.mean(error + near_limit + jnp.sum(arm_guards(robot, q), axis=-1)) + 0.1 * travel
