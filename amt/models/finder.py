"""The hand finder: from the whole frame to a box, its in-plane angle, its side, whether there is a hand."""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models.encoder import PatchEncoder
from amt.models.layers import Dense, depth_to_space, head

UPSAMPLING = 4
MEAN_LOG_SIZE = -1.2  # of a hand's box, in frame sides


@flax.struct.dataclass
class Found:
    """A box in the frame fitted into a square: `center`, `size` in its sides, `up` (cos, sin) of its angle.

    `left` and `presence` are logits; `log_heatmap` is where the centre may be.
    """

    center: Float[Array, "b 2"]
    size: Float[Array, " b"]
    up: Float[Array, "b 2"]
    left: Float[Array, " b"]
    presence: Float[Array, " b"]
    log_heatmap: Float[Array, "b h w"]


class HandFinder(nn.Module):
    """A heatmap for the centre; everything else is read from the tokens around it."""

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    stem: Sequence[int]

    @nn.compact
    def __call__(self, frame: UInt8[Array, "b s s 3"]) -> Found:
        encoder = PatchEncoder(self.width, self.depth, self.num_heads, self.mlp_dim, self.stem, fine_dim=1)
        features = encoder(frame)
        logits = depth_to_space(Dense(UPSAMPLING**2)(features.patch_grid), UPSAMPLING)[..., 0]
        b, h, w = logits.shape
        log_p = jax.nn.log_softmax(4.0 * logits.reshape(b, h * w), axis=-1)
        p = jnp.exp(log_p).reshape(b, h, w)
        centers = (jnp.arange(h, dtype=jnp.float32) + 0.5) / h
        center = jnp.stack([jnp.einsum("bhw,w->b", p, centers), jnp.einsum("bhw,h->b", p, centers)], axis=-1)
        g = h // UPSAMPLING
        per_token = p.reshape(b, g, UPSAMPLING, g, UPSAMPLING).sum((2, 4)).reshape(b, g * g)
        local = jnp.einsum("bn,bnd->bd", per_token, features.patch_tokens)
        x = nn.relu(Dense(self.width)(jnp.concatenate([local, features.cls_token], axis=-1)))
        y = head(5)(x)
        up = y[:, 1:3] * 5.0
        up = up / jnp.sqrt((up * up).sum(-1, keepdims=True) + 1e-6)
        size = jnp.exp(y[:, 0] + MEAN_LOG_SIZE)
        return Found(center, size, up, y[:, 3] * 5.0, y[:, 4] * 5.0, log_p.reshape(b, h, w))
