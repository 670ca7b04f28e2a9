"""Terms of the hand finder."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from amt.losses.common import masked_mean
from amt.models.finder import Found
from amt.structs import Batch


def finder_losses(found: Found, batch: Batch) -> dict[str, Float[Array, ""]]:
    """Joints, side and presence of the hand in the whole frame; places are compared in sides of the hand's extent."""
    n = found.log_heatmaps.shape[2]
    cells = (jnp.arange(n, dtype=jnp.float32) + 0.5) / n
    valid, uv = batch.frame_joints_valid, batch.frame_joints

    def soft_target(x):
        return jax.nn.softmax(-0.5 * ((cells[None, None] - x[..., None]) * n) ** 2, axis=-1)

    ty, tx = soft_target(uv[..., 1]), soft_target(uv[..., 0])
    heatmap = -jnp.einsum("bjh,bjw,bjhw->bj", ty, tx, found.log_heatmaps)
    extent = jnp.maximum((uv.max(1) - uv.min(1)).max(-1), 0.1)
    place = jnp.abs(found.uv - uv).sum(-1) / extent[:, None]
    left = optax.sigmoid_binary_cross_entropy(found.left, batch.frame_is_left.astype(jnp.float32))
    presence = optax.sigmoid_binary_cross_entropy(found.presence, batch.frame_has_hand.astype(jnp.float32))
    return {
        "finder_heatmap": masked_mean(heatmap, valid),
        "finder_place": masked_mean(place, valid),
        "finder_side": masked_mean(left, batch.frame_has_hand),
        "finder_presence": masked_mean(presence, batch.frame_known),
    }
