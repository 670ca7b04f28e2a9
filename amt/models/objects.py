"""Object queries: poses, classes and confidences of the objects around the hand."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.geometry import rotations
from amt.models.hand import IDENTITY_6D, HandFeatures
from amt.models.keypoints import Keypoints, to_camera
from amt.models.layers import BlockConfig, Dense, LayerNorm, head, through_blocks
from amt.models.refiner import PixelAlignedRefiner, RefinerConfig


@flax.struct.dataclass
class ObjectOutput:
    """`position`, `rotation` model to crop camera; `confidence` a logit; `classes` logits (index: YCB id)."""

    position: Float[Array, "b q 3"]
    rotation: Float[Array, "b q 3 3"]
    confidence: Float[Array, "b q"]
    classes: Float[Array, "b q c"]
    tokens: Float[Array, "b q d"]


class ObjectDecoder(nn.Module):
    """Learnable queries that attend to image tokens and hand tokens (Carion et al. 2020, DETR).

    A position is a place in the crop and a depth relative to the wrist's, made metric through K and the
    hand's scale, then corrected by a pixel-aligned refiner.
    """

    width: int
    depth: int
    block: BlockConfig
    num_queries: int
    num_classes: int
    head_dim: int
    refiner: RefinerConfig

    @nn.compact
    def __call__(
        self,
        image_tokens: Float[Array, "b n d"],
        fine: Float[Array, "b f f c"],
        hand: HandFeatures,
        keypoints: Keypoints,
        K: Float[Array, "b 3 3"],
        image_size: int,
    ) -> ObjectOutput:
        b = image_tokens.shape[0]
        keypoints = jax.lax.stop_gradient(keypoints)
        context = jnp.concatenate([Dense(self.width)(image_tokens), Dense(self.width)(hand.tokens)], axis=1)
        queries = self.param("queries", nn.initializers.normal(0.02), (self.num_queries, self.width))
        anchors = self.param("anchors", nn.initializers.normal(0.2), (self.num_queries, 2))
        x = jnp.broadcast_to(queries[None], (b, self.num_queries, self.width))
        x = LayerNorm()(through_blocks(self.block, self.depth, x, context)[-1])
        place, *rest = object_heads(x, self.head_dim, self.num_classes)
        uv = 0.5 + anchors[None] + place[..., :2]
        position = to_camera(uv, place[..., 2], keypoints.scale, K, image_size)
        refiner = PixelAlignedRefiner(self.refiner, image_size)
        position = refiner(position, x, None, fine, K, keypoints.scale)
        return ObjectOutput(position, *rest, x)


def object_heads(x: Float[Array, "b q d"], head_dim: int, num_classes: int) -> tuple[Array, Array, Array, Array]:
    """Place [b,q,3] (in the crop's sides and depth behind the wrist), rotation, confidence and classes of queries.

    Called in a module's compact method, whose layers these become.
    """
    place = head(3)(nn.relu(Dense(head_dim)(x)))
    six = head(6)(nn.relu(Dense(head_dim)(x)))
    rotation = rotations.from_6d(six * 10.0 + jnp.asarray(IDENTITY_6D)[None, None])
    return place, rotation, head(1)(x)[..., 0], head(num_classes)(x)
