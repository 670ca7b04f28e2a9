"""Where the hand may be in a frame, out of the finder's heatmaps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models.perception import Amt

PEAKS = 3  # places at which the finder's heatmaps are highest, tried beside their mean
PEAK_REACH = 0.16  # frame sides around a peak that belong to it


def guess_places(model: Amt, params: dict, frames: UInt8[Array, "b s s 3"]):
    """Joints, side and presence logits, and guesses of where the hand is: centre and spread, in frame sides.

    The spread is that of all heatmaps together along the longer axis: it covers the hand and the doubt about it,
    where soft-argmax joints shrink towards their middle. The first guess is the mean of the heatmaps, the others
    are what lies around their highest places: in doubt between two places the mean is at neither.
    """
    found = model.apply({"params": params}, frames, method=Amt.find)
    p = jnp.exp(found.log_heatmaps).mean(1)
    n = p.shape[1]
    cells, reach = jnp.arange(n), round(PEAK_REACH * n)
    left_over = jax.lax.reduce_window(p, 0.0, jax.lax.add, (1, 3, 3), (1, 1, 1), "SAME")
    places = [_place(p)]
    for _ in range(PEAKS):
        row, column = jnp.divmod(left_over.reshape(-1, n * n).argmax(-1), n)
        near = (jnp.abs(cells[None, :, None] - row[:, None, None]) <= reach) & (
            jnp.abs(cells[None, None] - column[:, None, None]) <= reach
        )
        places.append(_place(jnp.where(near, p, 0.0)))
        left_over = jnp.where(near, 0.0, left_over)
    return found.uv, found.left, found.presence, places


def _place(p: Float[jax.Array, "b n n"]) -> tuple[Float[jax.Array, "b 2"], Float[jax.Array, " b"]]:
    """Mean and standard deviation (along the longer axis) of weights over the cells of the unit square."""
    cells = (jnp.arange(p.shape[1], dtype=p.dtype) + 0.5) / p.shape[1]
    p = p / p.sum((1, 2), keepdims=True)
    x, y = p.sum(1), p.sum(2)
    center = jnp.stack([x @ cells, y @ cells], axis=-1)
    dx, dy = cells[None] - center[:, :1], cells[None] - center[:, 1:]
    xx, yy = (x * dx * dx).sum(1), (y * dy * dy).sum(1)
    xy = jnp.einsum("bhw,bh,bw->b", p, dy, dx)
    largest = (xx + yy) / 2 + jnp.sqrt(((xx - yy) / 2) ** 2 + xy**2 + 1e-12)
    return center, jnp.sqrt(largest)
