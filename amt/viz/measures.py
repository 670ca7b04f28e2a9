"""Which figures of an evaluation stand in which table of its report, in which unit, beside which baseline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amt.evaluation.contacts import LIMITS_MM
from amt.viz.sections import UNKNOWN, Table, between, number

Figures = Mapping[str, Any]  # of evaluate.json, before it is written


class Measure(NamedTuple):
    """One row: its words, the figure's name, that of the baseline ('': none), the unit. `%` are shares of 1."""

    words: str
    name: str
    baseline: str = ""
    unit: str = "mm"


HAND = (
    Measure("joints, absolute", "absolute_mpjpe_mm"),
    Measure("joints, root-relative", "mpjpe_mm", "mean_mpjpe_mm"),
    Measure("joints, root-relative, roll of the crop given", "", "mean_aligned_mpjpe_mm"),
    Measure("joints, aligned (PA)", "pa_mpjpe_mm", "mean_skeleton_pa_mpjpe_mm"),
    Measure("joints, root-relative, side given", "given_side_mpjpe_mm", "mean_mpjpe_mm"),
    Measure("distance of the wrist", "wrist_depth_mm"),
    Measure("joints in the image, label box at 224 px", "error_2d_px", "mean_error_2d_px", "px"),
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
    Measure("MSPD", "mspd_px", "mean_mspd_px", "px"),
)
CONTACTS = (
    Measure("kind right", "contact_kind_right_share", "commonest_contact_kind_share", "%"),
    Measure("force", "contact_force_error_n", "zero_contact_force_error_n", "N"),
    Measure("forces above 10 N", "contact_force_above_10n_share", "", "%"),
)


def contact_points_table(figures: Figures) -> tuple[Table, ...]:
    """Precision, recall and F1 of contact points within several distances, as they are and from the wrist."""
    rows = []
    for place, words in (("", "in the camera's frame"), ("relative_", "from the wrist")):
        for mm in LIMITS_MM:
            names = [f"contact_{part}_{place}{mm}mm" for part in ("precision", "recall", "f1")]
            if known(figures.get(names[0])):
                ours = (_text(figures, name, "%") for name in names)
                rows.append((f"within {mm} mm, {words}", *ours, _text(figures, f"mean_{names[2]}", "%")))
    head = ("contact points, %", "precision", "recall", "F1", "F1 of the mean hand's fingertips")
    return (Table("Where hand and object touch", head, rows),) if rows else ()


def measures_table(caption: str, measures: Sequence[Measure], figures: Figures, baseline: str) -> tuple[Table, ...]:
    """One table of the measures that have been measured; none where none has. `baseline` heads its column."""
    rows = [
        (f"{m.words}, {m.unit}", _text(figures, m.name, m.unit), _text(figures, m.baseline, m.unit))
        for m in measures
        if known(figures.get(m.name))
    ]
    return (Table(caption, ("", "these weights", baseline), rows),) if rows else ()


def known(value: float | None) -> bool:
    """Whether it was measured."""
    return value is not None and math.isfinite(value)


def _text(figures: Figures, name: str, unit: str) -> str:
    if not name:
        return UNKNOWN
    factor = 100 if unit == "%" else 1
    value, low, high = (figures.get(f"{name}{end}") for end in ("", "_low", "_high"))
    value, low, high = (None if x is None else factor * x for x in (value, low, high))
    return between(value, low, high) if known(low) else number(value)
