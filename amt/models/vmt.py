"""VMT, the model that amt grew out of: three transformers from scratch for hand, objects and contacts.

It has neither a hand model nor heatmaps: joints come straight from pooled tokens. Layers are those of the rest. Its
patches have position embeddings: without them it collapsed to one constant pose.
"""

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models.contacts import ContactOutput, contact_heads
from amt.models.encoder import normalise
from amt.models.keypoints import MEAN_LOG_SCALE, to_camera
from amt.models.layers import (
    BlockConfig,
    Dense,
    LayerNorm,
    Mlp,
    PositionEmbedding2D,
    head,
    space_to_depth,
    through_blocks,
)
from amt.models.objects import ObjectOutput, object_heads

PATCH = 16  # pixels
HAND_SCALE = 10.0  # metres to decimetres: hand-sized numbers become order one
JOINT_DIM, CONFIDENCE_DIM, SHAPE_DIM = 1024, 256, 256  # hidden layers of the hand's heads


@flax.struct.dataclass
class VmtHand:
    """Joints in the crop's camera frame, metres; logits of their confidence; shape; the tokens behind them.

    `place` is the wrist's in crop sides (0..1), `scale` the metric width that the crop covers at its depth
    (`amt.models.keypoints`).
    """

    joints: Float[Array, "b 21 3"]
    place: Float[Array, "b 2"]
    scale: Float[Array, " b"]
    confidence: Float[Array, "b 21"]
    betas: Float[Array, "b 10"]
    tokens: Float[Array, "b n d"]


@flax.struct.dataclass
class VmtOutput:
    """What each encoder says, in the crop's camera frame."""

    hand: VmtHand
    objects: ObjectOutput
    contacts: ContactOutput

    @property
    def joints(self) -> Float[Array, "b 21 3"]:
        return self.hand.joints

    @property
    def wrist(self) -> Float[Array, "b 3"]:
        return self.hand.joints[:, 0]


class PatchTransformer(nn.Module):
    """Patches of 16 x 16 pixels, 2D positions, transformer blocks; with `num_queries` learned tokens behind them.

    `positions` False leaves the embeddings out, for the study of what that does.
    """

    width: int
    depth: int
    block: BlockConfig
    num_queries: int = 0
    positions: bool = True

    @nn.compact
    def __call__(self, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b n_and_queries d"]:
        x = Dense(self.width, name="patches")(space_to_depth(normalise(image), PATCH))
        x = PositionEmbedding2D(name="positions")(x) if self.positions else x
        x = x.reshape(len(image), -1, self.width)
        if self.num_queries:
            queries = self.param("queries", nn.initializers.normal(0.02), (self.num_queries, self.width))
            x = jnp.concatenate([x, jnp.broadcast_to(queries[None], (len(image), *queries.shape))], axis=1)
        return LayerNorm()(through_blocks(self.block, self.depth, x)[-1])


class VmtHandEncoder(nn.Module):
    """Pooled tokens to the wrist's place and scale, to joints around it, their confidence, and the shape."""

    encoder: PatchTransformer
    image_size: int

    @nn.compact
    def __call__(self, image: UInt8[Array, "b h w 3"], K: Float[Array, "b 3 3"]) -> VmtHand:
        tokens = self.encoder(image)
        pooled = tokens.mean(1)
        answer = head(3)(pooled)
        place, scale = 0.5 + answer[:, :2], jnp.exp(answer[:, 2] + MEAN_LOG_SCALE)
        wrist = to_camera(place[:, None], jnp.zeros((len(image), 1)), scale, K, self.image_size)
        around = Mlp((JOINT_DIM,), 63, name="joints")(pooled).reshape(-1, 21, 3) / HAND_SCALE
        confidence = Mlp((CONFIDENCE_DIM,), 21, bias=2.0, name="confidence")(pooled)
        betas = Mlp((SHAPE_DIM,), 10, name="shape")(pooled)
        return VmtHand(wrist + around - around[:, :1], place, scale, confidence, betas, tokens)


class VmtObjectHeads(nn.Module):
    """`object_heads` as a component of its own."""

    hidden_dim: int
    num_classes: int

    @nn.compact
    def __call__(self, queries: Float[Array, "b q d"]) -> tuple[Array, Array, Array, Array]:
        return object_heads(queries, self.hidden_dim, self.num_classes)


class VmtContactEncoder(nn.Module):
    """Queries among the tokens of hand and objects, seen through one linear layer each."""

    width: int
    depth: int
    block: BlockConfig
    num_queries: int

    @nn.compact
    def __call__(self, hand: VmtHand, objects: Float[Array, "b m d"]) -> ContactOutput:
        b = len(objects)
        queries = self.param("queries", nn.initializers.normal(0.02), (self.num_queries, self.width))
        x = jnp.broadcast_to(queries[None], (b, *queries.shape))
        seen = [Dense(self.width, name="hand")(hand.tokens), Dense(self.width, name="objects")(objects)]
        x = jnp.concatenate([x, *seen], axis=1)
        x = LayerNorm()(through_blocks(self.block, self.depth, x)[-1][:, : self.num_queries])
        return contact_heads(x, hand.joints.mean(1, keepdims=True), hand.scale)


class Vmt(nn.Module):
    """The three encoders, each with its own look at the image; the contacts see what the other two made of it.

    What amt's perception is given beside them, a hand model and noise for a refiner, it has no use for.
    """

    image_size: int
    hand_encoder: VmtHandEncoder
    object_encoder: PatchTransformer
    contact_encoder: VmtContactEncoder
    num_classes: int
    object_head_dim: int

    @nn.compact
    def __call__(
        self, image: UInt8[Array, "b h w 3"], K: Float[Array, "b 3 3"], hand_model=None, point_noise=None
    ) -> VmtOutput:
        hand = self.hand_encoder(image, K)
        tokens = self.object_encoder(image)
        queries = tokens[:, -self.object_encoder.num_queries :]
        place, *rest = VmtObjectHeads(self.object_head_dim, self.num_classes, name="object_heads")(queries)
        position = to_camera(0.5 + place[..., :2], place[..., 2], hand.scale, K, self.image_size)
        objects = ObjectOutput(position, *rest, queries)
        return VmtOutput(hand, objects, self.contact_encoder(hand, tokens))
