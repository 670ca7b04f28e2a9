"""Figures of hands, objects and contacts: batched, masked, one per sample, so that a caller can pool a whole data set.

Metres in, metres out (pixels where the name says `_px`). The figure of a sample whose mask is empty is 0;
`mean` with a mask of samples leaves it out.
"""

from amt.metrics.common import joint_errors, mean
from amt.metrics.contacts import (
    ContactCounts,
    contact_counts,
    excess_force_share,
    force_error,
    kind_accuracy,
    nearest_contact,
    precision_recall_f1,
)
from amt.metrics.hand import error_2d_px, errors_2d_px, mpjpe, pa_mpjpe, pck, pck_auc, per_joint
from amt.metrics.objects import add, add_s, average_recall, mspd_px, mssd, position_error, recall, surface_points
from amt.metrics.watch import attention_entropy, entropy_shares, jitter, spread, spread_ratio

__all__ = [
    "ContactCounts",
    "add",
    "add_s",
    "attention_entropy",
    "average_recall",
    "contact_counts",
    "error_2d_px",
    "entropy_shares",
    "errors_2d_px",
    "excess_force_share",
    "force_error",
    "jitter",
    "joint_errors",
    "kind_accuracy",
    "mean",
    "mpjpe",
    "mspd_px",
    "mssd",
    "nearest_contact",
    "pa_mpjpe",
    "pck",
    "pck_auc",
    "per_joint",
    "position_error",
    "precision_recall_f1",
    "recall",
    "spread",
    "spread_ratio",
    "surface_points",
]
