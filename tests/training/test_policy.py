"""Windows of videos: whole, in order, and the same again from a saved state."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.errors import UserError
from amt.losses.actions import ActionLabels
from amt.models.temporal import Observation, on_table
from amt.robot import forward, load_robot
from amt.training.policy import PolicyBatch, turned, video_iterator


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


def test_a_turned_window_is_the_same_scene_on_another_side():
    """By the robot's own kinematics, and where lines of sight meet the table."""
    rng = np.random.default_rng(0)
    robot, angle, length = load_robot(), 0.7, 5
    low, high = robot.limits.T
    rotations = Rotation.random(length, random_state=0).as_matrix()
    fields = {f.name: np.zeros(length) for f in dataclasses.fields(Observation)}
    fields |= {name: rng.normal(size=(length, 3)) for name in ("object_position", "camera_position")}
    fields |= {"joints": rng.normal(size=(length, 21, 3)), "object_rotation": rotations}
    fields["qpos"] = rng.uniform(low / 2, high / 2, (length, 22)).astype(np.float32)
    commands = rng.uniform(low / 2, high / 2, (length, 3, 22)).astype(np.float32)
    wrist = np.asarray(forward(robot, commands, ("wrist",))["wrist"])
    labels = {f.name: np.zeros(length) for f in dataclasses.fields(ActionLabels)}
    labels |= {"commands": commands, "position": wrist[..., :3, 3], "rotation": wrist[..., :3, :3]}
    labels["approach"] = wrist[..., :3, 0]
    made = turned(PolicyBatch(Observation(**fields), ActionLabels(**labels)), angle)
    there = np.asarray(forward(robot, made.labels.commands, ("wrist",))["wrist"])
    np.testing.assert_allclose(made.labels.position, there[..., :3, 3], atol=1e-5)
    np.testing.assert_allclose(made.labels.rotation, there[..., :3, :3], atol=1e-5)
    np.testing.assert_allclose(made.labels.approach, there[..., :3, 0], atol=1e-5)
    hand = np.asarray(forward(robot, made.seen.qpos, ("wrist",))["wrist"])
    before = np.asarray(forward(robot, fields["qpos"], ("wrist",))["wrist"])
    for name in ("object_position", "camera_position"):  # as far from the robot's own hand as before
        np.testing.assert_allclose(
            np.linalg.norm(getattr(made.seen, name) - hand[:, :3, 3], axis=-1),
            np.linalg.norm(fields[name] - before[:, :3, 3], axis=-1),
            atol=1e-5,
        )
    met = on_table(fields["object_position"], fields["camera_position"])
    turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    np.testing.assert_allclose(on_table(made.seen.object_position, made.seen.camera_position), met @ turn.T, atol=1e-4)
    local = np.einsum("tji,tjk->tik", hand[:, :3, :3], made.seen.object_rotation)
    np.testing.assert_allclose(local, np.einsum("tji,tjk->tik", before[:, :3, :3], rotations), atol=1e-5)
