"""The perception model: one crop in, hand, objects and contacts out, in the crop camera's frame."""

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.hand import HandModel
from amt.models.contacts import ContactDecoder, ContactOutput
from amt.models.encoder import Dinov2Encoder, PatchEncoder
from amt.models.hand import CoarseHand, CoarseHandHead, HandFeatures, MultiCoordinateEncoder
from amt.models.keypoints import KeypointHead, Keypoints, to_camera
from amt.models.layers import Mlp
from amt.models.objects import ObjectDecoder, ObjectOutput
from amt.models.refiner import PixelAlignedRefiner, RefinerConfig


@flax.struct.dataclass
class PerceptionOutput:
    """Every stage's answer; `joints` are the last and best, [b,21,3] metres in the crop's camera frame.

    `right` is the logit that the crop shows a right hand, which all the rest takes for granted.
    """

    keypoints: Keypoints
    keypoints_3d: Float[Array, "b 21 3"]
    coarse: CoarseHand
    hand: HandFeatures
    joints: Float[Array, "b 21 3"]
    right: Float[Array, " b"]
    objects: ObjectOutput
    contacts: ContactOutput

    @property
    def wrist(self) -> Float[Array, "b 3"]:
        return self.keypoints_3d[:, 0]


class Perception(nn.Module):
    """Encoder, keypoints, coarse hand, multi-coordinate hand, refiner, objects, contacts, in this order."""

    image_size: int
    encoder: PatchEncoder | Dinov2Encoder
    coarse_width: int
    hand_encoder: MultiCoordinateEncoder
    refiner: RefinerConfig
    object_decoder: ObjectDecoder
    contact_decoder: ContactDecoder

    @nn.compact
    def __call__(
        self,
        image: UInt8[Array, "b h w 3"],
        K: Float[Array, "b 3 3"],
        hand_model: HandModel,
        point_noise: Float[Array, "b 21 5"] | None = None,
    ) -> PerceptionOutput:
        features = self.encoder(image)
        keypoints = KeypointHead(name="keypoints")(features)
        points = to_camera(keypoints.uv, keypoints.depth, keypoints.scale, K, self.image_size)
        coarse_head = CoarseHandHead(self.coarse_width, name="coarse_hand")
        coarse = coarse_head(features, keypoints, K, self.image_size, hand_model)
        hand = self.hand_encoder(coarse, features)
        refine = PixelAlignedRefiner(self.refiner, self.image_size, name="joint_refiner")
        start = hand.joints if point_noise is None else disturbed(hand.joints, point_noise, K)
        joints = refine(start, hand.tokens, points, features.fine, K, keypoints.scale)
        evidence = jnp.concatenate([features.cls_token, hand.tokens.mean(1)], axis=-1)
        right = Mlp((self.coarse_width,), 1, name="side")(evidence)[:, 0] * 5.0
        objects = self.object_decoder(features, hand, keypoints, K, self.image_size)
        contacts = self.contact_decoder(hand, joints, objects.tokens, keypoints.scale)
        return PerceptionOutput(keypoints, points, coarse, hand, joints, right, objects, contacts)


def disturbed(
    points: Float[Array, "b n 3"], noise: Float[Array, "b n 5"], K: Float[Array, "b 3 3"]
) -> Float[Array, "b n 3"]:
    """Points moved by 3 metres of `noise`, and across the view by 2 pixels of it, at the depth where they are."""
    metres, pixels = noise[..., :3], noise[..., 3:]
    focal = jnp.stack([K[:, 0, 0], K[:, 1, 1]], axis=-1)
    across = pixels * jnp.maximum(points[..., 2:], 0.0) / focal[:, None]
    return points + metres + jnp.pad(across, ((0, 0), (0, 0), (0, 1)))


class Amt(nn.Module):
    """What is trained together and saved together: the finder and the perception model.

    With VMT (`amt.models.vmt`) as its perception it has no finder.
    """

    finder: nn.Module | None
    perception: nn.Module

    def __call__(self, frame, image, K, hand_model):
        """Both at once, for `init`; None where there is no finder."""
        found = None if self.finder is None else self.finder(frame)
        return found, self.perception(image, K, hand_model)

    def find(self, frame: UInt8[Array, "b s s 3"]):
        """Only the finder."""
        return self.finder(frame)

    def perceive(self, image: UInt8[Array, "b h w 3"], K: Float[Array, "b 3 3"], hand_model, point_noise=None):
        """Only the perception model; in training its refiner may start from joints that are off by `point_noise`."""
        return self.perception(image, K, hand_model, point_noise)
