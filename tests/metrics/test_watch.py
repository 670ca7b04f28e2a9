"""Motion and collapse: closed forms and NumPy."""

import numpy as np
import pytest
from scipy.stats import entropy

from amt import metrics


def test_jitter_is_acceleration():
    """On a circle of 5 cm at 2 Hz: (2 pi 2)^2 0.05 = 7.9 m/s^2; a broken frame does not count."""
    rate = 240.0
    t = np.arange(120) / rate
    circle = 0.05 * np.stack([np.cos(4 * np.pi * t), np.sin(4 * np.pi * t), 0 * t], -1)
    points = np.tile(circle[None, :, None], (2, 1, 21, 1)).astype(np.float32)
    valid = np.ones((2, 120), bool)
    points[1, 50], valid[1, 50] = 3, False
    expected = (4 * np.pi) ** 2 * 0.05
    np.testing.assert_allclose(metrics.jitter(points, valid, rate), expected, rtol=1e-2)  # second differences at 240 Hz
    assert not np.asarray(metrics.jitter(points, np.zeros_like(valid), rate)).any()


def test_spread_ratio_sees_a_collapse():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, (6, 21, 3)).astype(np.float32)
    valid = np.array([True, True, True, False, True, True])
    predicted = (0.3 * truth + rng.normal(0, 1, (6, 1, 3))).astype(np.float32)  # where the hand is does not count
    predicted[3] = 9
    assert metrics.spread_ratio(truth, truth, valid) == pytest.approx(1, rel=1e-5)
    assert metrics.spread_ratio(predicted, truth, valid) == pytest.approx(0.3, rel=1e-4)
    assert metrics.spread_ratio(np.tile(truth[:1], (6, 1, 1)), truth, valid) < 1e-6
    assert metrics.spread_ratio(truth, np.zeros_like(truth), valid) == 0
    relative = (truth - truth[:, :1])[valid].astype(float)
    plain = np.sqrt(((relative - relative.mean(0)) ** 2).sum(-1).mean())
    assert metrics.spread(relative.astype(np.float32), np.ones(5, bool)) == pytest.approx(plain, rel=1e-5)


def test_entropy_shares_are_of_even_attention():
    stored = {"a": {"heads": (np.float32([[0.5, 1.0], [2.0, 2.0]]),)}, "b": [np.float32([[0.0], [0.0]])]}
    np.testing.assert_allclose(metrics.entropy_shares(stored), [0.25, 0.5, 1.0])


def test_attention_entropy_is_scipys():
    p = np.random.default_rng(1).dirichlet(np.full(9, 0.3), (2, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(metrics.attention_entropy(p), entropy(p, axis=-1).mean(-1), rtol=1e-4)
    one_hot = np.broadcast_to(np.eye(9, dtype=np.float32)[:5], (2, 4, 5, 9))
    assert not np.asarray(metrics.attention_entropy(one_hot)).any()
