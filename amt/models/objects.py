"""Object queries: poses, classes and confidences of the objects around the hand."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.geometry import rotations
from amt.models.encoder import ImageFeatures
from amt.models.hand import IDENTITY_6D, HandFeatures
from amt.models.keypoints import UPSAMPLING, Keypoints, expected_place, to_camera
from amt.models.layers import BlockConfig, Dense, LayerNorm, depth_to_space, head, through_blocks
from amt.models.refiner import PixelAlignedRefiner, RefinerConfig

CELL_DIM = 32  # channels in which a query is compared with a heatmap's cells


@flax.struct.dataclass
class ObjectOutput:
    """`position`, `rotation` model to crop camera; `confidence` a logit; `classes` logits (index: YCB id).

    The first query's is the object that the hand holds, or is about to (`amt.losses.objects`). `log_heatmaps` say where
    each query's object has its middle, over the cells of `amt.models.keypoints`; VMT has none.
    """

    position: Float[Array, "b q 3"]
    rotation: Float[Array, "b q 3 3"]
    confidence: Float[Array, "b q"]
    classes: Float[Array, "b q c"]
    tokens: Float[Array, "b q d"]
    log_heatmaps: Float[Array, "b q h w"] | None = None


class ObjectDecoder(nn.Module):
    """Learnable queries that attend to image tokens and hand tokens (Carion et al. 2020, DETR).

    A position is a place in the crop and a depth relative to the wrist's, made metric through K and the
    hand's scale, then corrected by a pixel-aligned refiner. The place is the soft-argmax of a heatmap, which compares
    the query with each cell (as masks are made in Cheng et al. 2021, MaskFormer), and what the query adds to it. What
    the object is, and how it is turned, is read from the tokens there too: attention alone finds them late.
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
        features: ImageFeatures,
        hand: HandFeatures,
        keypoints: Keypoints,
        K: Float[Array, "b 3 3"],
        image_size: int,
    ) -> ObjectOutput:
        b = features.patch_tokens.shape[0]
        keypoints = jax.lax.stop_gradient(keypoints)
        context = jnp.concatenate([Dense(self.width)(features.patch_tokens), Dense(self.width)(hand.tokens)], axis=1)
        queries = self.param("queries", nn.initializers.normal(0.02), (self.num_queries, self.width))
        anchors = self.param("anchors", nn.initializers.normal(0.2), (self.num_queries, 2))
        x = jnp.broadcast_to(queries[None], (b, self.num_queries, self.width))
        x = LayerNorm()(through_blocks(self.block, self.depth, x, context)[-1])
        log_heatmaps = query_heatmaps(x, features.patch_grid)
        p = jnp.exp(log_heatmaps)
        x = x + head(self.width, name="there")(pooled(p, features.patch_grid))
        place, *rest = object_heads(x, self.head_dim, self.num_classes)
        uv = expected_place(p) + anchors[None] + place[..., :2]
        position = to_camera(uv, place[..., 2], keypoints.scale, K, image_size)
        refiner = PixelAlignedRefiner(self.refiner, image_size)
        position = refiner(position, x, None, features.fine, K, keypoints.scale)
        return ObjectOutput(position, *rest, x, log_heatmaps)


def query_heatmaps(queries: Float[Array, "b q d"], grid: Float[Array, "b g g d"]) -> Float[Array, "b q h w"]:
    """Log probabilities over the heatmap cells, about uniform at first. Called in a module's compact method."""
    spread = Dense(CELL_DIM * UPSAMPLING**2, nn.initializers.normal(0.01), name="cells")(grid)
    cells = depth_to_space(spread, UPSAMPLING)
    b, h, w, _ = cells.shape
    logits = 4.0 * jnp.einsum("bqc,bhwc->bqhw", Dense(CELL_DIM, name="looks")(queries), cells)
    return jax.nn.log_softmax(logits.reshape(b, -1, h * w), axis=-1).reshape(b, -1, h, w)


def pooled(p: Float[Array, "b q h w"], grid: Float[Array, "b g g d"]) -> Float[Array, "b q d"]:
    """The mean of the tokens whose cells a heatmap lies on."""
    b, q, h, w = p.shape
    share = p.reshape(b, q, h // UPSAMPLING, UPSAMPLING, w // UPSAMPLING, UPSAMPLING).sum((3, 5))
    return jnp.einsum("bqgk,bgkd->bqd", share, grid)


def object_heads(x: Float[Array, "b q d"], head_dim: int, num_classes: int) -> tuple[Array, Array, Array, Array]:
    """Place [b,q,3] (in the crop's sides and depth behind the wrist), rotation, confidence and classes of queries.

    Called in a module's compact method, whose layers these become.
    """
    place = head(3)(nn.relu(Dense(head_dim)(x)))
    six = head(6)(nn.relu(Dense(head_dim)(x)))
    rotation = rotations.from_6d(six * 10.0 + jnp.asarray(IDENTITY_6D)[None, None])
    return place, rotation, head(1)(x)[..., 0], head(num_classes)(x)
