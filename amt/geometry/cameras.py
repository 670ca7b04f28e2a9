"""Pinhole projection, and crops as virtual cameras.

Integer pixel coordinates are pixel centres (OpenCV). Everything takes numpy or JAX arrays, answers in kind.
"""

from typing import NamedTuple

from jaxtyping import Float

from amt.structs import Array

# The angle of a crop whose up vector is the image's up vector: image y points down.
UPRIGHT = -1.5707963267948966


class Box(NamedTuple):
    """A square in the image: centre in pixels, side in pixels, and the direction that is up in it.

    `angle` is atan2(dy, dx) of the wrist-to-middle-knuckle direction in image coordinates, radians.
    """

    center: Float[Array, "*batch 2"]
    size: Float[Array, "*batch"]
    angle: Float[Array, "*batch"]


class Crop(NamedTuple):
    """A virtual camera at the same centre of projection: its own `K`, `R_crop_camera`, and the image warp.

    `H_crop_image` maps homogeneous image pixels to crop pixels.
    """

    K: Float[Array, "*batch 3 3"]
    R_crop_camera: Float[Array, "*batch 3 3"]
    H_crop_image: Float[Array, "*batch 3 3"]


def project(points: Float[Array, "*batch n 3"], K: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch n 2"]:
    """Camera-frame points to pixels. Points with z <= 0 give numbers without meaning: mask them."""
    xp = points.__array_namespace__()
    uvw = points @ xp.swapaxes(K, -1, -2)
    return uvw[..., :2] / uvw[..., 2:]


def unproject(
    pixels: Float[Array, "*batch n 2"], depth: Float[Array, "*batch n"], K: Float[Array, "*batch 3 3"]
) -> Float[Array, "*batch n 3"]:
    """Pixels at a depth along z to camera-frame points; K may have skew."""
    xp = pixels.__array_namespace__()
    y = (pixels[..., 1] - K[..., None, 1, 2]) / K[..., None, 1, 1]
    x = (pixels[..., 0] - K[..., None, 0, 2] - K[..., None, 0, 1] * y) / K[..., None, 0, 0]
    return xp.stack([x, y, xp.ones_like(x)], axis=-1) * depth[..., None]


def rotate(R: Float[Array, "*batch 3 3"], points: Float[Array, "*batch n 3"]) -> Float[Array, "*batch n 3"]:
    """R applied to every point: `R_a_b` takes points in b to points in a."""
    xp = points.__array_namespace__()
    return points @ xp.swapaxes(R, -1, -2)


def hand_box(joints_2d: Float[Array, "*batch 21 2"], margin: float = 1.35) -> Box:
    """The aligned square around a hand: up is wrist to middle knuckle, the side `margin` times the extent."""
    xp = joints_2d.__array_namespace__()
    up = joints_2d[..., 9, :] - joints_2d[..., 0, :]
    angle = xp.atan2(up[..., 1], up[..., 0])
    axis = xp.stack([xp.cos(angle), xp.sin(angle)], axis=-1)
    side = xp.stack([-axis[..., 1], axis[..., 0]], axis=-1)
    along = (joints_2d * axis[..., None, :]).sum(-1)
    across = (joints_2d * side[..., None, :]).sum(-1)
    low = xp.stack([along.min(-1), across.min(-1)], axis=-1)
    high = xp.stack([along.max(-1), across.max(-1)], axis=-1)
    middle = (low + high) / 2
    center = middle[..., :1] * axis + middle[..., 1:] * side
    return Box(center, (high - low).max(-1) * margin, angle)


def upright_box(joints_2d: Float[Array, "*batch 21 2"], margin: float = 1.35) -> Box:
    """The axis-parallel square around a hand: the crop `box` of the configuration."""
    xp = joints_2d.__array_namespace__()
    low, high = joints_2d.min(-2), joints_2d.max(-2)
    size = (high - low).max(-1) * margin
    return Box((low + high) / 2, size, xp.full_like(size, UPRIGHT))


def crop_camera(K: Float[Array, "*batch 3 3"], box: Box, size: int) -> Crop:
    """The camera that sees `box` upright in `size` x `size` pixels.

    Its axis goes through the box's centre, its up vector lies along `box.angle` in the image, and its focal
    length makes the box's side fill the crop at the centre. Scaling the image, K and the box together changes
    nothing in the crop. The warp is the homography K_crop R K^-1 (Hartley and Zisserman 2004, section 8.4.2).
    """
    xp = K.__array_namespace__()
    K_inv = xp.linalg.inv(K)
    one, zero = xp.ones_like(box.size), xp.zeros_like(box.size)
    ray = xp.einsum("...ij,...j->...i", K_inv, xp.concat([box.center, one[..., None]], axis=-1))
    length = xp.linalg.vector_norm(ray, axis=-1)
    forward = ray / length[..., None]
    up = xp.stack([xp.cos(box.angle), xp.sin(box.angle), zero], axis=-1)
    up = xp.einsum("...ij,...j->...i", K_inv, up)
    up = up - (up * forward).sum(-1)[..., None] * forward
    down = -up / xp.linalg.vector_norm(up, axis=-1)[..., None]
    right = xp.linalg.cross(down, forward)
    R = xp.stack([right, down, forward], axis=-2)
    focal = xp.sqrt(K[..., 0, 0] * K[..., 1, 1]) * length * size / box.size
    middle = one * ((size - 1) / 2)
    K_crop = xp.stack(
        [
            xp.stack([focal, zero, middle], axis=-1),
            xp.stack([zero, focal, middle], axis=-1),
            xp.stack([zero, zero, one], axis=-1),
        ],
        axis=-2,
    )
    return Crop(K_crop, R, K_crop @ R @ K_inv)


def warp_points(H: Float[Array, "*batch 3 3"], pixels: Float[Array, "*batch n 2"]) -> Float[Array, "*batch n 2"]:
    """Pixels through a homography."""
    xp = pixels.__array_namespace__()
    homogeneous = xp.concat([pixels, xp.ones_like(pixels[..., :1])], axis=-1) @ xp.swapaxes(H, -1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]
