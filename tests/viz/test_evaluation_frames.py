"""Frames of a report: the right ones are chosen, and drawn where hand and label are."""

import dataclasses

import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.viz.evaluation_frames import MESH, TILE, TRUTH, draw_sample, frames_section, pick
from amt.viz.overlay import FINGER_COLORS
from tests.data import layout
from tests.evaluation.tables import table

HAND = hand_model.load()

VIDEOS, FRAMES = 3, 7


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """As many videos and frames as `table` gives: one test sequence of s0, three cameras."""
    root = tmp_path_factory.mktemp("frames")
    layout.write(root, layout.SUBJECTS[2:], num_frames=FRAMES, size=(640, 480))
    return DexYCB(root, "s0", "test")


def test_frames_are_those_with_the_smallest_middle_and_largest_error():
    rng = np.random.default_rng(0)
    error, clip = rng.permutation(40).astype(float), np.arange(40)
    rows = pick(error, clip, 3)
    assert error[rows["best"]].tolist() == [0, 1, 2]
    assert error[rows["worst"]].tolist() == [39, 38, 37]
    assert set(error[rows["median"]]) <= {18, 19, 20, 21}


def test_a_video_gives_one_frame_at_most():
    error = np.array([0.0, 1, 2, 3, 4, 5])
    rows = pick(error, np.array([7, 7, 7, 9, 9, 9]), 4)
    assert rows["best"] == [0, 3] and rows["worst"] == [5, 2] and sorted(rows["median"]) == [2, 3]


def test_captions_name_frame_and_error(source):
    samples = table(VIDEOS, FRAMES)
    lost = np.ones(len(samples), bool)
    error = samples.root_relative_joint_error_mm.mean(-1)
    worst = int(error.argmax())
    lost[worst] = False
    section = frames_section(dataclasses.replace(samples, hand_found=lost), source, HAND)
    shown = {frames.heading: frames.pictures for frames in section.frames}
    caption = shown["The worst"][0].caption
    assert f"{error[worst]:.1f} mm root-relative" in caption and "no hand was found" in caption
    assert f"{samples.sequence[worst]}, camera {samples.camera[worst]}, frame {samples.frame[worst]}" in caption
    assert f"{error.min():.1f} mm root-relative" in shown["The best"][0].caption
    assert all(picture.image.shape == (TILE, TILE, 3) for pictures in shown.values() for picture in pictures)


def posed(samples, row, joints):
    """The row with label and prediction at `joints`, a mesh far away and no object."""
    changed = {name: getattr(samples, name).copy() for name in ("true_joints_m", "joints_m", "transl_m", "object_id")}
    changed["true_joints_m"][row], changed["joints_m"][row] = joints
    changed["transl_m"][row], changed["object_id"][row] = [0, 0, -5], 0
    return dataclasses.replace(samples, **changed, contact_confidence=samples.contact_confidence * 0)


def pixels(image, color, tolerance=40):
    return (np.abs(image.astype(int) - color).max(-1) < tolerance).sum()


def test_prediction_covers_the_label_where_they_agree():
    samples, gray = table(1, 1), np.full((480, 640, 3), 90, np.uint8)
    joints = np.random.default_rng(1).normal(0, 0.05, (21, 3)) + [0, 0, 0.6]
    same = draw_sample(posed(samples, 0, (joints, joints)), 0, gray, HAND)
    apart = draw_sample(posed(samples, 0, (joints + [0.1, 0, 0], joints)), 0, gray, HAND)
    assert all(pixels(same, color) for color in FINGER_COLORS.values())
    assert pixels(apart, TRUTH) > 10 * max(pixels(same, TRUTH), 1)


@pytest.mark.parametrize("joints", [[0, 0, -0.5], [0, 0, 0], [9, 9, 0.5], [0, 0, 1e-4]])
def test_a_prediction_of_any_place_can_be_drawn(joints):
    samples, gray = table(1, 1), np.full((480, 640, 3), 90, np.uint8)
    truth = np.random.default_rng(1).normal(0, 0.05, (21, 3)) + [0, 0, 0.6]
    image = draw_sample(posed(samples, 0, (truth, np.tile(np.float64(joints), (21, 1)))), 0, gray, HAND)
    assert image.shape == (TILE, TILE, 3) and pixels(image, TRUTH)


def test_hand_and_object_of_the_prediction_are_drawn():
    samples, black = table(1, 1), np.zeros((480, 640, 3), np.uint8)
    truth = np.random.default_rng(1).normal(0, 0.05, (21, 3)) + [0, 0, 0.6]
    bare = posed(samples, 0, (truth, truth))
    pose = np.concatenate([np.eye(3), [[0], [0], [0.6]]], -1)[None].astype(np.float32)
    eyes = np.tile(np.eye(3, dtype=np.float32), (1, 15, 1, 1))
    hand = {"transl_m": np.float32([[0, 0, 0.6]]), "global_orient": eyes[:, 0], "hand_pose": eyes}
    held = {"object_id": np.int32([3]), "object_pose_m": pose, "true_object_pose_m": pose}
    drawn = [draw_sample(dataclasses.replace(bare, **more), 0, black, HAND).sum() for more in ({}, hand, held)]
    assert drawn[1] > drawn[0] and drawn[2] > drawn[0]


def test_the_mesh_of_a_left_hand_is_mirrored_back():
    """Its parameters are those of a right hand in the mirrored frame."""
    samples, black = table(1, 1), np.zeros((480, 640, 3), np.uint8)
    truth = np.random.default_rng(1).normal(0, 0.05, (21, 3)) + [0, 0, 0.6]
    eyes = np.tile(np.eye(3, dtype=np.float32), (1, 15, 1, 1))
    hand = {"transl_m": np.float32([[0.12, 0, 0.6]]), "global_orient": eyes[:, 0], "hand_pose": eyes}
    bare = dataclasses.replace(posed(samples, 0, (truth, truth)), **hand, betas=np.zeros((1, 10), np.float32))
    drawn = [
        draw_sample(dataclasses.replace(bare, predicted_left=np.array([left])), 0, black, HAND)
        for left in (False, True)
    ]
    right, left = (np.nonzero(np.abs(image.astype(int) - MESH).max(-1) < 40)[1].mean() for image in drawn)
    assert left < right
