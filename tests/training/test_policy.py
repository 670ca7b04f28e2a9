"""Windows of videos: whole, in order, and the same again from a saved state."""

import dataclasses

import numpy as np
import pytest

from amt.errors import UserError
from amt.losses.actions import ActionLabels
from amt.models.temporal import Observation
from amt.training.policy import PolicyBatch, video_iterator


def video(number, frames):
    """Every number of frame t is 100 x the video's + t."""
    value = (100.0 * number + np.arange(frames)).astype(np.float32)
    parts = ({f.name: value for f in dataclasses.fields(kind)} for kind in (Observation, ActionLabels))
    return PolicyBatch(Observation(**next(parts)), ActionLabels(**next(parts)))


VIDEOS = [video(number, 9 + number) for number in range(5)]


def test_windows_are_runs_of_frames_and_go_on_from_a_state():
    iterator = video_iterator(VIDEOS, 4, 2, seed=0)
    batches = [next(iterator) for _ in range(20)]
    state = iterator.get_state()
    after = next(iterator)
    for batch in batches:
        np.testing.assert_array_equal(batch.seen.qpos, batch.labels.commands)
        np.testing.assert_array_equal(np.diff(batch.seen.qpos, axis=1), np.ones((2, 3)))
    starts = np.concatenate([batch.seen.qpos[:, 0] for batch in batches])
    assert sorted(starts[:5] // 100) == sorted(starts[5:10] // 100) == [0, 1, 2, 3, 4]
    assert len(set(starts % 100)) > 3
    again = video_iterator(VIDEOS, 4, 2, seed=0)
    again.set_state(state)
    np.testing.assert_array_equal(next(again).seen.qpos, after.seen.qpos)


def test_a_window_longer_than_a_video_is_refused():
    with pytest.raises(UserError, match="config.train.window=10: expected 1 to 9"):
        video_iterator(VIDEOS, 10, 2, seed=0)
