"""Rotations as matrices, 6D, axis-angle and quaternions (wxyz): batched, with finite gradients everywhere.

6D is the first two columns of the matrix one after the other, (R00, R10, R20, R01, R11, R21), and
Gram-Schmidt back (Zhou et al., "On the continuity of rotation representations in neural networks", CVPR
2019).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from amt.structs import Array


def from_6d(x: Float[Array, "*batch 6"]) -> Float[jax.Array, "*batch 3 3"]:
    """Always a rotation: for a first column of zero, or a second parallel to it, a fixed axis stands in."""
    first, second = x[..., :3], x[..., 3:]
    first = _unit(first, jnp.broadcast_to(jnp.eye(3, dtype=x.dtype)[0], first.shape))
    across = jnp.cross(first, _least_aligned_axis(first))
    second = _unit(second - jnp.sum(first * second, -1, keepdims=True) * first, across)
    second = _unit(second - jnp.sum(first * second, -1, keepdims=True) * first, across)  # float32 needs it twice
    return jnp.stack([first, second, jnp.cross(first, second)], -1)


def to_6d(rotation: Float[Array, "*batch 3 3"]) -> Float[jax.Array, "*batch 6"]:
    return jnp.concatenate([rotation[..., :, 0], rotation[..., :, 1]], -1)


def from_axis_angle(x: Float[Array, "*batch 3"]) -> Float[jax.Array, "*batch 3 3"]:
    """Rodrigues' formula; the vector's length is the angle in radians."""
    squared = jnp.sum(x * x, -1)[..., None, None]
    small = squared < _small(x.dtype)
    angle = jnp.sqrt(jnp.where(small, 1, squared))
    sine = jnp.where(small, 1 - squared / 6, jnp.sin(angle) / angle)
    # 1 - cos written as a sine squared keeps its digits at small angles.
    cosine = jnp.where(small, 0.5 - squared / 24, 2 * jnp.square(jnp.sin(angle / 2) / angle))
    K = _cross_matrix(x)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=x.dtype), K.shape)
    return identity + sine * K + cosine * _matmul(K, K)


def to_axis_angle(rotation: Float[Array, "*batch 3 3"]) -> Float[jax.Array, "*batch 3"]:
    """Length in 0..pi; of the two answers at pi, either."""
    return axis_angle_from_quaternion(to_quaternion(rotation))


def axis_angle_from_quaternion(quaternion: Float[Array, "*batch 4"]) -> Float[jax.Array, "*batch 3"]:
    """wxyz, of unit length, to a vector of length 0..pi."""
    quaternion = jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    squared = jnp.sum(xyz * xyz, -1, keepdims=True)
    small = squared < _small(quaternion.dtype)
    sine = jnp.sqrt(jnp.where(small, 1, squared))
    safe_w = jnp.where(small, w, 1)
    ratio = jnp.where(small, (2 - 2 * squared / (3 * safe_w**2)) / safe_w, 2 * jnp.arctan2(sine, w) / sine)
    return xyz * ratio


def from_quaternion(quaternion: Float[Array, "*batch 4"]) -> Float[jax.Array, "*batch 3 3"]:
    """wxyz, of any length but zero."""
    squared = jnp.sum(quaternion * quaternion, -1)[..., None, None]
    w, x, y, z = jnp.moveaxis(quaternion, -1, 0)
    K = _cross_matrix(jnp.stack([x, y, z], -1))
    identity = jnp.broadcast_to(jnp.eye(3, dtype=quaternion.dtype), K.shape)
    return identity + 2 * (w[..., None, None] * K + _matmul(K, K)) / squared


def to_quaternion(rotation: Float[Array, "*batch 3 3"]) -> Float[jax.Array, "*batch 4"]:
    """wxyz with w >= 0.

    The four rows below are 4 q_i q for i = w, x, y, z, linear in the matrix (Shepperd 1978); the longest one
    is normalised, so nothing is ever divided by a small number.
    """
    (a, b, c), (d, e, f), (g, h, i) = jnp.moveaxis(rotation, (-2, -1), (0, 1))
    rows = jnp.stack(
        [
            jnp.stack([1 + a + e + i, h - f, c - g, d - b], -1),
            jnp.stack([h - f, 1 + a - e - i, b + d, c + g], -1),
            jnp.stack([c - g, b + d, 1 - a + e - i, f + h], -1),
            jnp.stack([d - b, c + g, f + h, 1 - a - e + i], -1),
        ],
        -2,
    )
    largest = jnp.argmax(jnp.diagonal(rows, axis1=-2, axis2=-1), -1)[..., None, None]
    row = jnp.take_along_axis(rows, largest, -2)[..., 0, :]
    row = jnp.where(row[..., :1] < 0, -row, row)
    return row / jnp.linalg.norm(row, axis=-1, keepdims=True)


def geodesic_angle(first: Float[Array, "*batch 3 3"], second: Float[Array, "*batch 3 3"]) -> Float[jax.Array, "*batch"]:
    """Angle in 0..pi between the two; the gradient is zero where they are equal or pi apart."""
    between = _matmul(jnp.swapaxes(first, -2, -1), second)
    cosine = (jnp.trace(between, axis1=-2, axis2=-1) - 1) / 2
    skew = between - jnp.swapaxes(between, -2, -1)
    squared = (skew[..., 2, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 0] ** 2) / 4
    zero = squared == 0
    sine = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))
    return jnp.arctan2(sine, cosine)


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")


def _cross_matrix(x):
    x, y, z = jnp.moveaxis(x, -1, 0)
    zero = jnp.zeros_like(x)
    rows = [jnp.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return jnp.stack(rows, -2)


def _small(dtype):
    """Squared angle below which the two-term series is exact to the last digit."""
    return float(jnp.finfo(dtype).eps) ** 0.5


def _unit(x, otherwise):
    squared = jnp.sum(x * x, -1, keepdims=True)
    degenerate = squared < float(jnp.finfo(x.dtype).eps) ** 2
    return jnp.where(degenerate, otherwise, x / jnp.sqrt(jnp.where(degenerate, 1, squared)))


def _least_aligned_axis(x):
    """The coordinate axis whose cross product with x, made unit, is safest; unit after the cross product."""
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(x), -1), 3, dtype=x.dtype)
    # Removing the part along x makes cross(x, axis) a unit vector.
    axis = axis - jnp.sum(axis * x, -1, keepdims=True) * x
    return axis / jnp.linalg.norm(axis, axis=-1, keepdims=True)
