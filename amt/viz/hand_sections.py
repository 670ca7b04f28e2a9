"""The hand's part of a report: the summary beside published results, curves, joints, and where errors come from."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from amt.evaluation.baseline import TrainingMean
from amt.evaluation.samples import Samples
from amt.geometry import procrustes
from amt.hand.skeleton import JOINT_NAMES_21
from amt.viz.charts import LIMIT, Chart, Curve, Spread, curves, lying_bars
from amt.viz.sections import Section

THRESHOLDS_MM = np.linspace(0, 50, 101)


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
        "training mean, wrist at the mean true place",
        "In the camera's frame: the place counts too. The dashed curve knows more than a training mean can: the mean "
        "place of these frames' wrists.",
    ),
    "aligned": Kind(
        "Aligned (PA)", "mean skeleton", "After the best scale, rotation and place: only the hand's shape counts."
    ),
}


def joint_errors_mm(samples: Samples) -> dict[str, Float[np.ndarray, "n 21"]]:
    """The errors of every kind."""
    return {
        "root_relative": samples.root_relative_joint_error_mm,
        "absolute": samples.joint_error_mm,
        "aligned": samples.aligned_joint_error_mm,
    }


def mean_errors_mm(samples: Samples, mean: TrainingMean) -> dict[str, Float[np.ndarray, "n 21"]]:
    """Likewise of who predicts the training's means without looking."""
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


def pck_section(samples: Samples, mean: TrainingMean) -> Section:
    """Curves of all three kinds, and the joints one by one."""
    ours, theirs = joint_errors_mm(samples), mean_errors_mm(samples, mean)
    charts = tuple(_pck_chart(kind, ours[kind], theirs[kind]) for kind in KINDS)
    words = (
        "PCK: the share of joints that are nearer to their label than a threshold, all frames and joints together. AUC "
        "is the area below the curve.",
    )
    return Section("pck", "How near the joints are", words, charts=charts)


def joints_section(samples: Samples, mean: TrainingMean) -> Section:
    """Errors by joint beside the mean predictor's."""
    charts = []
    ours, theirs = joint_errors_mm(samples), mean_errors_mm(samples, mean)
    names = [name.replace("_", " ") for name in JOINT_NAMES_21]
    for kind in ("root_relative", "aligned"):
        value = ours[kind].mean(0)
        none = np.full(len(value), np.nan)
        listed = ", ".join(f"{name} {mm:.1f}" for name, mm in zip(names, value, strict=True))
        charts.append(
            lying_bars(
                f"{KINDS[kind].title} error of each joint",
                f"{KINDS[kind].title} error of each joint in millimetres: {listed}",
                names,
                Spread("these weights", value, none, none),
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
        f"{about.title} PCK over thresholds from 0 to 50 mm: {shares['ours'][40]:.1%} of the joints within 20 mm, "
        f"of the {about.baseline} {shares['theirs'][40]:.1%}"
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
