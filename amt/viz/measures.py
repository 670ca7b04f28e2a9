"""Which figures of an evaluation stand in which table of its report, in which unit, beside which baseline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amt.evaluation.contacts import LIMITS_MM
from amt.viz.sections import Table, between

Figures = Mapping[str, Any]  # of evaluate.json, before it is written


class Measure(NamedTuple):
    """One row: words, the figure's name, that of the baseline ('': none), unit, decimals. `%` are shares of 1."""

    words: str
    name: str
    baseline: str = ""
    unit: str = "mm"
    digits: int = 1


HAND = (
    Measure("joints, absolute", "absolute_mpjpe_mm"),
    Measure("joints, root-relative", "mpjpe_mm", "mean_mpjpe_mm"),
    Measure("joints, root-relative, median of the frames", "median_mpjpe_mm"),
    Measure("joints, root-relative, the side given", "given_side_mpjpe_mm", "mean_mpjpe_mm"),
    Measure(
        "joints, root-relative, beside the mean turned by the crop's true roll", "mpjpe_mm", "mean_aligned_mpjpe_mm"
    ),
    Measure("joints, aligned (PA)", "pa_mpjpe_mm", "mean_skeleton_pa_mpjpe_mm"),
    Measure("distance of the wrist", "wrist_depth_mm"),
    Measure("joints in the image, label box at 224 px", "error_2d_px", "mean_error_2d_px", "px"),
    Measure("joints in the image within 0.1 of the label box", "pck_2d_share", "mean_pck_2d_share", "%"),
    Measure("hand found", "hand_found_share", "", "%"),
    Measure("side right, decided for a video", "side_right_share", "", "%"),
    Measure("side right, frame by frame", "still_side_right_share", "", "%"),
    Measure("centre of the found box, of its side", "finder_center_share", "", "%"),
    Measure("angle of the found box", "finder_angle_deg", "", "degrees"),
)
OBJECTS = (
    Measure("object right", "object_class_right_share", "", "%"),
    Measure("centre, from the wrist", "object_position_mm", "mean_object_position_mm"),
    Measure("ADD", "add_mm", "mean_add_mm"),
    Measure("ADD below 0.1 diameters", "add_recall", "mean_add_recall", "%"),
    Measure("ADD-S", "add_s_mm", "mean_add_s_mm"),
    Measure("ADD-S below 0.1 diameters", "add_s_recall", "mean_add_s_recall", "%"),
    Measure("MSSD", "mssd_mm", "mean_mssd_mm"),
    Measure("MSSD, average recall of BOP's limits", "mssd_recall", "mean_mssd_recall", "%"),
    Measure("MSPD", "mspd_px", "mean_mspd_px", "px"),
    Measure("MSPD, average recall of BOP's limits", "mspd_recall", "mean_mspd_recall", "%"),
)
CONTACTS = (
    Measure("kind right", "contact_kind_right_share", "commonest_contact_kind_share", "%"),
    Measure("force", "contact_force_error_n", "zero_contact_force_error_n", "N"),
    Measure("forces above 10 N", "contact_force_above_10n_share", "", "%"),
)


AREAS = tuple(
    Measure(f"AUC, {words}, {span}", f"{name}pck_auc_{limits}", baseline and f"{baseline}pck_auc_{limits}", "", 3)
    for limits, span in (("50mm", "0 to 50 mm"), ("20_50mm", "20 to 50 mm"))
    for words, name, baseline in (
        ("root-relative", "", "mean_"),
        ("absolute", "absolute_", ""),
        ("aligned", "pa_", "mean_skeleton_pa_"),
    )
)
MOTION = (
    Measure("in the camera's frame", "jitter_m_s2", "true_jitter_m_s2", "m/s²"),
    Measure("from the wrist", "relative_jitter_m_s2", "true_relative_jitter_m_s2", "m/s²"),
)
COLLAPSE = (
    Measure("spread of root-relative joints", "spread_ratio", "", "of the labels'", 2),
    Measure("attention entropy, mean over heads", "attention_entropy", "", "of even attention's", 2),
    Measure("attention entropy, least of a head", "least_attention_entropy", "", "of even attention's", 2),
)
SPEED = (
    Measure("evaluation", "samples_per_s", unit="frames/s"),
    Measure("the network alone, frames in memory", "inference_samples_per_s", unit="frames/s"),
    Measure("evaluation of the network alone", "share_of_inference_speed", unit="%"),
    Measure("all", "evaluate_s", unit="s"),
)


def contact_points_table(figures: Figures) -> tuple[Table, ...]:
    """Precision, recall and F1 of contact points within several distances, as they are and from the wrist."""
    rows = []
    for place, words in (("", "in the camera's frame"), ("relative_", "from the wrist")):
        for mm in LIMITS_MM:
            names = [f"contact_{part}_{place}{mm}mm" for part in ("precision", "recall", "f1")]
            if known(figures.get(names[0])):
                ours = (put(figures, name, "%") for name in names)
                rows.append((f"within {mm} mm, {words}", *ours, put(figures, f"mean_{names[2]}", "%")))
    head = ("contact points, %", "precision", "recall", "F1", "F1 of the mean hand's fingertips")
    return (Table("Where hand and object touch", head, rows),) if rows else ()


def measures_table(caption: str, measures: Sequence[Measure], figures: Figures, baseline: str) -> tuple[Table, ...]:
    """One table of what has been measured, none where nothing has. `baseline` heads its column ('': none)."""
    rows = [
        (
            f"{m.words}, {m.unit}" if m.unit else m.words,
            put(figures, m.name, m.unit, m.digits),
            *([put(figures, m.baseline, m.unit, m.digits)] if baseline else []),
        )
        for m in measures
        if known(figures.get(m.name))
    ]
    head = ("", "these weights", *([baseline] if baseline else []))
    return (Table(caption, head, rows),) if rows else ()


def known(value: float | None) -> bool:
    """Whether it was measured."""
    return value is not None and math.isfinite(value)


def put(figures: Figures, name: str, unit: str = "mm", digits: int = 1) -> str:
    """A figure with its interval, where it has one; shares in percent."""
    factor = 100 if unit == "%" else 1
    ends = figures.get("intervals", {}).get(name, (None, None))
    return between(*(None if x is None else factor * x for x in (figures.get(name), *ends)), digits)
