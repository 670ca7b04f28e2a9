"""Losses of perception and finder: every term is masked, has a name, and is finite on an empty mask.

Definitions follow DESIGN.md section 5. Places in the crop are compared in crop sides, lengths in decimetres,
angles in radians, so that every term is of order one at the start.
"""

from amt.losses.common import distance, masked_mean, smooth_l1
from amt.losses.contacts import contact_losses, contact_placement, nearest
from amt.losses.finder import finder_losses
from amt.losses.hand import (
    adaptive_mpjpe,
    hand_losses,
    joint_weights,
    keypoint_losses,
    reprojection,
    weight_evenness,
)
from amt.losses.labels import NUM_CONTACTS, Labels, contact_labels, labels, to_grasped
from amt.losses.objects import match, object_losses
from amt.losses.perception import PHYSICAL, perception_losses, physical_losses
from amt.losses.regularisation import (
    attention_entropy,
    diversity,
    excess_force,
    flexion_angles,
    joint_limits,
    kl_gains,
    penetration,
    velocity,
)
from amt.losses.schedules import SCHEDULES, total

__all__ = [
    "NUM_CONTACTS",
    "PHYSICAL",
    "SCHEDULES",
    "Labels",
    "adaptive_mpjpe",
    "attention_entropy",
    "contact_labels",
    "contact_losses",
    "contact_placement",
    "distance",
    "diversity",
    "excess_force",
    "finder_losses",
    "flexion_angles",
    "hand_losses",
    "joint_limits",
    "joint_weights",
    "keypoint_losses",
    "kl_gains",
    "labels",
    "masked_mean",
    "match",
    "nearest",
    "object_losses",
    "penetration",
    "perception_losses",
    "physical_losses",
    "reprojection",
    "smooth_l1",
    "to_grasped",
    "total",
    "velocity",
    "weight_evenness",
]
