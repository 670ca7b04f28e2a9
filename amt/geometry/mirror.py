"""Left hands become right hands: the image is flipped, and everything in it with S = diag(-1, 1, 1).

A mirrored sample is a consistent picture of a mirrored world, taken by a camera with the mirrored K. Every
function is its own inverse, and takes NumPy or JAX arrays and gives back the same kind.

pixels   integer coordinates are pixel centres (OpenCV), so u becomes W - 1 - u
points   x becomes -x in the camera frame
objects  R becomes S R S and t becomes S t: the pose of the *mirrored* model, whose vertices have x negated
hands    a left hand is the mirror image of the right hand with the same betas and PCA pose, because the left
         model is the right one mirrored; only the global rotation and the translation change
"""

import numpy as np
from jaxtyping import Float

from amt.structs import Array

_S = np.array([-1, 1, 1])


def flip_matrix(width: int | Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 3 3"]:
    """The homography F that flips the pixels of an image so wide."""
    F = np.zeros((*np.shape(width), 3, 3))
    F[..., 0, 0], F[..., 0, 2], F[..., 1, 1], F[..., 2, 2] = -1, width - 1, 1, 1
    return F


def mirror_pixels(uv: Float[Array, "*batch 2"], width: int | Array) -> Float[Array, "*batch 2"]:
    """`width` may differ over the batch: an array that broadcasts to `uv`, of its type."""
    return _times(uv, np.array([-1, 1])) + _like(uv, np.array([1, 0])) * (width - 1)


def mirror_intrinsics(K: Float[Array, "*batch 3 3"], width: int | Array) -> Float[Array, "*batch 3 3"]:
    """K' = F K S, where F flips pixels: the focal lengths stay, the principal point becomes W - 1 - cx.

    `width` may differ over the batch: an array that broadcasts to `K`, of its type.
    """
    sign = np.array([[1, -1, -1], [1, 1, 1], [1, 1, 1]])
    return _times(K, sign) + _like(K, np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]])) * (width - 1)


def mirror_points(points: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Points, directions, translations and forces in the camera frame."""
    return _times(points, _S)


def mirror_rotation(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """S R S; holds for global rotations and for those of a joint relative to its parent."""
    return _times(rotation, np.outer(_S, _S))


def mirror_object_pose(pose: Float[Array, "*batch 3 4"]) -> Float[Array, "*batch 3 4"]:
    """[R|t] of the mirrored model (see above)."""
    return _times(pose, np.outer(_S, np.append(_S, 1)))


def mirror_axis_angle(x: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """(x, -y, -z): an axis is mirrored, and the sense of the turn with it."""
    return _times(x, -_S)


def mirror_hand_pose(pose: Float[Array, "*batch 48"]) -> Float[Array, "*batch 48"]:
    """The MANO layout, 3 axis-angle and 45 PCA; a 51 layout takes `mirror_points` on its last 3."""
    return _times(pose, np.append(-_S, np.ones(45)))


def _like(array, values):
    return values.astype(array.dtype).reshape((1,) * (array.ndim - values.ndim) + values.shape)


def _times(array, values):
    return array * _like(array, values)
