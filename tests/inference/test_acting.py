"""Chunks become commands without a look ahead."""

import numpy as np

from amt.inference.acting import play_chunks

TIMES = np.arange(30) / 30.0
STEPS = (1 + np.arange(10)) / 50.0
HOME = np.zeros(22)


def chunks_of(function):
    """Of a motion that every frame knows the next 0.2 s of."""
    return np.repeat(function(TIMES[:, None] + STEPS[None])[..., None], 22, axis=-1)


def test_a_motion_that_is_known_is_played_as_it_is():
    line = play_chunks(chunks_of(lambda t: 0.3 * t), TIMES, np.ones(30, bool), HOME, 50.0, 48)
    moments = np.maximum(np.arange(48) / 50.0, 0.02)  # the first chunk begins a step after its frame
    np.testing.assert_allclose(line, np.repeat(0.3 * moments[:, None], 22, 1), atol=1e-9)


def test_nothing_later_is_used():
    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(30, 10, 22))
    other = chunks.copy()
    other[18:] += 1.0
    a, b = (play_chunks(x, TIMES, np.ones(30, bool), HOME, 50.0, 50) for x in (chunks, other))
    first = int(np.ceil(TIMES[18] * 50))
    np.testing.assert_array_equal(a[:first], b[:first])
    assert np.abs(a[first:] - b[first:]).max() > 0.1


def test_without_a_hand_the_robot_holds():
    valid = np.ones(30, bool)
    valid[:6] = False
    valid[12:] = False
    made = play_chunks(chunks_of(lambda t: 1 + t), TIMES, valid, HOME, 50.0, 60)
    assert (made[: int(TIMES[6] * 50)] == 0).all()
    end = int(np.floor((TIMES[11] + STEPS[-1]) * 50)) + 1
    assert (made[end:] == made[end - 1]).all() and made[-1, 0] > 1.3
