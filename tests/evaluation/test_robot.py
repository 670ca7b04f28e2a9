"""Trials of the robot: what is counted, by hand and against scipy."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest

from amt.data.demonstrations import Demonstration
from amt.evaluation import robot
from amt.models.temporal import Observation
from amt.robot.replay import Replay
from amt.training import teacher
from amt.training.lessons import Lesson
from tests.robot.hands import smooth_motion

N = 60


@pytest.mark.parametrize(("count", "total"), [(0, 20), (7, 20), (20, 20), (61, 120)])
def test_intervals_are_scipys(count, total):
    theirs = binomtest(count, total).proportion_ci(method="wilson")
    np.testing.assert_allclose(robot.wilson(count, total), (theirs.low, theirs.high), atol=1e-4)


def test_a_trial_says_what_the_replay_shows(monkeypatch):
    """The object rises 10 cm with a wrist that stands, off its way by 3 cm; the strongest contact has 7 N."""
    commands = np.tile(smooth_motion(1)[0].astype(np.float64), (N, 1))
    path = np.zeros((N, 3)) + [0.5, 0.0, 0.05]
    lesson = Lesson(
        commands, path, np.tile(np.eye(3), (N, 1, 1)), np.zeros((N, 5)), np.eye(4), commands[0], 2, False, 0, 1.0
    )
    state = np.zeros((N, 29))
    state[:, :22], state[:, 22:25] = commands, path + [0.03, 0.0, 0.0]
    state[20:, 24] += 0.1
    state[-1, 22] += 0.004
    peak = np.zeros(N)
    peak[30] = 7.0
    none = np.zeros(N, int)
    played = Replay(np.arange(N) / 50, state, np.full((N, 22), 0.1), none, none, np.zeros((N, 5)), peak)
    monkeypatch.setattr(teacher, "play", lambda q, placed: played)
    found = robot.trial(commands, lesson)
    assert found["lifted"] == 1 and found["peak_force_n"] == 7
    assert found["tips_mm"] == found["wrist_mm"] == 0
    assert found["slip_mm"] == pytest.approx(4, abs=1e-3)
    assert found["effort_rad2"] == pytest.approx(0.01)
    off = np.linalg.norm(state[:, 22:25] - path, axis=-1).mean()
    assert found["object_position_mm"] == pytest.approx(1e3 * off)
    state[-1, 24] -= 0.06
    dropped = robot.trial(commands, lesson)
    assert dropped["lifted"] == 0 and np.isnan(dropped["slip_mm"])
    figures = robot.summary({"policy": [found, dropped]})
    assert figures["policy_lift_share"] == 0.5 and figures["policy_slip_mm"] == pytest.approx(4, abs=1e-3)
    assert figures["policy_lift_share_low"] < 0.5 < figures["policy_lift_share_high"]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_perfect_prediction_is_the_demonstration(mirrored):
    """Joints of the camera's frame come back into the (mirrored) world of the demonstration."""
    rng = np.random.default_rng(0)
    world = rng.normal(size=(4, 21, 3))
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, :3], T[:, :3, 3] = R * np.linalg.det(R), rng.normal(size=3)
    camera = (world - T[:, None, :3, 3]) @ T[0, :3, :3]
    shown = Demonstration(
        np.arange(4) / 30, world * [-1, 1, 1] if mirrored else world, np.ones(4, bool), np.zeros((4, 3)),
        np.tile(np.eye(3), (4, 1, 1)), 2, mirrored,
    )  # fmt: skip
    valid = np.array([True, False, True, True])
    again = robot.as_predicted(shown, camera, valid, T)
    np.testing.assert_allclose(again.joints, shown.joints, atol=1e-12)
    assert again.valid is valid
    assert dataclasses.replace(again, joints=shown.joints, valid=shown.valid).mirrored == mirrored


def test_what_is_seen_is_off_by_what_it_was_moved_by():
    """Seen 30 mm to the side, the fingers 40 mm above that, the object 50 mm below it; in one frame not at all."""
    rng = np.random.default_rng(0)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec([0.1, -0.2, 2.0]).as_matrix(), [0.4, -0.1, 0.2]
    joints, path = rng.normal(size=(3, 21, 3)), rng.normal(size=(3, 3))
    eye = np.tile(np.eye(3), (3, 1, 1))
    shown = Demonstration(np.arange(3) / 30, joints, np.ones(3, bool), path, eye, 2, False)

    def moved(points, offset):
        return points @ T[:3, :3].T + T[:3, 3] + offset

    seen = Observation(**dict.fromkeys(Observation.__dataclass_fields__)).replace(
        joints=moved(joints, [0.03, 0, 0]) + np.r_[0.0, np.full(20, 0.04)][None, :, None] * [0, 0, 1],
        object_position=moved(path, [0.03, 0, -0.05]),
        valid=np.array([True, False, True]),
    )
    seen.joints[1] += 9.0
    found = robot.sight(seen, shown, T)
    assert found["joints_mm"] == pytest.approx((30 + 20 * 50) / 21)
    assert found["joints_from_wrist_mm"] == pytest.approx(20 * 40 / 21)
    assert found["object_mm"] == pytest.approx(np.hypot(30, 50))
