"""Points of the arm and of the fingers with their analytic Jacobians (axis x lever), in one pass of kinematics."""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.robot.kinematics import axis_derivative, body_poses
from amt.robot.model import FINGERS, FRAMES, NUM_ARM_JOINTS, NUM_JOINTS, PALM_HEIGHT, Robot

HINGES = ("base", "proximal", "medial", "distal")  # the bodies of a finger, each behind one joint
KNUCKLE, LAST, TIP = 0, 1, 2  # the points of a finger: its second and its last hinge, the centre of its round end
_POINT_HINGES = (2, 3, 4)  # how many hinges move each of them


@flax.struct.dataclass
class Fingers:
    """`points` (see KNUCKLE, LAST, TIP) from the `wrist` frame and `directions` of the last bones, in the palm frame.

    The `d_` fields are derivatives with respect to each finger's own four joints. Fingers in the order of FINGERS.
    """

    points: Float[Array, "*batch 4 3 3"]
    directions: Float[Array, "*batch 4 3"]
    d_points: Float[Array, "*batch 4 3 3 4"]
    d_directions: Float[Array, "*batch 4 3 4"]


def fingers(robot: Robot, q: Float[Array, "*batch 16"]) -> Fingers:
    """Where the fingers are for the hand's joints, metres and radians."""
    bodies = [[f"{finger}_{part}" for part in HINGES] for finger in FINGERS]
    names = tuple(name for finger in bodies for name in finger)
    padded = jnp.concatenate([jnp.zeros((*q.shape[:-1], NUM_ARM_JOINTS), q.dtype), q], axis=-1)
    poses = body_poses(robot, padded, names, "palm")
    shape = (*q.shape[:-1], len(FINGERS), len(HINGES))
    R = jnp.stack([poses[name][0] for name in names], axis=-3).reshape(*shape, 3, 3)
    origins = jnp.stack([poses[name][1] for name in names], axis=-2).reshape(*shape, 3)
    index = np.array([[robot.body_names.index(name) for name in finger] for finger in bodies])
    axes = _apply(R, robot.body_axis[index])
    offset = np.array([robot.body_pos[robot.body_names.index(f"{f}_tip")] + FRAMES[f"{f}_tip"][1] for f in FINGERS])
    last = R[..., -1, :, :]
    tips = origins[..., -1, :] + _apply(last, offset)
    points = jnp.stack([origins[..., 2, :], origins[..., 3, :], tips], axis=-2)
    moved = np.arange(len(HINGES)) < np.array(_POINT_HINGES)[:, None]
    levers = points[..., :, None, :] - origins[..., None, :, :]
    d_points = axis_derivative(jnp.broadcast_to(axes[..., None, :, :], levers.shape), levers)
    directions = last[..., :, 2]
    return Fingers(
        points=points + jnp.broadcast_to(jnp.array([0.0, 0.0, PALM_HEIGHT], q.dtype), points.shape),
        directions=directions,
        d_points=d_points * jnp.broadcast_to(jnp.asarray(moved, q.dtype)[:, None, :], d_points.shape),
        d_directions=axis_derivative(axes, jnp.broadcast_to(directions[..., None, :], axes.shape)),
    )


def wrist(robot: Robot, q: Float[Array, "*batch 6"]) -> tuple[Array, Array, Array, Array]:
    """Position [3] and rotation [3,3] of the `wrist` frame in the base frame, and their derivatives [3,6], [3,3,6].

    The rotation's derivative is [row, column, joint].
    """
    names = tuple(robot.body_names[int(np.flatnonzero(robot.body_joint == j)[0])] for j in range(NUM_ARM_JOINTS))
    padded = jnp.concatenate([q, jnp.zeros((*q.shape[:-1], NUM_JOINTS - NUM_ARM_JOINTS), q.dtype)], axis=-1)
    poses = body_poses(robot, padded, (*names, "palm"))
    R, palm = poses["palm"]
    position = palm - PALM_HEIGHT * R[..., 2]
    axis = robot.body_axis[[robot.body_names.index(name) for name in names]]
    axes = _apply(jnp.stack([poses[name][0] for name in names], axis=-3), axis)
    levers = position[..., None, :] - jnp.stack([poses[name][1] for name in names], axis=-2)
    columns = jnp.swapaxes(R, -1, -2)[..., :, None, :]  # of the rotation, as vectors
    turned = jnp.cross(axes[..., None, :, :], columns)  # [column, joint, row]
    return position, R, axis_derivative(axes, levers), jnp.moveaxis(turned, -1, -3)


def _apply(R: Array, vectors: np.ndarray) -> Array:
    """R @ vector, the batch being R's."""
    return jnp.einsum("...ij,...j->...i", R, jnp.broadcast_to(jnp.asarray(vectors, R.dtype), R.shape[:-1]))
