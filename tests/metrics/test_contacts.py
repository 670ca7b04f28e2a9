"""Contact figures against loops over points."""

import numpy as np
import pytest

from amt import metrics


def sets(seed=0):
    """Predicted and true contacts of five hands, within about a centimetre, some not there."""
    rng = np.random.default_rng(seed)
    points, truth = (rng.normal(0, 0.004, (5, n, 3)).astype(np.float32) for n in (8, 10))
    present, valid = rng.random((5, 8)) < 0.7, rng.random((5, 10)) < 0.6
    valid[3] = False
    return points, present, truth, valid


def test_precision_recall_and_f1_equal_loops():
    points, present, truth, valid = sets()
    right = found = 0
    for p, here, t, known in zip(points, present, truth, valid, strict=True):
        right += sum(any(np.linalg.norm(x - y) <= 0.005 for y in t[known]) for x in p[here])
        found += sum(any(np.linalg.norm(x - y) <= 0.005 for x in p[here]) for y in t[known])
    counts = metrics.contact_counts(points, present, truth, valid)
    precision, recall, f1 = metrics.precision_recall_f1(counts)
    assert 0 < right < present.sum() and 0 < found < valid.sum()
    assert precision == pytest.approx(right / present.sum()) and recall == pytest.approx(found / valid.sum())
    both = right / present.sum(), found / valid.sum()
    assert f1 == pytest.approx(2 * both[0] * both[1] / sum(both))


def test_nothing_predicted_is_no_division_by_zero():
    points, present, truth, valid = sets()
    counts = metrics.contact_counts(points, np.zeros_like(present), truth, valid)
    assert [float(x) for x in metrics.precision_recall_f1(counts)] == [0, 0, 0]


def test_the_nearest_contact_is_the_label_of_a_prediction():
    points, present, truth, valid = sets()
    index, near = metrics.nearest_contact(points, present, truth, valid)
    for b in range(5):
        for q in range(8):
            gaps = np.where(valid[b], np.linalg.norm(truth[b] - points[b, q], axis=-1), np.inf)
            assert bool(near[b, q]) == bool(present[b, q] and gaps.min() <= 0.005)
            if near[b, q]:
                assert index[b, q] == gaps.argmin()


def test_kinds_and_forces_count_where_they_are_known():
    kind, truth = np.array([[0, 1, 2, 3]]), np.array([[0, 2, -1, 3]])
    valid = np.array([[True, True, True, False]])
    assert metrics.kind_accuracy(kind, truth, valid) == pytest.approx(1 / 2)
    force = np.float32([[[3, 4, 0], [0, 0, 12], [1, 1, 1], [0, 99, 0]]])
    label = np.float32([[[0, 0, 0], [0, 0, 10], [np.nan] * 3, [0, 0, 0]]])
    assert metrics.force_error(force, label, valid) == pytest.approx((5 + 2) / 2)
    assert metrics.excess_force_share(force, valid) == pytest.approx(1 / 3)
    assert metrics.force_error(force, label, np.zeros_like(valid)) == 0
