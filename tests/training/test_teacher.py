"""The teacher's commands do what they say, by MuJoCo C's kinematics; its lessons are kept and judged by replay."""

import dataclasses

import mujoco
import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.demonstrations import Demonstration
from amt.data.synthetic import physical, simulation
from amt.robot import build_scene, load_robot
from amt.training import lessons, teacher
from amt.training.action_labels import GRASPS, action_labels, grasp_kind
from amt.training.teacher import Start

NUM_FRAMES = 60  # one bucket of retargeting
SUGAR_BOX = 3


@pytest.fixture(scope="module")
def shown():
    """A hand that lifts a sugar box."""
    rng = np.random.default_rng(5)
    moved = physical.sample(rng, hand_model.load(), np.zeros(10), NUM_FRAMES, 0.0, 0, (SUGAR_BOX, 4))
    item, frames = moved.grasped, np.arange(NUM_FRAMES) * simulation.DURATION / NUM_FRAMES
    every = np.ones(NUM_FRAMES, bool)
    return Demonstration(
        frames, moved.joints, every, moved.object_t[:, item], moved.object_R[:, item], moved.ycb_ids[item], False
    )


def tips_at(commands, moment):
    """Index, middle, ring, thumb in the base frame."""
    model = build_scene().compile()
    data = mujoco.MjData(model)
    data.qpos[:22] = commands[round(moment * teacher.RATE)]
    mujoco.mj_kinematics(model, data)
    return np.stack([data.site(f"{finger}_tip").xpos for finger in ("ff", "mf", "rf", "th")])


def meeting(tips):
    return (tips[:2].mean(0) + tips[3]) / 2


def test_fingers_meet_where_the_start_says(shown):
    """At the grasp: at the object's middle for the robot's own grasp and for `centred`, else where the human's do."""
    moment = teacher.grasp_time(shown)
    k = int(np.argmin(np.abs(shown.time - moment)))
    human = (shown.joints[k, [8, 12]].mean(0) + shown.joints[k, 4]) / 2
    wanted = {
        Start("fit", 0.2, forward=1.0): human,
        Start("fit", 0.2, forward=1.0, centred=1.0): shown.object_pos[k],
        Start("fit", 1.0, own=0.0): shown.object_pos[0],
    }
    base = teacher.propose(shown, Start("fit")).T_base_world
    for start, place in wanted.items():
        made = teacher.propose(shown, start, base)
        there = base[:3, :3] @ place + base[:3, 3]
        assert np.linalg.norm(meeting(tips_at(made.commands, shown.time[k])) - there) < 0.03, start
        limits = load_robot().limits
        assert (made.commands >= limits[:, 0]).all() and (made.commands <= limits[:, 1]).all()
    palm = tips_at(made.commands, shown.time[k]).mean(0)
    assert palm[2] < (base[:3, :3] @ shown.object_pos[k] + base[:3, 3])[2] + 0.1


def test_the_object_goes_its_way_in_the_base_frame(shown):
    made = teacher.propose(shown, Start("fit"))
    world = (made.object_pos - made.T_base_world[:3, 3]) @ made.T_base_world[:3, :3]
    np.testing.assert_allclose(world[0], shown.object_pos[0], atol=1e-6)
    np.testing.assert_allclose(world[-1], shown.object_pos[-1], atol=1e-6)
    assert len(made.commands) == len(world) > shown.time[-1] * teacher.RATE


def test_a_lesson_is_the_first_start_that_lifts_everywhere(shown, monkeypatch):
    """Replays are what decides; here they are told."""
    monkeypatch.setattr(teacher, "LIKE_HUMAN", (Start("fit", 0.1), Start("fit", 0.2), Start("fit", 0.3)))
    outcomes = {0.1: 0.2, 0.2: 0.8, 0.3: 1.0}
    commands = {s: teacher.propose(shown, s).commands for s in teacher.LIKE_HUMAN}

    def told(tried, placed, enough=0.0):
        return next(outcomes[s.closing] for s, q in commands.items() if np.allclose(q, tried, atol=1e-4))

    monkeypatch.setattr(lessons, "lifted_share", told)
    lesson = lessons.teach(shown)
    assert (lesson.start, lesson.share) == (1, 0.8)
    assert lesson.touch.shape == (len(lesson.commands), 5)
    outcomes.update({0.2: 0.0, 0.3: 0.0})
    assert lessons.teach(shown).start == 0
    outcomes[0.1] = 0.0
    failed = lessons.teach(shown)
    assert (failed.start, failed.share) == (-1, 0.0)
    labels = action_labels(failed, shown.time, shown.valid, 10)
    assert not labels.valid.any() and not labels.lifts.any()


def test_lifted_means_held_up_to_the_end(shown):
    made = teacher.propose(shown, Start("fit"))
    played = teacher.play(made.commands[:40], made.placed)
    state = np.tile(played.state[:1], (80, 1))
    state[:, 24] = made.placed.pos[2] + 0.06
    assert teacher.lifted(dataclasses.replace(played, state=state), made.placed)
    state[-1, 24] -= 0.02
    assert not teacher.lifted(dataclasses.replace(played, state=state), made.placed)


def test_labels_are_the_commands_to_come(shown):
    made = teacher.propose(shown, Start("fit", 0.2))
    touch = np.zeros((len(made.commands), 5))
    touch[60:, [0, 3]] = 2.0
    lesson = lessons.Lesson(
        made.commands,
        made.object_pos,
        made.object_rot,
        touch,
        made.T_base_world,
        made.commands[0],
        shown.ycb_id,
        False,
        0,
        0.6,
    )
    labels = action_labels(lesson, np.array([0.0, 1.0, 1.21, 9.0]), np.array([True, True, False, True]), 10)
    np.testing.assert_allclose(labels.commands[1], made.commands[51:61], atol=1e-6)
    halfway = (made.commands[61] + made.commands[62]) / 2
    np.testing.assert_allclose(labels.commands[2, 0], halfway, atol=1e-5)
    np.testing.assert_allclose(labels.commands[3], np.tile(made.commands[-1], (10, 1)), atol=1e-6)
    assert labels.valid.tolist() == [True, True, False, True] and labels.lifts.all()
    assert [GRASPS[k] for k in labels.grasp[1, -2:]] == ["none", "thumb and index"]
    assert labels.force[1, -1] == 4.0
    spread = tips_at(made.commands, 1.02)
    assert labels.aperture[1, 0] == pytest.approx(np.linalg.norm(spread[:3].mean(0) - spread[3]), abs=1e-5)


def test_kinds_of_grasp():
    forces = {"none": [], "thumb and index": [0, 3], "thumb and middle": [1, 3], "thumb and ring": [2, 3],
              "thumb and two fingers": [1, 2, 3], "thumb and all fingers": [0, 1, 2, 3],
              "fingers without thumb": [0, 1], "thumb alone": [3], "palm and fingers": [0, 4],
              "palm alone": [4]}  # fmt: skip
    touch = np.array([[1.0 if k in pressed else 0.05 for k in range(5)] for pressed in forces.values()])
    assert [GRASPS[k] for k in grasp_kind(touch)] == list(forces) == list(GRASPS)
