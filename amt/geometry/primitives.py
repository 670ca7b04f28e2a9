"""Signed distances to the boxes and cylinders that stand for objects; numpy or JAX arrays."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from amt.structs import Array

BOX = 3  # `axis` of a box; 0, 1, 2 name the axis of a cylinder
# Row k turns coordinates so that axis k becomes z; a box stays as it is.
_TO_Z = np.array(
    [[[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.eye(3), np.eye(3)], np.float32
)


def signed_distance(
    points: Float[Array, "*batch n 3"], half: Float[Array, "*batch 3"], axis: Int[Array, "*batch"]
) -> Float[Array, "*batch n"]:
    """Distance from points in the object's frame to its surface, negative inside.

    `half` are half extents along the object's axes. `axis` is 0, 1 or 2 for a cylinder along that axis, `BOX`
    for a box; a cylinder's radius is the mean of its other two half extents.
    Source: Inigo Quilez, https://iquilezles.org/articles/distfunctions
    """
    xp = points.__array_namespace__()
    turn = xp.asarray(_TO_Z, dtype=points.dtype)[axis]
    p = xp.abs(xp.einsum("...ij,...nj->...ni", turn, points))
    h = xp.einsum("...ij,...j->...i", turn, half)[..., None, :]
    across = xp.sqrt(p[..., 0] ** 2 + p[..., 1] ** 2 + 1e-12)  # not hypot, which has no gradient on the axis
    radial = across - (h[..., 0] + h[..., 1]) / 2
    cylinder = xp.stack([radial, p[..., 2] - h[..., 2]], axis=-1)
    box = p - h
    return xp.where((axis == BOX)[..., None], _outside(box), _outside(cylinder))


def _outside(q: Float[Array, "*batch n d"]) -> Float[Array, "*batch n"]:
    xp = q.__array_namespace__()
    zero = xp.zeros_like(q)
    gap = xp.maximum(q, zero)
    return xp.sqrt((gap * gap).sum(-1) + 1e-12) + xp.minimum(q.max(-1), zero[..., 0])


def symmetries(axis: int) -> Float[np.ndarray, "24 3 3"]:
    """Rotations that leave the shape as it is: 4 of a box, repeated; 12 steps and a flip of a cylinder."""
    if axis == BOX:
        half_turns = [np.diag(d) for d in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
        return np.stack(half_turns * 6).astype(np.float32)
    flip = Rotation.from_rotvec(np.pi * np.eye(3)[(axis + 1) % 3])
    steps = [Rotation.from_rotvec(np.eye(3)[axis] * a) for a in np.arange(12) * np.pi / 6]
    rotations = [r * f for f in (Rotation.identity(), flip) for r in steps]
    return np.stack([r.as_matrix() for r in rotations]).astype(np.float32)
