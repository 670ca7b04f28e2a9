"""`report.html` of an evaluation: what was measured, beside what others report and what predicting the means gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amt.data.dexycb import DexYCB
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.samples import FILE as TABLE
from amt.evaluation.samples import Samples
from amt.evaluation.summary import summarise
from amt.hand import HandModel
from amt.viz.breakdown_sections import breakdown_section, groups_section, motion_section, speed_section
from amt.viz.comparison_section import comparison_section
from amt.viz.evaluation_frames import frames_section
from amt.viz.hand_sections import joints_section, mean_errors_mm, pck_section
from amt.viz.measures import HAND, Figures, known, measures_table, put
from amt.viz.other_sections import every_figure, objects_section, official_section
from amt.viz.published import PUBLISHED
from amt.viz.robot_section import read_trials, robot_section
from amt.viz.sections import UNKNOWN, EvaluationPage, Section, Table

FILE = "report.html"
DEXYCB_SEQUENCES = 1000
FEW = 20  # recordings, below which drawing them again says too little
COLLAPSED = 0.3  # spread ratio below which predictions differ too little from frame to frame


def write_evaluation_report(
    workdir: Path,
    samples: Samples,
    source: DexYCB,
    mean: TrainingMean,
    figures: Figures,
    comparison: Mapping[str, Any] | None,
    configuration: str,
    hand: HandModel,
) -> None:
    """Writes the page into `workdir`; `figures` are those of evaluate.json, `comparison` that of comparison.json. The
    robot's trials there are part of it. `hand` is the model of the weights.

    Raises: UserError where these are damaged.
    """
    name, sha256 = samples.about["weights"], samples.about["weights_sha256"]
    differences, theirs = protocol_differences(source, samples), mean_errors_mm(samples, mean)
    recordings = len(np.unique(np.stack([samples.subject, samples.sequence]), axis=1).T)
    data = f"{source.root.name}, split {source.split}, part {source.part}"
    EvaluationPage(
        title=f"{name} on {source.root.name}",
        lead=f"{len(samples)} frames of {len(np.unique(samples.clip))} videos of {data}; weights {sha256}. Every frame "
        "on its own, found by the weights themselves: no box, no side, no place is given. Brackets: 95% intervals.",
        warnings=warnings(figures, differences, recordings),
        sections=(
            summary_section(figures, differences),
            pck_section(samples, theirs, figures),
            joints_section(theirs, figures),
            breakdown_section(figures),
            groups_section(figures),
            *([comparison_section(comparison, samples, source, hand)] if comparison else []),
            frames_section(samples, source, hand),
            objects_section(samples, figures),
            motion_section(figures),
            robot_section(read_trials(workdir), sha256),
            *speed_section(figures),
            *official_section(figures),
            every_figure(figures),
        ),
        configuration=configuration,
    ).write(workdir / FILE)


def write_robot_report(workdir: Path, source: DexYCB, mean: TrainingMean, configuration: str, hand: HandModel) -> None:
    """Writes the page of the trials in `workdir`; with all else if these weights' table of frames is there too."""
    trials = read_trials(workdir)
    if (workdir / TABLE).exists():
        samples = Samples.load(workdir / TABLE)
        same = {"root": str(source.root.resolve()), "split": source.split, "part": source.part}
        same["weights_sha256"] = trials.weights_sha256
        if samples.about.items() >= same.items():
            return write_evaluation_report(
                workdir, samples, source, mean, summarise(samples), None, configuration, hand
            )
    EvaluationPage(
        title=f"{trials.weights} on {source.root.name}: the robot",
        lead=f"Videos of {source.root.name}, split {source.split}, part {source.part}; weights "
        f"{trials.weights_sha256}. What they see is measured by --mode=evaluate without config.eval.robot; in the same "
        "work directory it gives one page of both.",
        warnings=(),
        sections=(robot_section(trials, trials.weights_sha256),),
        configuration=configuration,
    ).write(workdir / FILE)


def protocol_differences(source: DexYCB, samples: Samples) -> list[str]:
    """Why figures do not compare with published ones of DexYCB's s0 test; empty where they do."""
    reasons = []
    if source.has_contacts or (source.root / "generator.json").exists():
        reasons.append("these images are generated")
    elif len(source.sequences) != DEXYCB_SEQUENCES:
        reasons.append(f"the data set has {len(source.sequences)} of DexYCB's {DEXYCB_SEQUENCES} sequences")
    if (source.split, source.part) != ("s0", "test"):
        reasons.append(f"this is {source.split} {source.part}, not s0 test")
    videos, total = len(np.unique(samples.clip)), len(source.clips())
    if videos < total:
        reasons.append(f"{videos} of {total} videos were evaluated")
    return reasons


def summary_section(figures: Figures, differences: Sequence[str]) -> Section:
    """The joints' errors beside those of others, with the protocol of each."""

    data = "DexYCB s0 test" if not differences else "not comparable: " + ", ".join(differences)
    rows = [
        (
            "these weights",
            *(put(figures, name) for name in ("absolute_mpjpe_mm", "mpjpe_mm", "pa_mpjpe_mm")),
            f"{data}; nothing given: hand, side and place are found in the whole image",
        ),
        (
            "predicting the training mean",
            UNKNOWN,
            *(put(figures, name) for name in ("mean_mpjpe_mm", "mean_skeleton_pa_mpjpe_mm")),
            "the same frames, without looking at them; aligned: the mean skeleton",
        ),
        *((*(text or UNKNOWN for text in one[:4]), f"{one.data}; {one.protocol}") for one in PUBLISHED),
    ]
    head = ("mean joint error (MPJPE), mm", "absolute", "root-relative", "aligned (PA)", "data and protocol")
    tables = (
        Table("Beside published results", head, rows),
        *measures_table("The hand", HAND, figures, "without looking"),
    )
    return Section("summary", "Summary", tables=tables)


def warnings(figures: Figures, differences: Sequence[str], recordings: int) -> list[str]:
    """What a reader has to know before the numbers."""
    notes = []
    if differences:
        notes.append(f"Not comparable with published results: {', '.join(differences)}.")
    if recordings < FEW:
        notes.append(f"Of {recordings} recordings only: intervals come out too narrow, differences may be chance.")
    if figures["pa_mpjpe_mm"] >= figures["mean_skeleton_pa_mpjpe_mm"]:
        notes.append("The aligned error is not below that of the mean skeleton: the hand's shape was not learned.")
    if figures["mpjpe_mm"] >= figures["mean_mpjpe_mm"]:
        notes.append("The root-relative error is not below that of the training mean: the pose was not learned.")
    ratio = figures.get("spread_ratio")
    if known(ratio) and ratio < COLLAPSED:
        notes.append(f"Predictions spread {ratio:.2f} times as far as the labels: they have collapsed to nearly one.")
    if figures.get("frames_unreadable"):
        notes.append(f"{figures['frames_unreadable']} frames could not be read; quarantine.jsonl names them.")
    return notes
