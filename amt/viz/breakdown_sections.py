"""Where errors come from: by what is hidden, by distance, by object, subject, camera; motion, collapse and speed."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from amt.viz.charts import ACCENT, LIMIT, THIRD, Chart, Curve, Spread, intervals, lying_bars
from amt.viz.measures import COLLAPSE, MOTION, SPEED, Figures, known, measures_table
from amt.viz.sections import Section, Table, between, number, percent

Group = Mapping[str, Any]  # one of `amt.evaluation.summary`
ERRORS = {
    "mpjpe_mm": ("root-relative", ACCENT),
    "pa_mpjpe_mm": ("aligned (PA)", THIRD),
    "mean_mpjpe_mm": ("training mean", LIMIT),
}
COLUMNS = {
    "mpjpe_mm": "root-relative, mm",
    "pa_mpjpe_mm": "aligned, mm",
    "absolute_mpjpe_mm": "absolute, mm",
    "mean_mpjpe_mm": "training mean, root-relative, mm",
    "add_s_mm": "ADD-S of the object, mm",
}
WORDS = {
    "object": "object",
    "subject": "subject",
    "camera": "camera",
    "side": "hand",
    "grasp": "hand and object",
    "grasp_kind": "kind of grasp",
    "visibility": "share of visible joints",
    "distance_m": "distance of the wrist, m",
}


def breakdown_section(figures: Figures) -> Section:
    """Errors over visibility and distance, and of each object."""
    groups = figures["groups"]
    seen = figures["visible_by_seg_share"]
    rule = "the segmentation shows the hand at its place" if seen > 0.5 else "it lies in the image"
    words = [
        f"A joint is visible where {rule}"
        + (
            f" (known in {percent(seen, 0)} of the frames; elsewhere, where it lies in the image)."
            if 0 < seen < 1
            else "."
        )
    ]
    hidden, visible = (figures.get(f"{which}_joint_mpjpe_mm") for which in ("hidden", "visible"))
    if known(hidden) and known(visible):
        words.append(f"Visible joints are {visible:.1f} mm off, hidden ones {hidden:.1f} mm (root-relative).")
    charts = (
        _over("visibility", "Error over the share of joints that are visible", groups),
        _over("distance_m", "Error over the distance of the wrist from the camera", groups),
        _by_object(groups["object"]),
    )
    return Section("breakdown", "Where errors come from", tuple(words), charts=charts)


def groups_section(figures: Figures) -> Section:
    """The same for every group, as tables."""
    groups = figures["groups"]
    tables = tuple(_table(words, groups[name]) for name, words in WORDS.items() if len(groups.get(name, ())) > 1)
    said = f"Intervals: {figures['bootstrap']}."
    return Section("groups", "Groups", (said,), tables, folded=", ".join(table.head[0] for table in tables))


def motion_section(figures: Figures) -> Section:
    """Jitter beside that of the labels, and signs of collapse."""
    words = (
        "Every frame is seen on its own here: what jumps between frames counts as acceleration. The labels' own is "
        "what the hand really does.",
        "Spread: how far predictions differ from frame to frame, over how far labels do; 1 is alike, 0 is one answer "
        "for all. Attention entropy: 1 is even attention, 0 a single key.",
    )
    tables = (
        *measures_table("Acceleration of the joints", MOTION, figures, "labels"),
        *measures_table("Collapse", COLLAPSE, figures, ""),
    )
    return Section("motion", "Motion and collapse", words, tables)


def speed_section(figures: Figures) -> tuple[Section, ...]:
    """How fast the evaluation ran, on which devices; none where that was not measured."""
    device = jax.devices()[0]
    where = f"{os.cpu_count()} processor cores"
    if device.platform != "cpu":
        where = f"{len(jax.devices())} x {device.device_kind} and {where}"
    words = (
        f"On {where}. Frames are read, seen and compared at the same time; compiling counts where the cache is empty.",
    )
    tables = measures_table("Speed", SPEED, figures, "")
    return (Section("speed", "Speed", words, tables),) if tables else ()


def in_order(groups: Sequence[Group]) -> list[Group]:
    """By the number in their names: `< 0.5` before `0.5 to 0.7` before `>= 0.7`; names without one as they come."""

    def place(group: Group) -> float:
        text = str(group["value"])
        found = re.match(r"(?:>= )?([\d.]+)(?: to [\d.]+)?$", text)
        return float(found[1]) if found else -np.inf

    return sorted(groups, key=place)


def _over(grouping: str, caption: str, groups: Mapping[str, Sequence[Group]]) -> Chart:
    bins = in_order(groups[grouping])
    rows = [_spread(label, bins, name, color) for name, (label, color) in ERRORS.items()]
    listed = "; ".join(f"{g['value']}: {number(g['mpjpe_mm'])} mm, {g['samples']} frames" for g in bins)
    places = [f"{g['value']}\n{g['samples']}" for g in bins]
    return intervals(caption, f"{caption}, root-relative. {listed}", places, rows, f"{WORDS[grouping]}; frames", "mm")


def _by_object(groups: Sequence[Group]) -> Chart:
    ours, theirs = (_spread("these weights", groups, name) for name in ("mpjpe_mm", "mean_mpjpe_mm"))
    names = [f"{g['value']} ({g['samples']})" for g in groups]
    listed = ", ".join(f"{g['value']} {number(g['mpjpe_mm'])}" for g in groups)
    return lying_bars(
        "Root-relative error by the object in the hand (frames)",
        f"Root-relative error in millimetres by object: {listed}",
        names,
        ours,
        "mm",
        Curve("training mean", ours.value, theirs.value, LIMIT),
    )


def _spread(label: str, groups: Sequence[Group], name: str, color: str = ACCENT) -> Spread:
    ends = np.array([g["intervals"].get(name, (np.nan, np.nan)) for g in groups], float)
    return Spread(label, np.array([g[name] for g in groups], float), ends[:, 0], ends[:, 1], color)


def _table(words: str, groups: Sequence[Group]) -> Table:
    columns = {name: head for name, head in COLUMNS.items() if any(known(g.get(name)) for g in groups)}
    rows = [
        (
            str(g["value"]),
            str(g["samples"]),
            str(g["recordings"]),
            *(between(g.get(name), *g["intervals"].get(name, (None, None))) for name in columns),
        )
        for g in in_order(groups)
    ]
    return Table(f"By {words}", (words, "frames", "recordings", *columns.values()), rows)
