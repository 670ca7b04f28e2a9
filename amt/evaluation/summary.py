"""Figures of all frames together and of groups of them, out of their table, with bootstrap intervals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from amt import metrics
from amt.data.ycb import OBJECTS
from amt.evaluation.bootstrap import DRAWS, LEVEL, Bootstrap, Totals
from amt.evaluation.contacts import contact_figures
from amt.evaluation.samples import Samples
from amt.hand.skeleton import JOINT_NAMES_21

SHARES = {  # of two means
    "mpjpe_share_of_mean": ("mpjpe_mm", "mean_mpjpe_mm"),
    "error_2d_share_of_mean": ("error_2d_px", "mean_error_2d_px"),
    "error_2d_share_of_mean_true_box": ("error_2d_px", "mean_true_box_error_2d_px"),
    "pa_share_of_mean_skeleton": ("pa_mpjpe_mm", "mean_skeleton_pa_mpjpe_mm"),
    "given_side_mpjpe_share_of_mean": ("given_side_mpjpe_mm", "mean_mpjpe_mm"),
    "given_side_error_2d_share_of_mean": ("given_side_error_2d_px", "mean_error_2d_px"),
}
MEDIANS = ("mpjpe_mm", "pa_mpjpe_mm", "error_2d_px", "finder_angle_deg")
GROUPED = ("mpjpe_mm", "absolute_mpjpe_mm", "pa_mpjpe_mm", "given_side_mpjpe_mm", "mean_mpjpe_mm", "error_2d_px")
GROUPED += ("pck_auc_50mm", "add_s_mm", "add_s_recall", "object_position_mm", "contact_f1_5mm", "contact_f1_20mm")
VISIBLE_BINS = (0.5, 0.75, 0.9)  # shares of the joints
DISTANCE_BINS = (0.5, 0.7, 0.9)  # metres
JOINT_ERRORS = {
    "root_relative_mm": "root_relative_joint_error_mm",
    "absolute_mm": "joint_error_mm",
    "pa_mm": "aligned_joint_error_mm",
    "error_2d_px": "joint_error_2d_px",
}
COUNT = " n"  # behind a column's name: of frames, or joints, in which it has a value


def summarise(samples: Samples, seed: int = 0) -> dict[str, Any]:
    """Every figure of the table: means of its columns (NaN where no frame has one), medians, shares of the baselines,
    contacts; `intervals` of all but medians; `groups` and `joints`, each a list with figures and intervals.
    """
    bootstrap, columns = Bootstrap.of(samples, seed), summed(samples)
    total, drawn = bootstrap.totals(columns)
    figures, draws = figures_of(total), figures_of(drawn)
    recordings = bootstrap.draws.shape[1]
    return {
        **{name: float(value) for name, value in figures.items()},
        **{f"median_{name}": float(np.median(samples.figures[name])) for name in MEDIANS if name in samples.figures},
        "spread_ratio": _spread_ratio(samples),
        "visible_by_seg_share": float(samples.visible_by_seg.mean()),
        "samples": len(samples),
        "intervals": {name: bootstrap.interval(draws[name]) for name in figures},
        "bootstrap": f"{LEVEL:.0%} of {DRAWS} draws, seed {seed}, of {recordings} recordings with all their cameras",
        "groups": {name: _groups(samples, columns, bootstrap, values) for name, values in groupings(samples).items()},
        "joints": list(_joints(samples, bootstrap)),
    }


def summed(samples: Samples) -> dict[str, Float[np.ndarray, " n"]]:
    """What adds up over frames: every column, 0 where it has no value, beside it where it has one, and all counts."""
    relative, visible = samples.root_relative_joint_error_mm.astype(np.float64), samples.joint_visible
    columns = {}
    for name, joints in (("visible_joint_mpjpe_mm", visible), ("hidden_joint_mpjpe_mm", ~visible)):
        columns |= {name: (relative * joints).sum(-1), f"{name}{COUNT}": joints.sum(-1)}
    for name, values in samples.figures.items():
        known = np.isfinite(values)
        columns |= {name: np.where(known, values, 0.0), f"{name}{COUNT}": known}
    return columns | samples.counts


def figures_of(total: Totals) -> Totals:
    """Figures out of sums of `summed` columns, of which there may be many at once."""
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = {name: total[name] / total[f"{name}{COUNT}"] for name in total if f"{name}{COUNT}" in total}
        shares = {name: parts for name, parts in SHARES.items() if set(parts) <= set(figures)}
        figures |= {name: figures[ours] / figures[theirs] for name, (ours, theirs) in shares.items()}
    return figures | contact_figures(total)


def groupings(samples: Samples) -> dict[str, Shaped[np.ndarray, " n"]]:
    """By which groups are made, the group of every frame as text."""
    names = {0: "none"} | {i: obj.name for i, obj in OBJECTS.items()}
    states = {"no object": samples.object_id == 0, "touching": samples.touches == 1, "apart": samples.touches == 0}
    found = {
        "subject": samples.subject,
        "camera": samples.camera,
        "side": np.where(samples.is_left, "left", "right"),
        "object": np.array([names[i] for i in samples.object_id.tolist()]),
        "grasp": np.select(list(states.values()), list(states), "not known"),
        "visibility": _binned(samples.visible_share, VISIBLE_BINS),
        "distance_m": _binned(samples.distance_m, DISTANCE_BINS),
    }
    return found | ({"grasp_kind": samples.grasp_kind} if (samples.grasp_kind != "").any() else {})


def _binned(values, edges) -> Shaped[np.ndarray, " n"]:
    texts = [f"< {edges[0]}", *(f"{a} to {b}" for a, b in zip(edges[:-1], edges[1:], strict=True)), f">= {edges[-1]}"]
    return np.array(texts)[np.digitize(values, edges)]


def _groups(samples, columns, bootstrap: Bootstrap, values) -> list[dict[str, Any]]:
    found = []
    for value in np.unique(values):
        rows = values == value
        total, drawn = bootstrap.totals(columns, rows)
        figures, draws = figures_of(total), figures_of(drawn)
        names = [name for name in GROUPED if name in figures]
        recordings = len(np.unique(bootstrap.recording[rows]))
        found.append(
            {
                "value": str(value),
                "samples": int(rows.sum()),
                "recordings": recordings,
                **{name: float(figures[name]) for name in names},
                "intervals": {name: bootstrap.interval(draws[name]) for name in names},
            }
        )
    return found


def _joints(samples: Samples, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    for k, name in enumerate(JOINT_NAMES_21):
        errors = {key: getattr(samples, column)[:, k].astype(np.float64) for key, column in JOINT_ERRORS.items()}
        total, drawn = bootstrap.totals(errors | {COUNT: np.ones(len(samples))})
        yield {
            "joint": name,
            "visible_share": float(samples.joint_visible[:, k].mean()),
            **{key: float(total[key] / total[COUNT]) for key in errors},
            "intervals": {key: bootstrap.interval(drawn[key] / drawn[COUNT]) for key in errors},
        }


def _spread_ratio(samples: Samples) -> float:
    everyone = np.ones(len(samples), bool)
    return float(metrics.spread_ratio(samples.joints_m, samples.true_joints_m, everyone))
