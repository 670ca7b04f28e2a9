"""All terms of a perception model together, amt's or VMT."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.hand import HandModel
from amt.losses.contacts import contact_losses, contact_placement, nearest
from amt.losses.hand import hand_losses, keypoint_losses, vmt_hand_losses
from amt.losses.labels import Labels, labels, to_grasped
from amt.losses.objects import object_losses
from amt.losses.regularisation import diversity, excess_force, flexion_angles, joint_limits, penetration
from amt.models.perception import PerceptionOutput
from amt.models.vmt import VmtOutput
from amt.structs import Batch

PHYSICAL = ("contact_placement", "physics_joint_limits", "physics_penetration", "physics_force", "diversity")


def perception_losses(
    out: PerceptionOutput | VmtOutput,
    batch: Batch,
    hand: HandModel,
    symmetries: Float[Array, "22 24 3 3"],
    joint_logits: Float[Array, " 21"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """All terms of the perception model by name; `joint_logits` as in `hand_losses`.

    VMT has those of what it predicts.
    """
    target = labels(batch, hand)
    if isinstance(out, VmtOutput):
        terms = vmt_hand_losses(out, batch, joint_logits)
    else:
        terms = keypoint_losses(out.keypoints, batch) | hand_losses(out, batch, target, joint_logits)
    return {
        **terms,
        **object_losses(out.objects, out.wrist, batch, symmetries),
        **contact_losses(out.contacts, batch, target),
    }


def physical_losses(
    out: PerceptionOutput | VmtOutput, batch: Batch, target: Labels, hand: HandModel
) -> dict[str, Float[Array, ""]]:
    """The terms `PHYSICAL` of one frame, which ask for no further label: contacts, the still hand, diversity.

    Contact points are held against the label's hand and grasped object, the predicted hand against the object from
    wrist to wrist: it teaches the pose, not the distance. Crops of no hand, or of the wrong side, ask for nothing.
    VMT has neither angles nor vertices: nothing limits or takes them out of the object.
    """
    shown = batch.hand_visible & ~batch.shows_left
    to_object, known = to_grasped(out.contacts.points, batch)
    to_hand = nearest(out.contacts.points, target.vertices)
    every_force = jnp.broadcast_to(shown[:, None], out.contacts.force.shape[:2])
    terms = {
        "contact_placement": contact_placement(out.contacts.confidence, to_hand, to_object, known),
        "physics_force": excess_force(out.contacts.force, every_force),
        "diversity": diversity(out.joints, shown),
    }
    if isinstance(out, VmtOutput):
        return terms
    shift = batch.joints_3d[:, :1] - out.coarse.joints[:, :1]
    clearance, _ = to_grasped(out.coarse.vertices + shift, batch)
    return terms | {
        "physics_joint_limits": joint_limits(flexion_angles(out.coarse.rotations, hand), shown),
        "physics_penetration": penetration(clearance, known),
    }
