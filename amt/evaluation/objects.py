"""Columns of the grasped object, apart from those of the hand: these need the objects' models."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from amt.data.objects import Surface, object_surface
from amt.evaluation.baseline import TrainingMean
from amt.metrics.objects import RECALL_SHARE
from amt.structs import Prediction

NUM_POINTS = 500  # of an object's surface at most, on which ADD-S is the mean


class Grasped(NamedTuple):
    """Grasped objects of n frames, `held` where there is one whose pose is labelled; poses [R|t] in metres."""

    held: Bool[np.ndarray, " n"]
    ids: Int[np.ndarray, " n"]
    pose: Float[np.ndarray, "n 3 4"]
    class_right: Bool[np.ndarray, " n"]
    true_pose: Float[np.ndarray, "n 3 4"]


def object_columns(
    prediction: Prediction, labels: dict[str, np.ndarray], mean: TrainingMean, root: Path
) -> dict[str, Float[np.ndarray, " n"]]:
    """Figures of each frame's grasped object, NaN where nothing is grasped; `labels` are stacked samples of `DexYCB`.

    The object is named, as in the BOP protocol (`named_query`). Its centre is compared from the wrist; ADD-S is
    absolute, in the camera's frame, with the surface of the models below `root`, else of the table's primitives
    (`amt.data.objects`). The baseline is the mean offset from the predicted wrist, and for ADD-S no turn: the model's
    axes along the camera's.
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
    for prefix, ours in (("", pose), ("mean_", guess)):
        distance, near = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
        for i in np.flatnonzero(held):
            surface = object_surface(root, int(ids[i]))
            distance[i] = add_s(ours[i], true_pose[i], surface)
            near[i] = distance[i] < RECALL_SHARE * diameter(root, int(ids[i]))
        columns |= {f"{prefix}add_s_mm": distance * 1000, f"{prefix}add_s_recall": near}
    return columns


def pick_grasped(prediction: Prediction, labels: dict[str, np.ndarray]) -> Grasped:
    """The grasped objects of stacked samples of `DexYCB`, and of each the query that stands for it (`named_query`)."""
    rows, index = np.arange(len(labels["grasped"])), np.maximum(labels["grasped"], 0)
    ids, objects = labels["object_ids"][rows, index], prediction.objects
    chosen = named_query(objects.ycb_ids, objects.confidence, ids[:, None])
    return Grasped(
        held=(labels["grasped"] >= 0) & labels["object_valid"][rows, index],
        ids=ids,
        pose=np.asarray(objects.pose, np.float64)[rows, chosen],
        class_right=objects.ycb_ids[rows, chosen] == ids,
        true_pose=labels["object_pose"][rows, index].astype(np.float64),
    )


def named_query(
    ycb_ids: Int[np.ndarray, "*batch q"],
    confidence: Float[np.ndarray, "*batch q"],
    wanted: Int[np.ndarray, "*batch 1"] | int,
) -> Int[np.ndarray, "*batch"]:
    """Of the queries of an object's class the most confident one, else the most confident of all."""
    return (confidence + (ycb_ids == wanted)).argmax(-1)


def add_s(pose: Float[np.ndarray, "3 4"], truth: Float[np.ndarray, "3 4"], surface: Surface) -> float:
    """`amt.metrics.add_s` of one object, metres, against all points of its surface, the mean over `NUM_POINTS` of them.

    With so few points on both sides a perfect surface would seem millimetres off.
    """
    points = some_points(surface).astype(np.float64) @ truth[:, :3].T + truth[:, 3]
    distance, _ = surface.tree.query((points - pose[:, 3]) @ pose[:, :3])
    return float(distance.mean())


def some_points(surface: Surface) -> Float[np.ndarray, "n 3"]:
    """Up to `NUM_POINTS` of a surface's points, always the same."""
    count = len(surface.points)
    if count <= NUM_POINTS:
        return surface.points
    return surface.points[np.random.default_rng(0).choice(count, NUM_POINTS, replace=False)]


@functools.lru_cache(maxsize=64)
def diameter(root: Path, ycb_id: int) -> float:
    """The largest distance between two points of an object's surface, metres; it is one of corners of the hull."""
    points = object_surface(root, ycb_id).points.astype(np.float64)
    return float(pdist(points[ConvexHull(points).vertices]).max())
