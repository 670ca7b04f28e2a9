"""Forward kinematics in JAX: batched, differentiable, one level of the tree at a time (four fingers at
once)."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.robot.model import FRAMES, Robot


def forward(
    robot: Robot, qpos: Float[Array, "*batch 22"], names: tuple[str, ...] = tuple(FRAMES), root: str = "world"
) -> dict[str, Float[Array, "*batch 4 4"]]:
    """T_base_frame for the named frames of `model.FRAMES`; metres, radians, joints in robot order.

    With `root` a body's name, T_root_frame instead; then only the joints below that body matter.
    """
    bodies = tuple(FRAMES[name][0] for name in names)
    poses = body_poses(robot, qpos, bodies, root)
    return {name: _transform(*poses[FRAMES[name][0]], np.array(FRAMES[name][1])) for name in names}


def body_poses(
    robot: Robot, qpos: Float[Array, "*batch 22"], bodies: tuple[str, ...], root: str = "world"
) -> dict[str, tuple[Float[Array, "*batch 3 3"], Float[Array, "*batch 3"]]]:
    """R_base_body and the body's origin in the base frame (or in `root`'s), by name."""
    dtype, batch = qpos.dtype, qpos.shape[:-1]
    start, levels = _levels(robot, bodies, root)
    R = {start: jnp.broadcast_to(jnp.eye(3, dtype=dtype), (*batch, 3, 3))}
    p = {start: jnp.zeros((*batch, 3), dtype)}
    for level in levels:
        parents = robot.body_parent[level]
        R_parent = jnp.stack([R[i] for i in parents], axis=-3)
        p_parent = jnp.stack([p[i] for i in parents], axis=-2)
        rest = jnp.asarray(quat_to_matrix(robot.body_quat[level]), dtype)
        p_level = p_parent + jnp.einsum("...bij,bj->...bi", R_parent, jnp.asarray(robot.body_pos[level], dtype))
        R_level = jnp.einsum("...bij,bjk->...bik", R_parent, rest)
        R_level = jnp.einsum("...bij,...bjk->...bik", R_level, _hinges(robot, level, qpos))
        for slot, body in enumerate(level):
            R[body], p[body] = R_level[..., slot, :, :], p_level[..., slot, :]
    index = {name: robot.body_names.index(name) for name in bodies}
    return {name: (R[i], p[i]) for name, i in index.items()}


def axis_derivative(
    axes: Float[Array, "*batch n 3"], vectors: Float[Array, "*batch n 3"]
) -> Float[Array, "*batch 3 n"]:
    """How vectors turn with each of n hinges: axis x vector, one column a joint (a lever gives a point's Jacobian)."""
    return jnp.swapaxes(jnp.cross(axes, vectors), -1, -2)


def quat_to_matrix(quat: Float[np.ndarray, "*batch 4"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Rotation matrices of unit quaternions (wxyz), in numpy and double precision."""
    w, x, y, z = np.moveaxis(np.asarray(quat, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


@functools.cache
def _levels(robot: Robot, bodies: tuple[str, ...], root: str) -> tuple[int, list[np.ndarray]]:
    """The root's index (-1: world), and the bodies between it and the wanted ones by depth."""
    start = -1 if root == "world" else robot.body_names.index(root)
    levels: dict[int, set[int]] = {}
    for name in bodies:
        path, body = [], robot.body_names.index(name)
        while body != start:
            path.append(body)
            body = int(robot.body_parent[body])
        for depth, body in enumerate(reversed(path)):
            levels.setdefault(depth, set()).add(body)
    return start, [np.array(sorted(levels[depth])) for depth in sorted(levels)]


def _hinges(robot: Robot, level: np.ndarray, qpos: Array) -> Array:
    """Rodrigues: I + sin(q) K + (1 - cos(q)) K^2. A fixed body has K = 0, and its angle does not matter."""
    joint = robot.body_joint[level]
    x, y, z = (robot.body_axis[level] * (joint >= 0)[:, None]).T
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    angle = qpos[..., np.maximum(joint, 0)][..., None, None]
    eye, K, K2 = (jnp.asarray(a, qpos.dtype).reshape(*(1,) * (angle.ndim - 3), -1, 3, 3) for a in (np.eye(3), K, K @ K))
    return eye + jnp.sin(angle) * K + (1 - jnp.cos(angle)) * K2


def _transform(R: Array, p: Array, offset: np.ndarray) -> Array:
    origin = p + jnp.einsum("...ij,j->...i", R, jnp.asarray(offset, p.dtype))
    top = jnp.concatenate([R, origin[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 0.0, 1.0], p.dtype), (*p.shape[:-1], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)
