"""The hand's part of a report: curves, and the joints one by one, beside predicting the training mean."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from amt.evaluation.baseline import TrainingMean
from amt.evaluation.samples import Samples
from amt.geometry import procrustes
from amt.metrics.hand import PCK_LIMIT, PCK_THRESHOLDS
from amt.viz.charts import LIMIT, Chart, Curve, Spread, curves, lying_bars
from amt.viz.measures import AREAS, Figures, measures_table
from amt.viz.sections import Section

JointErrors = dict[str, Float[np.ndarray, "n 21"]]  # by kind
THRESHOLDS_MM = np.linspace(0, 1000 * PCK_LIMIT, PCK_THRESHOLDS)


class Kind(NamedTuple):
    """One way to compare hands: which errors, what the mean predictor's curve is called, and a caption."""

    title: str
    baseline: str
    caption: str


KINDS = {
    "root_relative": Kind(
        "Root-relative", "training mean", "Both wrists at the same place: pose and direction of the hand count."
    ),
    "absolute": Kind(
        "Absolute",
        "training mean at the mean true place",
        "In the camera's frame: the place counts too. The dashed curve knows more than a training mean can: the mean "
        "place of these frames' wrists.",
    ),
    "aligned": Kind(
        "Aligned (PA)", "mean skeleton", "After the best scale, rotation and place: only the hand's shape counts."
    ),
}


def mean_errors_mm(samples: Samples, mean: TrainingMean) -> JointErrors:
    """Errors of every kind of who predicts the training's means without looking."""
    truth = samples.true_joints_m.astype(np.float64)
    relative = truth - truth[:, :1]
    skeleton = np.broadcast_to(mean.skeleton, truth.shape).astype(np.float32)
    aligned = np.asarray(procrustes.aligned(skeleton, samples.true_joints_m))
    placed = {
        "root_relative": mean.joints - relative,
        "absolute": mean.joints + truth[:, 0].mean(0) - truth,
        "aligned": aligned - truth,
    }
    return {kind: 1000 * np.linalg.norm(difference, axis=-1) for kind, difference in placed.items()}


def pck_section(samples: Samples, theirs: JointErrors, figures: Figures) -> Section:
    """Curves of all three kinds, and the areas below them; `theirs` are `mean_errors_mm`."""
    ours = {
        "root_relative": samples.root_relative_joint_error_mm,
        "absolute": samples.joint_error_mm,
        "aligned": samples.aligned_joint_error_mm,
    }
    charts = tuple(_pck_chart(kind, ours[kind], theirs[kind]) for kind in KINDS)
    words = (
        "PCK: the share of joints that are nearer to their label than a threshold, all frames and joints together, the "
        "wrist too, as in DexYCB's toolkit. AUC: the area below the curve, 1 at best.",
    )
    tables = measures_table("Areas below the curves", AREAS, figures, "training mean, mean skeleton")
    return Section("pck", "How near the joints are", words, tables, charts)


def joints_section(theirs: JointErrors, figures: Figures) -> Section:
    """Errors by joint beside `mean_errors_mm`."""
    names = [joint["joint"].replace("_", " ") for joint in figures["joints"]]
    charts = []
    for kind, key in (("root_relative", "root_relative_mm"), ("absolute", "absolute_mm"), ("aligned", "pa_mm")):
        value = np.array([joint[key] for joint in figures["joints"]])
        ends = np.array([joint["intervals"][key] for joint in figures["joints"]], float)
        listed = ", ".join(f"{name} {mm:.1f}" for name, mm in zip(names, value, strict=True))
        charts.append(
            lying_bars(
                f"{KINDS[kind].title} error of each joint",
                f"{KINDS[kind].title} error of each joint in millimetres: {listed}",
                names,
                Spread("these weights", value, ends[:, 0], ends[:, 1]),
                "mm",
                Curve(KINDS[kind].baseline, value, theirs[kind].mean(0), LIMIT),
            )
        )
    return Section("joints", "Joints", charts=tuple(charts))


def _pck_chart(kind: str, ours: Float[np.ndarray, "n 21"], theirs: Float[np.ndarray, "n 21"]) -> Chart:
    shares: Mapping[str, np.ndarray] = {
        name: np.searchsorted(np.sort(errors, axis=None), THRESHOLDS_MM, side="right") / errors.size
        for name, errors in (("ours", ours), ("theirs", theirs))
    }
    area = {name: float(np.trapezoid(y, THRESHOLDS_MM) / THRESHOLDS_MM[-1]) for name, y in shares.items()}
    about = KINDS[kind]
    alt = (
        f"{about.title} PCK over thresholds from 0 to 50 mm: {(ours <= 20).mean():.1%} of the joints within 20 mm, "
        f"of the {about.baseline} {(theirs <= 20).mean():.1%}"
    )
    return curves(
        f"{about.title}, AUC {area['ours']:.3f} (mean {area['theirs']:.3f}). {about.caption}",
        alt,
        [
            Curve("these weights", THRESHOLDS_MM, 100 * shares["ours"]),
            Curve(about.baseline, THRESHOLDS_MM, 100 * shares["theirs"], LIMIT, dashed=True),
        ],
        "threshold, mm",
        "joints, %",
        (0, 100),
    )
