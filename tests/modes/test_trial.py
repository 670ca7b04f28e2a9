"""A policy acts on a clip before the clip's object; what it is given and what is made of its chunks."""

import json
import types
from importlib import resources

import cv2
import numpy as np
import pytest

from amt.data.scene_objects import scene_object
from amt.inference.video import open_clip
from amt.modes import demo
from amt.modes import trial as trials
from amt.modes.trial import Trial
from amt.robot import build_scene, load_robot, replay
from amt.structs import Camera, Trajectory
from amt.training.teacher import HOLD, RATE
from configs import demo as demo_config

FRAMES, FPS = 6, 30.0
HOME = load_robot().limits.mean(1)
PLACED = scene_object(3, np.array([0.5, 0.0, 0.09]), np.eye(3))
TRIAL = Trial(np.eye(4), HOME, PLACED)


@pytest.fixture
def source(tmp_path):
    for k in range(FRAMES):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((40, 60, 3), 10 * k, np.uint8))
    return open_clip(tmp_path)


def test_commands_are_those_of_the_chunks_and_stay_after_the_video(source, monkeypatch):
    """Every frame says where the robot should be at a time: commands between frames are in between."""
    told = {}

    class Stream:
        def __init__(self, predictor, policy, camera, T_base_world, q, is_left):
            told.update(q=q, is_left=is_left, seen=[])

        def __call__(self, image):
            k = len(told["seen"])
            told["seen"].append(int(image[0, 0, 0]))
            steps = k / FPS + np.arange(1, 11) / RATE
            return types.SimpleNamespace(chunk=HOME + 0.1 * steps[:, None], valid=k != 2)

    monkeypatch.setattr(trials, "PolicyStream", Stream)
    monkeypatch.setattr(trials, "build_policy", lambda *_: None)
    predictor = types.SimpleNamespace(settings={"policy": {"fusion": {}, "actions": {}}})
    made, frames = trials.act(source, predictor, Camera(np.eye(3), np.eye(4)), TRIAL, True)
    assert told["seen"] == [10 * k for k in range(FRAMES)] and told["is_left"] and told["q"] is HOME
    last = (FRAMES - 1) / FPS
    np.testing.assert_allclose(made.time, np.arange(0, last + HOLD, 1 / RATE), atol=1e-6)
    np.testing.assert_array_equal(frames, np.minimum(np.floor(made.time * FPS + 1e-4), FRAMES - 1))
    np.testing.assert_array_equal(made.valid, frames != 2)
    reached = (made.time >= 1 / RATE) & (made.time <= last)
    expected = HOME + 0.1 * made.time[reached, None]
    np.testing.assert_allclose(made.qpos[reached], expected, atol=1e-4)
    np.testing.assert_array_equal(made.qpos[-5:], np.tile(made.qpos[-1], (5, 1)))


def test_commands_stay_inside_the_limits(source, monkeypatch):
    """Where the policy asks for the limits themselves, and for more."""
    low, high = load_robot().limits.T

    class Stream:
        def __init__(self, *_):
            self.asks = iter([high, high + 1, low, low - 1, high, low])

        def __call__(self, image):
            return types.SimpleNamespace(chunk=np.tile(next(self.asks), (10, 1)), valid=True)

    monkeypatch.setattr(trials, "PolicyStream", Stream)
    monkeypatch.setattr(trials, "build_policy", lambda *_: None)
    predictor = types.SimpleNamespace(settings={"policy": {"fusion": {}, "actions": {}}})
    made, _ = trials.act(source, predictor, Camera(np.eye(3), np.eye(4)), TRIAL, False)
    assert (made.qpos > low).all() and (made.qpos < high).all()


def test_an_object_that_nobody_touches_is_not_lifted():
    n = int(RATE)
    still = Trajectory(
        np.arange(n) / RATE, np.tile(HOME, (n, 1)), np.ones(n, bool), np.eye(4), load_robot().joint_names
    )
    found = trials.lift(replay(still, build_scene([PLACED])), PLACED)
    assert found["object_lifted"] is False and abs(found["object_raised_mm"]) < 5


def test_the_embedded_trial_stands_on_its_table():
    """Its object's lowest corner is on the table, within the robot's reach, and its joints are within their limits."""
    with resources.as_file(resources.files("amt.inference").joinpath("assets")) as assets:
        said, trial = json.loads((assets / "demo_clip.json").read_text()), Trial.read(assets / "demo_clip.json")
    assert set(said) == {"K", "T_world_camera", "trial"}
    low, high = load_robot().limits.T
    assert (trial.home >= low).all() and (trial.home <= high).all()
    T = np.array(said["trial"]["T_base_object"])
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-4)
    assert 0.2 < np.linalg.norm(T[:2, 3]) < 1.0 and 0 < T[2, 3] < 0.2
    np.testing.assert_allclose(trial.T_base_world[2], [0, 0, 1, 0], atol=1e-5)


def test_the_trial_is_for_right_sides_and_weights_with_a_policy(capsys):
    with resources.as_file(resources.files("amt.inference").joinpath("assets")) as assets:
        path, config = assets / "demo_clip.json", demo_config.get_config()
        assert demo._trial(config, path).placed == Trial.read(path).placed
        assert capsys.readouterr().err == ""
        for section, name in (("retarget", "left"), ("predict", "left")):
            other = demo_config.get_config()
            other[section].side = name
            assert demo._trial(other, path) is None and "right robot" in capsys.readouterr().err
