"""The part of a report that compares with an earlier evaluation, frame by frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amt.data.dexycb import DexYCB
from amt.evaluation.samples import Samples
from amt.hand import HandModel
from amt.viz.evaluation_frames import COUNT, picture
from amt.viz.measures import AREAS, HAND, OBJECTS, Measure
from amt.viz.sections import Frames, Section, Table, between, number, percent

MEASURES = {m.name: m for m in reversed((*HAND, *OBJECTS, *AREAS))}  # of several of one figure the first
MEASURES |= {f"contact_f1_{mm}mm": Measure(f"contact points within {mm} mm, F1", "", "", "%") for mm in (5, 20)}


def comparison_section(comparison: Mapping[str, Any], samples: Samples, source: DexYCB, hand: HandModel) -> Section:
    """`comparison` is that of `amt.evaluation.comparison`, `hand` the model of the weights."""
    counts = f"{comparison['samples']} frames are in both"
    counts += "".join(f", {comparison[f'samples_only_{side}']} only {side}" for side in ("here", "there"))
    words = (
        f"There: {comparison['weights']}. {counts}. The interval of a difference draws the same recordings for both; "
        "where it leaves out 0, the difference is more than chance. Better and worse: shares of the frames.",
    )
    head = ("", "there", "here", "difference", "better", "worse")
    figures = Table("What changed", head, [_row(row) for row in comparison["figures"]])
    return Section(
        "comparison",
        "Compared with an earlier evaluation",
        words,
        (figures, *_changed(comparison["frames"])),
        frames=_pictures(comparison["frames"], samples, source, hand),
    )


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    measure = MEASURES.get(row["name"], Measure(row["name"], row["name"], unit="", digits=3))
    factor = 100 if measure.unit == "%" else 1
    there, here, difference, low, high = (
        factor * x for x in (row["there"], row["here"], row["difference"], *row["interval"])
    )
    return (
        f"{measure.words}, {measure.unit}" if measure.unit else measure.words,
        number(there, measure.digits),
        number(here, measure.digits),
        between(difference, low, high, measure.digits),
        percent(row["better_share"], 0),
        percent(row["worse_share"], 0),
    )


def _changed(frames) -> tuple[Table, ...]:
    rows = [
        (
            f"{f['subject']}/{f['sequence']}, camera {f['camera']}, frame {f['frame']}",
            number(f["mpjpe_mm_there"]),
            number(f["mpjpe_mm_here"]),
        )
        for f in frames
    ]
    return (Table("The frames that changed most", ("root-relative error, mm", "there", "here"), rows),) if rows else ()


def _pictures(frames, samples: Samples, source: DexYCB, hand: HandModel) -> tuple[Frames, ...]:
    rows = np.searchsorted(samples.index, [f["index"] for f in frames])
    change = np.array([f["mpjpe_mm_here"] - f["mpjpe_mm_there"] for f in frames])
    shown = {"Became worse, as seen here": rows[change > 0], "Became better, as seen here": rows[change < 0]}
    return tuple(
        Frames(heading, [picture(samples, int(row), source, hand) for row in some[:COUNT]])
        for heading, some in shown.items()
        if len(some)
    )
