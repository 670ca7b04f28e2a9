"""Columns of the grasped object, apart from those of the hand: these need the objects' models."""

import functools

import numpy as np
from jaxtyping import Float

from amt.data.dexycb import DexYCB
from amt.data.objects import object_surface
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.objects import add_s, diameter, pick_grasped, posed, spread_points
from amt.evaluation.official import bop
from amt.evaluation.official.bop_models import load_model
from amt.metrics.objects import RECALL_SHARE
from amt.structs import Prediction

POINTS, BASELINE_POINTS = 200, 100  # of ADD and ADD-S; far from the surface a point's search takes long
BY_SURFACE = ("add_mm", "add_recall", "add_s_mm", "add_s_recall")
BY_MODEL = ("mssd_mm", "mssd_recall", "mspd_px", "mspd_recall")
BOP_WIDTH = 640  # pixels, of the image in which MSPD is counted


def object_columns(
    prediction: Prediction, labels: dict[str, np.ndarray], mean: TrainingMean, source: DexYCB, width: int
) -> dict[str, Float[np.ndarray, " n"]]:
    """Figures of each frame's grasped object, NaN where nothing is grasped; `labels` are stacked samples of `DexYCB`,
    whose images are `width` pixels wide.

    The object is named, as in the BOP protocol (`named_query`). Its centre is compared from the wrist; everything else
    is absolute, in the camera's frame. ADD and ADD-S with the surface of the models below the data set's root, else of
    the table's primitives (`amt.data.objects`), recalls at 0.1 of the diameter; MSSD, MSPD and their average recalls
    over BOP's ten limits with the models and symmetries of `amt.evaluation.official.bop`. The baseline, of all but
    these two, is the mean offset from the predicted wrist and no turn: the model's axes along the camera's.
    """
    held, ids, pose, class_right, true_pose = pick_grasped(prediction, labels)
    wrist = np.asarray(prediction.hand.joints, np.float64)[:, 0]
    offset = true_pose[..., 3] - labels["joints_3d"][:, 0]
    guess = np.concatenate([np.tile(np.eye(3), (len(ids), 1, 1)), (wrist + mean.object_offset)[..., None]], -1)

    def error(x):
        return np.where(held, np.linalg.norm(x - offset, axis=-1) * 1000, np.nan)

    columns = {
        "object_position_mm": error(pose[..., 3] - wrist),
        "mean_object_position_mm": error(mean.object_offset[None]),
        "object_class_right_share": np.where(held, class_right, np.nan),
    }
    K = labels["K"].astype(np.float64)
    names = (*BY_SURFACE, *(f"mean_{name}" for name in BY_SURFACE), *BY_MODEL)
    columns |= {name: np.full(len(ids), np.nan) for name in names}
    for ycb_id in np.unique(ids[held]).tolist():
        rows = np.flatnonzero(held & (ids == ycb_id))
        ours, truth, theirs = pose[rows], true_pose[rows], guess[rows]
        figures = _by_surface(ours, truth, source, ycb_id, POINTS)
        figures |= {f"mean_{k}": x for k, x in _by_surface(theirs, truth, source, ycb_id, BASELINE_POINTS).items()}
        figures |= _by_model(ours, truth, K[rows], source, ycb_id, BOP_WIDTH / width)
        for name, values in figures.items():
            columns[name][rows] = values
    return columns


def _by_surface(pose, truth, source: DexYCB, ycb_id: int, count: int) -> dict[str, np.ndarray]:
    surface, limit = object_surface(source.root, ycb_id), RECALL_SHARE * diameter(source.root, ycb_id)
    points = spread_points(surface, count)
    add = np.linalg.norm(posed(pose, points) - posed(truth, points), axis=-1).mean(-1)
    near = add_s(pose, truth, surface, points)
    return {"add_mm": add * 1000, "add_recall": add < limit, "add_s_mm": near * 1000, "add_s_recall": near < limit}


_model = functools.lru_cache(maxsize=64)(load_model)


def _by_model(pose, truth, K, source: DexYCB, ycb_id: int, scale: float) -> dict[str, np.ndarray]:
    model = _model(source, ycb_id)
    ours, theirs = (bop.in_model(np.concatenate([x[..., :3], x[..., 3:] * 1000], -1), model) for x in (pose, truth))
    mssd = np.array([bop.mssd(*pair, model) for pair in zip(ours, theirs, strict=True)])
    mspd = np.array([bop.mspd(*pair, model, k) for *pair, k in zip(ours, theirs, K, strict=True)]) * scale
    return {
        "mssd_mm": mssd,
        "mssd_recall": _average_recall(mssd / model.diameter, bop.THRESHOLDS),
        "mspd_px": mspd,
        "mspd_recall": _average_recall(mspd, bop.PIXELS),
    }


def _average_recall(errors, limits):
    return (errors[:, None] < limits).mean(-1)
