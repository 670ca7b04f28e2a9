"""The hand finder: from the whole frame to 21 rough joints, the side, and whether there is a hand.

The box and the in-plane angle of the crop follow from the joints, as they do everywhere else. Twenty-one heatmaps
teach a small network far faster than one box does.
"""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models.encoder import PatchEncoder
from amt.models.keypoints import NUM_JOINTS, UPSAMPLING
from amt.models.layers import Dense, depth_to_space, head


@flax.struct.dataclass
class Found:
    """`uv` are joints in the frame fitted into a square, in its sides (0..1); `left` and `presence` are logits.

    `log_heatmaps` is where each joint may be, over the square's cells.
    """

    uv: Float[Array, "b 21 2"]
    left: Float[Array, " b"]
    presence: Float[Array, " b"]
    log_heatmaps: Float[Array, "b 21 h w"]


class HandFinder(nn.Module):
    """Heatmaps for the joints by soft-argmax; side and presence are read from the tokens that the joints lie on."""

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    stem: Sequence[int]

    @nn.compact
    def __call__(self, frame: UInt8[Array, "b s s 3"]) -> Found:
        encoder = PatchEncoder(self.width, self.depth, self.num_heads, self.mlp_dim, self.stem, fine_dim=1)
        features = encoder(frame)
        maps = Dense(NUM_JOINTS * UPSAMPLING**2, nn.initializers.normal(0.02))(features.patch_grid)
        logits = depth_to_space(maps, UPSAMPLING).transpose(0, 3, 1, 2)
        b, n, h, w = logits.shape
        log_p = jax.nn.log_softmax(4.0 * logits.reshape(b, n, h * w), axis=-1).reshape(b, n, h, w)
        p = jnp.exp(log_p)
        centers = (jnp.arange(h, dtype=jnp.float32) + 0.5) / h
        uv = jnp.stack([jnp.einsum("bnhw,w->bn", p, centers), jnp.einsum("bnhw,h->bn", p, centers)], axis=-1)
        g = h // UPSAMPLING
        per_token = p.mean(1).reshape(b, g, UPSAMPLING, g, UPSAMPLING).sum((2, 4)).reshape(b, g * g)
        local = jnp.einsum("bn,bnd->bd", jax.lax.stop_gradient(per_token), features.patch_tokens)
        x = nn.relu(Dense(self.width)(jnp.concatenate([local, features.cls_token], axis=-1)))
        y = head(2)(x) * 5.0
        return Found(uv, y[:, 0], y[:, 1], log_p)
