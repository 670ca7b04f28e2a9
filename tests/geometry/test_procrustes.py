"""Procrustes alignment against a plain NumPy Umeyama, and on cases with known answers."""

import numpy as np
from scipy.spatial.transform import Rotation

from amt.geometry import procrustes

RNG = np.random.default_rng(0)


def umeyama(source, target):
    """Umeyama 1991, equations 38 to 43, one pair of point sets in float64."""
    n = len(source)
    a, b = source - source.mean(0), target - target.mean(0)
    U, D, Vt = np.linalg.svd(b.T @ a / n)
    S = np.diag([1, 1, -1 if np.linalg.det(U) * np.linalg.det(Vt) < 0 else 1])
    R = U @ S @ Vt
    scale = np.trace(np.diag(D) @ S) / (np.sum(a**2) / n)
    return scale, R, target.mean(0) - scale * R @ source.mean(0)


def test_recovers_a_known_similarity():
    source = RNG.normal(size=(7, 21, 3)).astype(np.float32)
    R = Rotation.random(7, random_state=0).as_matrix().astype(np.float32)
    scale, t = RNG.uniform(0.5, 2, 7).astype(np.float32), RNG.normal(size=(7, 3)).astype(np.float32)
    target = scale[:, None, None] * source @ R.swapaxes(1, 2) + t[:, None]
    ours = procrustes.align(source, target)
    for found, true in zip(ours, (scale, R, t), strict=True):
        np.testing.assert_allclose(found, true, atol=2e-5)
    np.testing.assert_allclose(procrustes.aligned(source, target), target, atol=2e-5)


def test_equals_umeyama_on_noise_and_reflections():
    source, target = RNG.normal(size=(2, 50, 21, 3))
    target[25:] = source[25:] * np.array([-1, 1, 1])  # the best orthogonal matrix is a reflection here
    scale, R, t = procrustes.align(source.astype(np.float32), target.astype(np.float32))
    for k in range(50):
        for found, true in zip((scale[k], R[k], t[k]), umeyama(source[k], target[k]), strict=True):
            np.testing.assert_allclose(found, true, atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(np.asarray(R)), 1, atol=1e-5)


def test_masked_points_do_not_count():
    source, target = RNG.normal(size=(2, 4, 21, 3)).astype(np.float32)
    mask = RNG.random((4, 21)) < 0.6
    spoiled = np.where(mask[..., None], target, 1e3).astype(np.float32)
    scale, R, t = procrustes.align(source, spoiled, mask)
    for k in range(4):
        for found, true in zip((scale[k], R[k], t[k]), umeyama(source[k, mask[k]], target[k, mask[k]]), strict=True):
            np.testing.assert_allclose(found, true, atol=1e-3)


def test_weights_are_repeated_points():
    source, target = RNG.normal(size=(2, 6, 3)).astype(np.float32)
    counts = np.array([1, 2, 3, 1, 1, 2])
    ours = procrustes.align(source, target, counts.astype(np.float32))
    true = umeyama(np.repeat(source, counts, 0), np.repeat(target, counts, 0))
    for found, expected in zip(ours, true, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_collapsed_source_gives_the_targets_mean():
    target = RNG.normal(size=(21, 3)).astype(np.float32)
    collapsed = np.full((21, 3), 0.25, np.float32)
    found = procrustes.aligned(collapsed, target)
    np.testing.assert_allclose(found, np.broadcast_to(target.mean(0), (21, 3)), atol=1e-6)
    nothing = procrustes.align(collapsed, target, np.zeros(21, bool))
    assert all(np.isfinite(part).all() for part in nothing)


def test_the_rotation_is_scipys():
    rng = np.random.default_rng(8)
    source = rng.normal(size=(21, 3)).astype(np.float32)
    target, weights = rng.normal(size=(21, 3)).astype(np.float32), rng.uniform(0.1, 1, 21).astype(np.float32)
    a, b = (x - np.average(x, axis=0, weights=weights) for x in (source, target))
    expected, _ = Rotation.align_vectors(b, a, weights)
    np.testing.assert_allclose(procrustes.align(source, target, weights)[1], expected.as_matrix(), atol=1e-4)
