"""Contact queries: where hand and object touch."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.models.hand import HandFeatures
from amt.models.layers import Attention, BlockConfig, Dense, LayerNorm, head, through_blocks

NUM_KINDS = 4  # none, light, firm, manipulation


@flax.struct.dataclass
class ContactOutput:
    """`points` in the crop's camera frame; `confidence` a logit; `kind` logits; `force` in newtons; the queries."""

    points: Float[Array, "b q 3"]
    confidence: Float[Array, "b q"]
    kind: Float[Array, "b q 4"]
    force: Float[Array, "b q 3"]
    tokens: Float[Array, "b q d"]


class ContactDecoder(nn.Module):
    """Queries attend to the hand, then to the objects, then to each other.

    A point is a mixture of the hand's joints, chosen by attention, plus an offset: it starts on the hand.
    """

    width: int
    depth: int
    block: BlockConfig
    num_queries: int

    @nn.compact
    def __call__(
        self,
        hand: HandFeatures,
        joints: Float[Array, "b 21 3"],
        object_tokens: Float[Array, "b q d"],
        scale: Float[Array, " b"],
    ) -> ContactOutput:
        b = joints.shape[0]
        queries = self.param("queries", nn.initializers.normal(0.02), (self.num_queries, self.width))
        x = jnp.broadcast_to(queries[None], (b, self.num_queries, self.width))
        x = x + Attention(self.block.num_heads)(LayerNorm()(x), Dense(self.width)(hand.tokens))
        x = x + Attention(self.block.num_heads)(LayerNorm()(x), Dense(self.width)(object_tokens))
        x = LayerNorm()(through_blocks(self.block, self.depth, x)[-1])
        keys = Dense(self.width)(hand.tokens)
        where = jax.nn.softmax(jnp.einsum("bqd,bjd->bqj", x, keys) / jnp.sqrt(float(self.width)), axis=-1)
        return contact_heads(x, jnp.einsum("bqj,bji->bqi", where, joints), scale)


def contact_heads(x: Float[Array, "b q d"], start: Float[Array, "b n 3"], scale: Float[Array, " b"]) -> ContactOutput:
    """Points around `start` (one of each query, or one of all), confidence, kind and force of queries.

    Called in a module's compact method, whose layers these become.
    """
    points = start + head(3)(x) * scale[:, None, None]
    return ContactOutput(points, head(1)(x)[..., 0], head(NUM_KINDS)(x), head(3)(x), x)
