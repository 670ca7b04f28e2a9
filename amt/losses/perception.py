"""All terms of the perception model together."""

from jaxtyping import Array, Float

from amt.hand import HandModel
from amt.losses.contacts import contact_losses
from amt.losses.hand import hand_losses, keypoint_losses
from amt.losses.labels import labels
from amt.losses.objects import object_losses
from amt.models.perception import PerceptionOutput
from amt.structs import Batch


def perception_losses(
    out: PerceptionOutput,
    batch: Batch,
    hand: HandModel,
    symmetries: Float[Array, "22 24 3 3"],
    joint_logits: Float[Array, " 21"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """All terms of the perception model by name; `joint_logits` as in `hand_losses`."""
    target = labels(batch, hand)
    return {
        **keypoint_losses(out.keypoints, batch),
        **hand_losses(out, batch, target, joint_logits),
        **object_losses(out.objects, out.keypoints_3d[:, 0], batch, symmetries),
        **contact_losses(out.contacts, batch, target),
    }
