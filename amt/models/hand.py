"""From image features to a hand: parameters and LBS first, then a look at every vertex from 22 frames."""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.geometry import rotations
from amt.hand import HandModel, skeleton
from amt.models.encoder import ImageFeatures
from amt.models.keypoints import Keypoints, to_camera
from amt.models.layers import BlockConfig, Dense, LayerNorm, Mlp, through_blocks

HAND_SCALE = 10.0  # metres to decimetres: hand-sized numbers become order one
IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@flax.struct.dataclass
class CoarseHand:
    """The hand that the parameters give, in the crop's camera frame, metres."""

    rotations: Float[Array, "b 16 3 3"]
    betas: Float[Array, "b 10"]
    transl: Float[Array, "b 3"]
    joints: Float[Array, "b 21 3"]
    vertices: Float[Array, "b 778 3"]
    T_joint: Float[Array, "b 16 4 4"]


class CoarseHandHead(nn.Module):
    """Global orientation, 15 joint rotations and shape, by a network that reads the keypoints: learned
    inverse kinematics. The root is the wrist keypoint, made metric through K; nothing here sees a label.

    The network reads the keypoints as a camera far away would see them, without K: the hand's size and pose are a
    function of the crop alone, and the focal length decides nothing but its distance.
    """

    width: int

    @nn.compact
    def __call__(
        self,
        features: ImageFeatures,
        keypoints: Keypoints,
        K: Float[Array, "b 3 3"],
        image_size: int,
        hand: HandModel,
    ) -> CoarseHand:
        b = features.cls_token.shape[0]
        keypoints = jax.lax.stop_gradient(keypoints)
        wrist = to_camera(keypoints.uv[:, :1], keypoints.depth[:, :1], keypoints.scale, K, image_size)
        places = jnp.concatenate([keypoints.uv, keypoints.depth[..., None]], axis=-1)
        relative = (places - places[:, :1]) * keypoints.scale[:, None, None] * HAND_SCALE
        x = jnp.concatenate([features.cls_token, relative.reshape(b, -1)], axis=-1)
        x = Mlp((self.width, self.width), 16 * 6 + 10)(x)
        identity = jnp.tile(jnp.asarray(IDENTITY_6D), 16)[None]
        matrices = rotations.from_6d((x[:, :96] * 5.0 + identity).reshape(b, 16, 6))
        betas = x[:, 96:]
        joints, vertices, T_joint = hand.from_rotations(matrices, betas, jnp.zeros((b, 3)))
        shift = wrist[:, 0] - joints[:, 0]
        frames = T_joint.at[:, :, :3, 3].add(shift[:, None])
        return CoarseHand(matrices, betas, shift, joints + shift[:, None], vertices + shift[:, None], frames)


def coordinate_frames(hand: CoarseHand) -> tuple[Float[Array, "b 22 3 3"], Float[Array, "b 22 3"]]:
    """Rotations and origins of 16 joint frames, 5 fingertip frames and the palm frame.

    A tip inherits its distal bone's rotation; the palm has the wrist's, at the mean of wrist and knuckles.
    """
    R = hand.T_joint[:, :, :3, :3]
    tips = hand.joints[:, jnp.asarray(skeleton.FINGERTIPS_21)]
    palm = hand.joints[:, jnp.asarray((0, 5, 9, 13, 17))].mean(1, keepdims=True)
    R = jnp.concatenate([R, R[:, jnp.asarray(skeleton.TIP_PARENTS)], R[:, :1]], axis=1)
    return R, jnp.concatenate([hand.T_joint[:, :, :3, 3], tips, palm], axis=1)


def multi_coordinates(hand: CoarseHand, stride: int) -> Float[Array, "b v 67"]:
    """Every `stride`-th vertex in 22 frames (66 numbers, decimetres) and its index / 778."""
    R, origin = coordinate_frames(hand)
    vertices = hand.vertices[:, ::stride]
    local = jnp.einsum("bfij,bvi->bvfj", R, vertices) - jnp.einsum("bfij,bfi->bfj", R, origin)[:, None]
    b, v = vertices.shape[:2]
    index = jnp.broadcast_to((jnp.arange(0, 778, stride, dtype=jnp.float32) / 778)[None, :, None], (b, v, 1))
    return jnp.concatenate([local.reshape(b, v, 66) * HAND_SCALE, index], axis=-1)


@flax.struct.dataclass
class HandFeatures:
    """A token per joint, the joints corrected, a confidence logit per joint, and the corrected shape."""

    tokens: Float[Array, "b 21 d"]
    joints: Float[Array, "b 21 3"]
    confidence: Float[Array, "b 21"]
    betas: Float[Array, "b 10"]


class MultiCoordinateEncoder(nn.Module):
    """PointNet over the vertices, attention pooling into 21 tokens, transformer layers that see the image.

    `vertex_stride` thins the vertices. `head_dims` are the hidden layers of the heads: joints, confidence, shape.
    """

    width: int
    depth: int
    block: BlockConfig
    point_widths: Sequence[int]
    vertex_stride: int
    head_dims: tuple[Sequence[int], Sequence[int], Sequence[int]]

    @nn.compact
    def __call__(self, hand: CoarseHand, features: ImageFeatures) -> HandFeatures:
        x = multi_coordinates(jax.lax.stop_gradient(hand), self.vertex_stride)
        for k, width in enumerate(self.point_widths):
            x = LayerNorm()(Dense(width)(x))
            x = nn.relu(x) if k + 1 < len(self.point_widths) else x
        queries = self.param("queries", nn.initializers.normal(0.02), (21, x.shape[-1]))
        weights = jax.nn.softmax(jnp.einsum("jc,bvc->bjv", queries, x), axis=-1)
        tokens = Dense(self.width)(jnp.einsum("bjv,bvc->bjc", weights, x))
        tokens = tokens + self.param("joint_embedding", nn.initializers.normal(0.02), (21, self.width))[None]
        tokens = LayerNorm()(through_blocks(self.block, self.depth, tokens, features.patch_tokens)[-1])
        joint_dims, confidence_dims, shape_dims = self.head_dims
        correction = Mlp(joint_dims, 3, name="joints")(tokens) / HAND_SCALE
        confidence = Mlp(confidence_dims, 1, bias=2.0, name="confidence")(tokens)[..., 0]
        betas = hand.betas + Mlp(shape_dims, 10, name="shape")(tokens.mean(1))
        return HandFeatures(tokens, hand.joints + correction, confidence, betas)
