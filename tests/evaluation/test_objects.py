"""Figures of the grasped object against plain NumPy and the metric that they stand for."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.spatial.transform import Rotation

from amt import metrics
from amt.data.objects import Surface, object_surface
from amt.data.ycb import OBJECTS
from amt.evaluation.objects import NUM_POINTS, add_s, diameter, object_columns, some_points
from amt.structs import ObjectPoses
from tests.samples import make_sample

OFFSET = np.array([0.02, 0.05, 0.03])
MEAN = SimpleNamespace(object_offset=OFFSET)


def pose(seed, t):
    return np.concatenate([Rotation.random(random_state=seed).as_matrix(), np.reshape(t, (3, 1))], -1)


@pytest.mark.parametrize("ycb_id", [2, 5, 18])
def test_add_s_is_the_metric_of_a_dense_surface(tmp_path, ycb_id):
    """The same points on both sides give the metric itself; against all points of the surface it is smaller."""
    surface = object_surface(tmp_path, ycb_id)
    few = some_points(surface)
    assert len(few) == NUM_POINTS
    for seed in range(3):
        ours, theirs = pose(seed, [0.01, 0.02, 0.5]), pose(seed + 10, [0.0, 0.0, 0.5])
        sparse = Surface(few, None, type(surface.tree)(few))
        fields = (x.astype(np.float32) for x in (ours, theirs, few))
        assert add_s(ours, theirs, sparse) == pytest.approx(float(metrics.add_s(*fields)), rel=1e-3)
        placed = surface.points @ ours[:, :3].T + ours[:, 3]
        plain = cdist(few @ theirs[:, :3].T + theirs[:, 3], placed).min(1).mean()
        assert add_s(ours, theirs, surface) == pytest.approx(plain, rel=1e-5)
        assert add_s(theirs, theirs, surface) < 1e-6


@pytest.mark.parametrize("ycb_id", [2, 5, 18])
def test_diameters_are_those_of_the_primitives(tmp_path, ycb_id):
    points = object_surface(tmp_path, ycb_id).points[::9].astype(float)
    assert pdist(points).max() <= diameter(tmp_path, ycb_id) + 1e-9
    assert diameter(tmp_path, ycb_id) == pytest.approx(OBJECTS[ycb_id].primitive.diameter, rel=2e-3)


def made(n=5):
    """Stacked samples, and predictions whose second query is the grasped object, ever farther off."""
    samples = [make_sample(seed) for seed in range(n)]
    labels = {name: np.stack([s[name] for s in samples]) for name in samples[0] if name != "color"}
    labels["grasped"][3] = -1
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.3, (n, 4, 3, 4)).astype(np.float32)
    poses[:, 1] = labels["object_pose"][:, 0]
    poses[:, 1, 0, 3] += 0.01 * np.arange(n)
    ids = np.tile([7, 3, 3, 9], (n, 1))
    confidence = np.tile(np.float32([0.9, 0.6, 0.5, 0.95]), (n, 1))
    objects = ObjectPoses(poses, ids, confidence, confidence > 0.4)
    wrist = labels["joints_3d"] + np.float32([0, 0, 0.03])
    return labels, SimpleNamespace(objects=objects, hand=SimpleNamespace(joints=wrist))


def test_the_named_object_is_compared_and_the_mean_offset_stands_beside_it(tmp_path):
    labels, prediction = made()
    columns = object_columns(prediction, labels, MEAN, tmp_path)
    held = [0, 1, 2, 4]
    assert all(np.isnan(values[3]) and np.isfinite(values[held]).all() for values in columns.values())
    assert (columns["object_class_right_share"][held] == 1).all()
    surface = object_surface(tmp_path, 3)
    few = some_points(surface).astype(float)
    for i in held:
        truth, wrist = labels["object_pose"][i, 0].astype(float), prediction.hand.joints[i, 0]
        target = few @ truth[:, :3].T + truth[:, 3]
        for prefix, R, t in (
            ("", truth[:, :3], truth[:, 3] + [0.01 * i, 0, 0]),
            ("mean_", np.eye(3), wrist + OFFSET),
        ):
            plain = cdist(target, surface.points @ R.T + t).min(1).mean() * 1000
            assert columns[f"{prefix}add_s_mm"][i] == pytest.approx(plain, abs=1e-3)
            limit = 100 * OBJECTS[3].primitive.diameter
            assert columns[f"{prefix}add_s_recall"][i] == (plain < limit)
            offset = truth[:, 3] - labels["joints_3d"][i, 0]
            gap = np.linalg.norm(t - wrist - offset) * 1000
            assert columns[f"{prefix}object_position_mm"][i] == pytest.approx(gap, abs=1e-2)
    assert columns["add_s_recall"][0] == 1
