"""Pixels on the device: warp, colour and blur of one image, for `vmap`.

Between reading and writing an image is three planes [3,h,w] of floats in 0..255: what follows the warp is then one
loop over contiguous memory.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOOP_STEPS = 4


def to_planes(image: UInt8[Array, "h w 3"]) -> Float[Array, "3 h w"]:
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32)


def to_image(planes: Float[Array, "3 h w"]) -> UInt8[Array, "h w 3"]:
    """Rounded and clipped."""
    return jnp.moveaxis(jnp.clip(jnp.round(planes), 0, 255).astype(jnp.uint8), 0, -1)


def warp(image: UInt8[Array, "h w 3"], H_old_new: Float[Array, "3 3"], size: int) -> Float[Array, "3 size size"]:
    """Bilinear readings at H_old_new (x, y, 1); integer coordinates are pixel centres, outside is black."""
    height, width, _ = image.shape
    # One word a pixel: a gather of words is three times faster than one of bytes. Black all around saves the masks.
    bytes_ = jnp.pad(image, ((1, 2), (1, 2), (0, 1)))
    words = jax.lax.bitcast_convert_type(bytes_, jnp.uint32).reshape(-1)
    x = jnp.arange(size, dtype=jnp.float32)

    def row(y):
        a, b, c = (h[0] * x + h[1] * y + h[2] for h in H_old_new)
        u, v = jnp.clip(a / c, -1, width), jnp.clip(b / c, -1, height)
        left, top = jnp.floor(u), jnp.floor(v)
        at = (top.astype(jnp.int32) + 1) * (width + 3) + left.astype(jnp.int32) + 1
        return at, u - left, v - top

    # In a loop of a few steps, because what a loop makes is stored: XLA's CPU backend would compute it anew for
    # each corner and channel.
    at, right_share, low_share = jax.lax.map(row, x, batch_size=-(-size // LOOP_STEPS))
    corners = [words.at[at + step].get(mode="promise_in_bounds") for step in (0, 1, width + 3, width + 4)]

    def plane(channel):
        p, q, r, s = ((word >> 8 * channel & 255).astype(jnp.float32) for word in corners)
        above, below = p + (q - p) * right_share, r + (s - r) * right_share
        return above + (below - above) * low_share

    return jnp.stack([plane(channel) for channel in range(3)])


def adjust_color(
    planes: Float[Array, "3 h w"],
    brightness: Float[Array, ""],
    contrast: Float[Array, ""],
    saturation: Float[Array, ""],
    hue: Float[Array, ""],
) -> Float[Array, "3 h w"]:
    """Brightness, contrast about the mean luma, saturation about the luma, hue turned about grey, in this order.

    The first three are factors, hue is in turns. Together they are one matrix and one offset: values are clipped once,
    at the end.
    """
    luma = jnp.asarray(LUMA)
    to_grey = jnp.broadcast_to(luma[None, :], (3, 3))
    saturate = saturation * jnp.eye(3) + (1 - saturation) * to_grey
    angle = 2 * jnp.pi * hue
    third, across = jnp.full((3, 3), 1 / 3), jnp.asarray([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / jnp.sqrt(3.0)
    turn = jnp.cos(angle) * (jnp.eye(3) - third) + third + jnp.sin(angle) * across  # Rodrigues about (1, 1, 1)
    A = jnp.matmul(turn, saturate, precision="highest") * (contrast * brightness)
    mean = sum(luma[k] * planes[k].mean() for k in range(3))
    offset = (1 - contrast) * brightness * mean
    red, green, blue = planes
    mixed = [A[k, 0] * red + A[k, 1] * green + A[k, 2] * blue + offset for k in range(3)]
    return jnp.clip(jnp.stack(mixed), 0, 255)


def blur(planes: Float[Array, "3 h w"], sigma: Float[Array, ""], size: int) -> Float[Array, "3 h w"]:
    """A Gaussian of `size` x `size` pixels, mirrored at the border without repeating it; sigma 0 changes nothing."""
    reach = size // 2
    steps = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * jnp.square(steps / jnp.maximum(sigma, 1e-3)))
    weights = weights / weights.sum()
    _, h, w = planes.shape
    tall = jnp.pad(planes, ((0, 0), (reach, reach), (0, 0)), mode="reflect")
    planes = sum(weights[k] * tall[:, k : k + h] for k in range(size))
    wide = jnp.pad(planes, ((0, 0), (0, 0), (reach, reach)), mode="reflect")
    return sum(weights[k] * wide[:, :, k : k + w] for k in range(size))
