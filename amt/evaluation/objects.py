"""Grasped objects: which prediction stands for one, and how far it is from the label by the object's model."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from amt.data.objects import Surface, object_surface
from amt.structs import Prediction

NUM_POINTS = 500  # of an object's surface at most, which outline it


class Grasped(NamedTuple):
    """Grasped objects of n frames, `held` where there is one whose pose is labelled; poses [R|t] in metres."""

    held: Bool[np.ndarray, " n"]
    ids: Int[np.ndarray, " n"]
    pose: Float[np.ndarray, "n 3 4"]
    class_right: Bool[np.ndarray, " n"]
    true_pose: Float[np.ndarray, "n 3 4"]


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


def add_s(
    pose: Float[np.ndarray, "n 3 4"],
    truth: Float[np.ndarray, "n 3 4"],
    surface: Surface,
    points: Float[np.ndarray, "k 3"],
) -> Float[np.ndarray, " n"]:
    """`amt.metrics.add_s` of one object in n frames, metres: the mean over some points of its surface, against all.

    With so few points on both sides a perfect surface would seem millimetres off.
    """
    true = posed(truth, points)
    ours = np.einsum("nij,nki->nkj", pose[..., :3], true - pose[:, None, :, 3])
    distance, _ = surface.tree.query(ours, workers=-1)
    return distance.mean(-1)


def posed(pose: Float[np.ndarray, "n 3 4"], points: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "n k 3"]:
    """The model's points in the camera's frame, in double precision."""
    return np.einsum("nij,kj->nki", pose[..., :3], points.astype(np.float64)) + pose[:, None, :, 3]


def spread_points(surface: Surface, count: int) -> Float[np.ndarray, "count 3"]:
    """Points one from each of so many equal shares of a surface's points, which lie together: they stand for it better
    than twice as many at random. All of them where there are fewer.
    """
    n = len(surface.points)
    return surface.points[surface.tree.indices[((np.arange(min(count, n)) + 0.5) * n / min(count, n)).astype(int)]]


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
