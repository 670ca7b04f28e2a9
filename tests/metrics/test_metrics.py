"""Every figure against plain NumPy in float64, and against the invariances that its name promises."""

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from amt import metrics
from amt.data.ycb import OBJECTS
from amt.geometry.primitives import BOX, signed_distance

B = 6


def hands(seed=0, scatter=0.02):
    """(predicted, truth, valid): hand-sized clouds half a metre away, some joints masked and spoiled."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.04, (B, 21, 3)) + [0.05, -0.02, 0.6]
    predicted = truth + rng.normal(0, scatter, truth.shape)
    return predicted.astype(np.float32), truth.astype(np.float32), rng.random((B, 21)) < 0.7


def umeyama(source, target):
    """The source moved onto the target; Umeyama 1991, equations 38 to 43, float64."""
    a, b = source - source.mean(0), target - target.mean(0)
    U, D, Vt = np.linalg.svd(b.T @ a)
    S = np.diag([1, 1, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    return np.trace(np.diag(D) @ S) / np.sum(a**2) * a @ (U @ S @ Vt).T + target.mean(0)


@pytest.mark.parametrize("root_relative", [True, False])
def test_mpjpe_is_the_mean_over_valid_joints(root_relative):
    predicted, truth, valid = hands()
    found = metrics.mpjpe(predicted, truth, valid, root_relative)
    a, b = predicted.astype(float), truth.astype(float)
    if root_relative:
        a, b = a - a[:, :1], b - b[:, :1]
    expected = [np.linalg.norm(a[k] - b[k], axis=-1)[valid[k]].mean() for k in range(B)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_root_relative_error_ignores_where_the_hand_is():
    predicted, truth, valid = hands()
    moved = predicted + np.float32([0.1, -0.3, 0.2])
    at_rest = metrics.mpjpe(predicted, truth, valid)
    np.testing.assert_allclose(metrics.mpjpe(moved, truth, valid), at_rest, atol=1e-6)
    assert (metrics.mpjpe(moved, truth, valid, root_relative=False) > 0.3).all()


def test_pa_mpjpe_equals_umeyama():
    predicted, truth, valid = hands()
    found = metrics.pa_mpjpe(predicted, truth, valid)
    for k in range(B):
        a, b = predicted[k, valid[k]].astype(float), truth[k, valid[k]].astype(float)
        np.testing.assert_allclose(found[k], np.linalg.norm(umeyama(a, b) - b, axis=-1).mean(), rtol=1e-4)


def test_pa_mpjpe_ignores_similarities_but_not_reflections():
    predicted, truth, valid = hands()
    R = Rotation.random(B, random_state=1).as_matrix()
    turned = 1.7 * np.einsum("bij,bnj->bni", R, predicted) + 0.4
    before = metrics.pa_mpjpe(predicted, truth, valid)
    after = metrics.pa_mpjpe(turned.astype(np.float32), truth, valid)
    np.testing.assert_allclose(after, before, atol=1e-6)
    mirrored = truth * np.float32([-1, 1, 1])
    assert (metrics.pa_mpjpe(mirrored, truth, valid) > 0.01).all()


def test_masked_joints_do_not_count():
    predicted, truth, valid = hands()
    spoiled = np.where(valid[..., None], predicted, np.float32(7)).astype(np.float32)
    spoiled[:, 0] = predicted[:, 0]  # the wrist is the origin, valid or not
    K = np.tile(np.float32([[500, 0, 320], [0, 500, 240], [0, 0, 1]]), (B, 1, 1))
    pixels = np.zeros((B, 21, 2), np.float32)
    for figure in (
        metrics.mpjpe,
        metrics.pa_mpjpe,
        metrics.per_joint,
        lambda p, t, v: metrics.error_2d_px(p, pixels, K, v),
        lambda p, t, v: metrics.pck_auc(metrics.joint_errors(p, t), v),
    ):
        clean, dirty = figure(predicted, truth, valid), figure(spoiled, truth, valid)
        np.testing.assert_allclose(dirty, clean, rtol=1e-4)


def test_empty_masks_give_zero_not_nan():
    predicted, truth, valid = hands()
    nothing = np.zeros_like(valid)
    assert not np.asarray(metrics.mpjpe(predicted, truth, nothing)).any()
    assert not np.asarray(metrics.pa_mpjpe(predicted, truth, nothing)).any()
    assert not np.asarray(metrics.per_joint(predicted, truth, nothing)).any()
    assert metrics.pck_auc(metrics.joint_errors(predicted, truth), nothing) == 0
    assert metrics.mean(metrics.mpjpe(predicted, truth, valid), np.zeros(B, bool)) == 0


def test_mean_takes_valid_samples_only():
    values, valid = np.float32([1, 2, np.nan, 6]), np.array([True, True, False, True])
    assert metrics.mean(values, valid) == 3


def test_per_joint_averages_over_the_batch():
    predicted, truth, valid = hands()
    valid[:, 5] = False
    found = metrics.per_joint(predicted, truth, valid, root_relative=False)
    error = np.linalg.norm(predicted - truth, axis=-1)
    for j in range(21):
        expected = error[valid[:, j], j].mean() if j != 5 else 0
        np.testing.assert_allclose(found[j], expected, rtol=1e-5)


@pytest.mark.parametrize("low", [0.0, 0.02])
def test_pck_auc_equals_a_plain_trapezoid(low):
    rng = np.random.default_rng(2)
    errors, valid = rng.gamma(2, 0.015, (40, 21)).astype(np.float32), rng.random((40, 21)) < 0.8
    thresholds = np.linspace(low, 0.05, 100)
    curve = [(errors[valid] <= t).mean() for t in thresholds]
    expected = np.trapezoid(curve, thresholds) / (0.05 - low)
    np.testing.assert_allclose(metrics.pck_auc(errors, valid, low), expected, atol=1e-4)  # float32 thresholds


def test_pck_auc_of_known_errors():
    all_valid = np.ones(1000, bool)
    assert metrics.pck_auc(np.zeros(1000, np.float32), all_valid) == pytest.approx(1)
    assert metrics.pck_auc(np.full(1000, 0.06, np.float32), all_valid) == 0
    even = np.linspace(0, 0.05, 1000, dtype=np.float32)
    assert metrics.pck_auc(even, all_valid) == pytest.approx(0.5, abs=2e-3)


def test_2d_error_is_a_distance_in_pixels():
    _, truth, _ = hands()
    K = np.tile(np.float32([[600, 0, 320], [0, 610, 240], [0, 0, 1]]), (B, 1, 1))
    uvw = truth.astype(float) @ K[0].T.astype(float)
    shifted = (uvw[..., :2] / uvw[..., 2:] + [3, 4]).astype(np.float32)
    everything = np.ones((B, 21), bool)
    np.testing.assert_allclose(metrics.error_2d_px(truth, shifted, K, everything), 5, rtol=1e-4)
    behind = truth * np.float32([1, 1, -1])
    worse = np.asarray(metrics.error_2d_px(behind, shifted, K, everything))
    assert np.isfinite(worse).all() and (worse > 100).all()


def poses(seed, scatter):
    """(predicted, truth) object poses [B,3,4]."""
    rng = np.random.default_rng(seed)
    R = Rotation.random(B, random_state=seed)
    t = rng.normal(0, 0.1, (B, 3)) + [0, 0, 0.7]
    R_off, t_off = Rotation.from_rotvec(rng.normal(0, scatter, (B, 3))), rng.normal(0, 0.02, (B, 3))

    def stacked(R, t):
        return np.concatenate([R.as_matrix(), t[..., None]], -1).astype(np.float32)

    return stacked(R * R_off, t + t_off), stacked(R, t)


def placed(pose, points):
    return points.astype(float) @ pose[:, :3].T.astype(float) + pose[:, 3]


def test_object_errors_equal_plain_ones():
    predicted, truth = poses(3, 0.5)
    points = metrics.surface_points(OBJECTS[2].primitive.half, OBJECTS[2].primitive.axis, 300)
    batched = np.broadcast_to(points, (B, *points.shape))
    position = metrics.position_error(predicted, truth)
    pairs, nearest = metrics.add(predicted, truth, batched), metrics.add_s(predicted, truth, batched)
    for k in range(B):
        ours, theirs = placed(predicted[k], points), placed(truth[k], points)
        np.testing.assert_allclose(pairs[k], np.linalg.norm(ours - theirs, axis=-1).mean(), rtol=1e-4)
        np.testing.assert_allclose(nearest[k], cKDTree(ours).query(theirs)[0].mean(), rtol=1e-3)
        np.testing.assert_allclose(position[k], np.linalg.norm(predicted[k, :, 3] - truth[k, :, 3]), rtol=1e-5)


def test_add_s_forgives_a_symmetric_turn_and_add_does_not():
    can = OBJECTS[1].primitive
    points = metrics.surface_points(can.half, can.axis, 1000)[None]
    _, truth = poses(4, 0.0)
    turned = truth[:1].copy()
    turned[0, :, :3] = turned[0, :, :3] @ Rotation.from_rotvec(np.eye(3)[can.axis]).as_matrix()
    assert metrics.add(turned, truth[:1], points)[0] > 0.02
    assert metrics.add_s(turned, truth[:1], points)[0] < 0.005  # the spacing of the sampled points


@pytest.mark.parametrize("ycb_id", [1, 2, 18])
def test_surface_points_lie_on_the_surface_everywhere(ycb_id):
    half, axis = OBJECTS[ycb_id].primitive
    points = metrics.surface_points(half, axis, 4000)
    distance = signed_distance(points, half, np.asarray(axis))
    np.testing.assert_allclose(distance, 0, atol=2e-6)  # float32, and the 1e-6 of the distance's square root
    np.testing.assert_allclose(np.abs(points).max(0), half, rtol=0.02)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05 * half.max())
    if axis == BOX:  # each pair of faces gets its share of the points
        shares = [(np.abs(np.abs(points[:, k]) - half[k]) < 1e-6).mean() for k in range(3)]
        areas = np.prod(half) / half
        np.testing.assert_allclose(shares, areas / areas.sum(), atol=0.03)
    else:
        on_cap = np.abs(np.abs(points[:, axis]) - half[axis]) < 1e-6
        radius = half[(axis + 1) % 3]
        np.testing.assert_allclose(on_cap.mean(), radius / (radius + 2 * half[axis]), atol=0.03)
    np.testing.assert_array_equal(points, metrics.surface_points(half, axis, 4000))


def test_figures_are_jittable():
    predicted, truth, valid = hands()
    jitted = jax.jit(lambda *a: (metrics.mpjpe(*a), metrics.pa_mpjpe(*a), metrics.per_joint(*a)))
    for fast, plain in zip(
        jitted(predicted, truth, valid),
        (f(predicted, truth, valid) for f in (metrics.mpjpe, metrics.pa_mpjpe, metrics.per_joint)),
        strict=True,
    ):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-7)
