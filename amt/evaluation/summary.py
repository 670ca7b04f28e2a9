"""Figures of all frames together, out of their table."""

import numpy as np

from amt.evaluation.contacts import contact_figures
from amt.evaluation.samples import Samples

SHARES = {  # of two means
    "mpjpe_share_of_mean": ("mpjpe_mm", "mean_mpjpe_mm"),
    "error_2d_share_of_mean": ("error_2d_px", "mean_error_2d_px"),
    "error_2d_share_of_mean_true_box": ("error_2d_px", "mean_true_box_error_2d_px"),
    "pa_share_of_mean_skeleton": ("pa_mpjpe_mm", "mean_skeleton_pa_mpjpe_mm"),
    "given_side_mpjpe_share_of_mean": ("given_side_mpjpe_mm", "mean_mpjpe_mm"),
    "given_side_error_2d_share_of_mean": ("given_side_error_2d_px", "mean_error_2d_px"),
}
MEDIANS = ("mpjpe_mm", "pa_mpjpe_mm", "error_2d_px", "finder_angle_deg")


def summarise(samples: Samples) -> dict[str, float]:
    """The mean of every column, NaN where no frame has it, medians, shares of the baselines, and contacts."""
    columns = samples.figures
    figures = {k: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for k, v in columns.items()}
    figures |= {f"median_{name}": float(np.median(columns[name])) for name in MEDIANS}
    figures |= {name: figures[ours] / figures[theirs] for name, (ours, theirs) in SHARES.items()}
    contacts = contact_figures({name: x.sum() for name, x in samples.counts.items()})
    return figures | {"samples": len(samples)} | {name: float(x) for name, x in contacts.items()}
