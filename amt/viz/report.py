"""The report: one HTML file without any outside reference, readable on a phone and in the dark.

Plots are inline SVG that takes its colours from the page, so they follow its light and dark theme.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from amt.structs import Trajectory
from amt.viz.pages import Picture, write_page

PLOT_WIDTH, PLOT_HEIGHT = 600, 120


@dataclass(frozen=True)
class Report:
    """What a report shows. `limits` are the lower and upper joint limits (radians) in the trajectory's order.

    Rows of `objects` and `contacts` are column name -> text. `replay_note` stands below the replay pictures,
    or in their place.
    """

    title: str
    summary: Mapping[str, str]
    warnings: Sequence[str]
    overlay: Sequence[Picture]
    replay: Sequence[Picture]
    replay_note: str
    trajectory: Trajectory
    limits: Float[np.ndarray, "22 2"]
    objects: Sequence[Mapping[str, str]] = ()
    contacts: Sequence[Mapping[str, str]] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""


def write_report(path: str | Path, report: Report) -> None:
    """Renders a report into one HTML file."""
    trajectory = report.trajectory
    time, valid, qpos = (np.asarray(x) for x in (trajectory.time, trajectory.valid, trajectory.qpos))
    write_page(
        path,
        "report.html.j2",
        report=report,
        plots=[
            joint_plot(name, time, values, limit)
            for name, values, limit in zip(trajectory.names, qpos.T, report.limits, strict=True)
        ],
        gaps=validity_gaps(time, valid),
        duration=float(time[-1] - time[0]),
        size=(PLOT_WIDTH, PLOT_HEIGHT),
    )


def contact_sheet(count: int, total: int) -> list[int]:
    """Indices of `count` frames spread evenly over `total`, first and last included."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def joint_plot(
    name: str, time: Float[np.ndarray, " T"], qpos: Float[np.ndarray, " T"], limit: Float[np.ndarray, "2"]
) -> dict[str, str | float]:
    """One joint over time as SVG coordinates: the range that it uses, and a limit where that is near.

    A UR5e joint may turn by 12 radians while it moves a tenth of one: the whole range would show nothing.
    """
    low, high = float(qpos.min()), float(qpos.max())
    middle, span = (low + high) / 2, max(high - low, 0.2)
    bottom, top = max(middle - 0.65 * span, limit[0] - 0.05), min(middle + 0.65 * span, limit[1] + 0.05)
    # Thousands of points in a plot of a few hundred pixels only make the file heavy.
    keep = np.unique(np.linspace(0, len(time) - 1, min(len(time), PLOT_WIDTH)).astype(int))
    x = PLOT_WIDTH * _fraction(time, time[0], time[-1])

    def height(value: float | np.ndarray) -> np.ndarray:
        return PLOT_HEIGHT * (1 - _fraction(np.asarray(value, np.float64), bottom, top))

    y = height(qpos)
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(x[keep], y[keep], strict=True)]
    if len(points) == 1:
        points.append(f"{PLOT_WIDTH},{y[0]:.1f}")
    return {
        "name": name,
        "points": " ".join(points),
        "limit_lines": [round(float(height(value)), 1) for value in limit if bottom <= value <= top],
        "bottom": f"{bottom:.2f}",
        "top": f"{top:.2f}",
        "range": f"{low:.2f} to {high:.2f}",
        "limits": f"{limit[0]:.2f} to {limit[1]:.2f}",
        "closest": f"{min(low - limit[0], limit[1] - high):.2f}",
    }


def validity_gaps(time: Float[np.ndarray, " T"], valid: Bool[np.ndarray, " T"]) -> list[tuple[float, float]]:
    """The spans without a hand, as (x, width) in plot coordinates."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], valid, [True]]).astype(np.int8)))
    x = PLOT_WIDTH * np.arange(len(time) + 1) / len(time)
    if len(time) > 1:
        x = PLOT_WIDTH * _fraction(np.append(time, 2 * time[-1] - time[-2]), time[0], time[-1]).clip(0, 1)
    return [
        (round(float(x[a]), 1), round(max(float(x[b] - x[a]), 1.0), 1))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def _fraction(value: np.ndarray, low: float, high: float) -> np.ndarray:
    return (value - low) / (high - low) if high > low else np.zeros_like(value)
