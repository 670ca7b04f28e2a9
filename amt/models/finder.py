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

from amt.models.encoder import normalise
from amt.models.keypoints import NUM_JOINTS
from amt.models.layers import (
    BlockConfig,
    Conv3x3,
    Dense,
    LayerNorm,
    PositionEmbedding2D,
    ResidualConv,
    depth_to_space,
    head,
    space_to_depth,
    through_blocks,
)


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
    """An hourglass: down to stride 16, transformer blocks over the whole frame, back up to heatmaps of stride 4.

    A hand is a few tokens wide in a whole frame: the stride-8 map beside them says where in a token it is. Joints by
    soft-argmax; side and presence are read where the joints lie.
    """

    width: int
    depth: int
    block: BlockConfig
    stem: Sequence[int]

    @nn.compact
    def __call__(self, frame: UInt8[Array, "b s s 3"]) -> Found:
        first, second = self.stem
        x = nn.relu(LayerNorm()(Dense(first)(space_to_depth(normalise(frame), 4))))
        x = Conv3x3(second, stride=2)(x)
        grid = PositionEmbedding2D()(Conv3x3(self.width, stride=2)(nn.relu(LayerNorm()(x))))
        b, g = grid.shape[:2]
        tokens = grid.reshape(b, g * g, self.width)
        tokens = LayerNorm()(through_blocks(self.block, self.depth, tokens)[-1])
        up = depth_to_space(Dense(4 * second, name="up")(tokens.reshape(b, g, g, self.width)), 2)
        x = nn.relu(LayerNorm()(ResidualConv()(x + up)))
        maps = Dense(NUM_JOINTS * 4, nn.initializers.normal(0.02))(x)
        logits = depth_to_space(maps, 2).transpose(0, 3, 1, 2)
        n = 4 * g
        log_p = jax.nn.log_softmax(4.0 * logits.reshape(b, NUM_JOINTS, n * n), axis=-1)
        log_p = log_p.reshape(b, NUM_JOINTS, n, n)
        p = jnp.exp(log_p)
        centers = (jnp.arange(n, dtype=jnp.float32) + 0.5) / n
        uv = jnp.stack([jnp.einsum("bjhw,w->bj", p, centers), jnp.einsum("bjhw,h->bj", p, centers)], axis=-1)

        hand = jax.lax.stop_gradient(p.mean(1))
        fine = jnp.einsum("bn,bnd->bd", _pooled(hand, 2), x.reshape(b, -1, second))
        coarse = jnp.einsum("bn,bnd->bd", _pooled(hand, 4), tokens)
        everywhere = nn.relu(Dense(self.width, name="pool")(tokens)).mean(1)
        y = nn.relu(Dense(self.width)(jnp.concatenate([fine, coarse, everywhere], axis=-1)))
        y = head(2)(y) * 5.0
        return Found(uv, y[:, 0], y[:, 1], log_p)


def _pooled(p: Float[Array, "b h w"], k: int) -> Float[Array, "b n"]:
    """Sums over k x k cells."""
    return space_to_depth(p[..., None], k).sum(-1).reshape(p.shape[0], -1)
