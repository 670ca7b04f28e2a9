"""The robot's part of a report: how often it lifts what the human lifted, by where its commands come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amt.data import ycb
from amt.errors import UserError
from amt.evaluation.robot import summary
from amt.viz.charts import Spread, lying_bars
from amt.viz.sections import Section, Table, between, number, percent

FILE = "robot_trials.json"
HOW_TO = (
    "Not measured. --mode=evaluate --config.eval.robot=True plays the videos' commands in MuJoCo C; run in the same "
    "work directory, its figures stand here."
)
ORIGINS = {
    "true": "retargeting of the labels",
    "predicted": "retargeting of what is seen",
    "teacher": "the teacher, chosen by replay",
    "policy": "the policy",
}
COLUMNS = {
    "object_position_mm": ("object off its way, mm", 0),
    "wrist_mm": ("wrist off the lesson's, mm", 0),
    "tips_mm": ("fingertips off the lesson's, mm", 0),
    "peak_force_n": ("strongest contact, N", 0),
    "slip_mm": ("slip of what is lifted, mm", 1),
    "effort_rad2": ("effort, rad²", 4),
}


class Trials(NamedTuple):
    """What `robot_trials.json` holds: rows of `amt.modes.evaluate_robot`, and whose they are."""

    weights: str
    weights_sha256: str
    rows: list[dict[str, Any]]


def read_trials(workdir: Path) -> Trials | None:
    """None where there is no such file. Raises: UserError for a damaged one."""
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        trials = Trials(str(content["weights"]), content["weights_sha256"], content["trials"])
        for row in trials.rows:
            row["ycb_id"], [trial["lifted"] for trial in row["trials"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no trials can be read from it ({type(error).__name__}: {error}); expected the file of "
            "--config.eval.robot=True; delete it or run that again"
        ) from error
    return trials


def robot_section(trials: Trials | None, weights_sha256: str) -> Section:
    """Shares of lifts with 95% intervals, means of everything else, and lifts by object; of these weights only."""
    if trials is None:
        return Section("robot", "Robot", words=(HOW_TO,))
    if trials.weights_sha256 != weights_sha256:
        return Section(
            "robot",
            "Robot",
            words=(f"{FILE} here is of other weights ({trials.weights}, {trials.weights_sha256}). {HOW_TO}",),
        )
    rows = trials.rows
    origins = list(rows[0]["trials"])
    figures = summary({o: [_with_nan(row["trials"][o]) for row in rows] for o in origins})
    names = [ORIGINS.get(o, o) for o in origins]
    share, low, high = (
        100 * np.array([figures[f"{o}_lift_share{end}"] for o in origins]) for end in ("", "_low", "_high")
    )
    chart = lying_bars(
        f"Lifted, of {len(rows)} videos; lines are 95% intervals (Wilson)",
        "share of videos in which the object is lifted: "
        + ", ".join(f"{name} {value:.1f}%" for name, value in zip(names, share, strict=True)),
        names,
        Spread("lifted", share, low, high),
        "videos with a lift, %",
        x_range=(0, 100),
    )
    table = Table(
        f"Commands of {len(rows)} videos, played in MuJoCo C; means over the videos",
        ("commands from", "lifted, %", *(head for head, _ in COLUMNS.values())),
        [
            (
                name,
                between(share[k], low[k], high[k]),
                *(number(figures[f"{origin}_{column}"], digits) for column, (_, digits) in COLUMNS.items()),
            )
            for k, (origin, name) in enumerate(zip(origins, names, strict=True))
        ],
    )
    words = (
        "Lifted: 5 cm above its place throughout the last half second, with all contacts and MuJoCo's own solver. The "
        "robot's place, its first pose and the hand's side are given to all alike; a video without a hand that is "
        "seen counts as not lifted.",
    )
    return Section("robot", "Robot", words, (table, _by_object(rows, origins, names)), (chart,))


def _by_object(rows, origins, names) -> Table:
    numbers = sorted({row["ycb_id"] for row in rows})

    def line(number: int) -> tuple[str, ...]:
        here = [row["trials"] for row in rows if row["ycb_id"] == number]
        lifts = [sum(trials[o]["lifted"] for trials in here) for o in origins]
        return (ycb.OBJECTS[number].name, str(len(here)), *(percent(n / len(here), 0) for n in lifts))

    return Table("Lifted, by object", ("object", "videos", *names), [line(number) for number in numbers])


def _with_nan(trial: Mapping[str, float | None]) -> dict[str, float]:
    """JSON has null for what is not a number."""
    return {name: float("nan") if value is None else value for name, value in trial.items()}
