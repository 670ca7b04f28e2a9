"""Resampling of images and maps by one matrix per axis, as torch does it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cubic(x: Float[np.ndarray, "..."], a: float) -> Float[np.ndarray, "..."]:
    """The cubic convolution kernel (Keys 1981, Cubic Convolution Interpolation, eq. 15; his a is -0.5)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.cache
def resize_matrix(n_in: int, n_out: int, antialias: bool) -> Float[np.ndarray, "n_out n_in"]:
    """Rows of weights that sum to one: torch's `interpolate(mode="bicubic", align_corners=False, antialias=...)`.

    Without antialiasing a = -0.75, four taps, and what lies outside is the border's value. With it a = -0.5 (as in
    Pillow), the kernel is as wide as an output cell, and what lies outside is left out.
    """
    step = n_in / n_out
    if antialias:
        centers = (np.arange(n_out) + 0.5) * step - 0.5
        weights = cubic((np.arange(n_in)[None] - centers[:, None]) / max(step, 1.0), a=-0.5)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    # In float32, as torch: its rounding of the centres is larger than all that the kernel adds.
    centers = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * np.float32(step) - np.float32(0.5)
    weights = np.zeros((n_out, n_in))
    first = np.floor(centers).astype(int)
    for tap in range(-1, 3):
        inside = np.clip(first + tap, 0, n_in - 1)
        np.add.at(weights, (np.arange(n_out), inside), cubic(first + tap - centers, a=-0.75))
    return weights.astype(np.float32)


def resize(x: Float[Array, "b h w c"], size: tuple[int, int], antialias: bool) -> Float[Array, "b h2 w2 c"]:
    """Bicubic resampling to `size` in float32; see `resize_matrix` for the filter."""
    if x.shape[1:3] == size:
        return x
    rows, columns = (resize_matrix(n_in, n_out, antialias) for n_in, n_out in zip(x.shape[1:3], size, strict=True))
    x = jnp.einsum("ph,bhwc->bpwc", rows, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("qw,bpwc->bpqc", columns, x, precision=jax.lax.Precision.HIGHEST)
