"""Figures of the grasped object against plain NumPy and the metric that they stand for."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.spatial.transform import Rotation

from amt import metrics
from amt.data.objects import Surface, object_surface
from amt.data.ycb import OBJECTS
from amt.evaluation.object_columns import BASELINE_POINTS, BY_MODEL, BY_SURFACE, POINTS, object_columns
from amt.evaluation.objects import NUM_POINTS, add_s, diameter, some_points, spread_points
from amt.evaluation.official.bop_models import load_model
from amt.structs import ObjectPoses
from tests.samples import make_sample

Source = namedtuple("Source", "root split")
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
        assert add_s(ours[None], theirs[None], sparse, few)[0] == pytest.approx(float(metrics.add_s(*fields)), rel=1e-3)
        placed = surface.points @ ours[:, :3].T + ours[:, 3]
        plain = cdist(few @ theirs[:, :3].T + theirs[:, 3], placed).min(1).mean()
        both = add_s(np.stack([ours, theirs]), np.stack([theirs, theirs]), surface, few)
        assert both[0] == pytest.approx(plain, rel=1e-5) and both[1] < 1e-6


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
    columns = object_columns(prediction, labels, MEAN, Source(tmp_path, "s0"), width=320)
    held = [0, 1, 2, 4]
    assert all(np.isnan(values[3]) and np.isfinite(values[held]).all() for values in columns.values())
    assert (columns["object_class_right_share"][held] == 1).all()
    surface = object_surface(tmp_path, 3)
    for i in held:
        truth, wrist = labels["object_pose"][i, 0].astype(float), prediction.hand.joints[i, 0]
        for prefix, count, R, t in (
            ("", POINTS, truth[:, :3], truth[:, 3] + [0.01 * i, 0, 0]),
            ("mean_", BASELINE_POINTS, np.eye(3), wrist + OFFSET),
        ):
            few = spread_points(surface, count).astype(float)
            target = few @ truth[:, :3].T + truth[:, 3]
            plain = cdist(target, surface.points @ R.T + t).min(1).mean() * 1000
            assert columns[f"{prefix}add_s_mm"][i] == pytest.approx(plain, abs=1e-3)
            limit = 100 * OBJECTS[3].primitive.diameter
            assert columns[f"{prefix}add_s_recall"][i] == (plain < limit)
            plain = np.linalg.norm(few @ R.T + t - target, axis=-1).mean() * 1000
            assert columns[f"{prefix}add_mm"][i] == pytest.approx(plain, abs=1e-3)
            assert columns[f"{prefix}add_recall"][i] == (plain < limit)
            offset = truth[:, 3] - labels["joints_3d"][i, 0]
            gap = np.linalg.norm(t - wrist - offset) * 1000
            assert columns[f"{prefix}object_position_mm"][i] == pytest.approx(gap, abs=1e-2)
    assert columns["add_s_recall"][0] == 1


def test_symmetric_errors_are_the_official_ones_and_those_of_the_library(tmp_path):
    """A box seen from near: MSSD and MSPD by `amt.metrics` with all corners, recalls by counting BOP's limits."""
    labels, prediction = made()
    source = Source(tmp_path, "s0")
    columns = object_columns(prediction, labels, MEAN, source, width=320)
    model = load_model(source, 3)
    points, turns = (x.astype(np.float32) for x in (model.points / 1000, model.symmetries[:, :, :3]))
    held = np.array([0, 1, 2, 4])
    poses = prediction.objects.pose[held, 1], labels["object_pose"][held, 0]
    shared = np.tile(points, (4, 1, 1)), np.tile(turns, (4, 1, 1, 1))
    np.testing.assert_allclose(columns["mssd_mm"][held], 1000 * metrics.mssd(*poses, *shared), atol=1e-3)
    pixels = metrics.mspd_px(*poses, *shared, labels["K"][held])
    np.testing.assert_allclose(columns["mspd_px"][held], 2 * pixels, atol=1e-2)  # in an image twice as wide
    for i in held:
        shares = [columns["mssd_mm"][i] < 0.05 * k * model.diameter for k in range(1, 11)]
        assert columns["mssd_recall"][i] == pytest.approx(np.mean(shares))
        assert columns["mspd_recall"][i] == pytest.approx(
            np.mean([columns["mspd_px"][i] < 5 * k for k in range(1, 11)])
        )


def test_frames_without_an_object_have_all_columns(tmp_path):
    labels, prediction = made()
    labels["grasped"][:] = -1
    columns = object_columns(prediction, labels, MEAN, Source(tmp_path, "s0"), width=640)
    assert {*BY_SURFACE, *BY_MODEL, *(f"mean_{name}" for name in BY_SURFACE)} < set(columns)
    assert all(np.isnan(values).all() for values in columns.values())


@pytest.mark.parametrize("ycb_id", [2, 5, 18])
def test_spread_points_stand_for_the_whole_surface(tmp_path, ycb_id):
    """Means of coordinates and of their squares against those of all points; of few all are taken."""
    surface = object_surface(tmp_path, ycb_id)
    few, everything = spread_points(surface, 200).astype(float), surface.points.astype(float)
    size = everything.std(0).max()
    assert few.shape == (200, 3)
    np.testing.assert_allclose(few.mean(0), everything.mean(0), atol=0.03 * size)
    np.testing.assert_allclose((few**2).mean(0), (everything**2).mean(0), atol=0.05 * size**2)
    sparse = Surface(surface.points[:7], None, type(surface.tree)(surface.points[:7]))
    assert sorted(spread_points(sparse, 200).tolist()) == sorted(sparse.points.tolist())
