"""Single views: nothing in common, labels that lie on the picture."""

import dataclasses

import cv2
import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.data.synthetic import crops, grasps
from amt.data.synthetic.generator import generate
from amt.data.validation import ERRORS, check_sequences, survey
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry import cameras, mirror, primitives
from amt.robot import RenderUnavailable
from tests.data.conftest import TINY

HAND = hand_model.load()
SIZE = (160, 120)
K = np.array([[170.0, 0, 79.5], [0, 170.0, 59.5], [0, 0, 1]])
CROPS = dataclasses.replace(TINY, grasps="crops", num_sequences=4, num_frames=6, objects=(2, 4, 5), gesture_share=0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    try:
        list(generate(CROPS, root, num_workers=0))
    except RenderUnavailable as error:
        pytest.skip(str(error))
    return root


@pytest.fixture(scope="module")
def source(root):
    return DexYCB(root, "s0", "all", with_seg=True)


def shape(stride=1):
    return grasps.HandShape(HAND, np.zeros(10), stride)


def test_a_sequence_is_one_camera_and_only_the_chosen_objects(source):
    assert len(source) == CROPS.num_sequences * CROPS.num_frames
    assert [len(s.meta["serials"]) for s in source.sequences] == [1] * 4
    assert len({s.meta["serials"][0] for s in source.sequences}) == 2  # lenses
    assert {i for s in source.sequences for i in s.meta["ycb_ids"]} <= set(CROPS.objects)
    assert {s.meta["mano_sides"][0] for s in source.sequences} == {"left", "right"}


def test_it_is_a_data_set_without_mistakes(root):
    found = survey(root)
    for report in (found.report, *check_sequences(found, 0)):
        assert not set(report.counts) & set(ERRORS), report.first


def test_views_have_nothing_in_common(source):
    for first in range(0, len(source), CROPS.num_frames):
        views = [source[first + k] for k in range(CROPS.num_frames)]
        joints = np.stack([v["joints_3d"] - v["joints_3d"][0] for v in views])
        apart = np.linalg.norm(joints[:, None] - joints[None], axis=-1).mean(-1)
        assert apart[~np.eye(len(views), dtype=bool)].min() > 0.01
        images = np.stack([decode(v["color"]) for v in views]).astype(float)
        corners = images[:, :8, :8].mean((1, 2))
        assert np.ptp(corners, axis=0).max() > 20


def test_joints_lie_on_the_hand_that_is_drawn(source):
    """Of the joints inside the image that nothing hides, most lie on or next to a hand pixel."""
    shares = []
    for i in range(len(source)):
        sample = source[i]
        drawn = cv2.dilate((sample["seg"] == 255).astype(np.uint8), np.ones((7, 7)))
        pixels = np.rint(sample["joints_2d"]).astype(int)
        inside = ((pixels >= 0) & (pixels < SIZE)).all(-1)
        x, y = pixels[inside].T
        shown = ~np.isin(sample["seg"][y, x], list(OBJECTS))
        if shown.sum() > 5:
            shares.append(drawn[y, x][shown].mean())
    assert len(shares) > 10 and np.median(shares) > 0.9


def test_parameters_and_joints_agree(source):
    for i in (0, 7, 13, 20):
        sample = source[i]
        pose = sample["hand_pose"][None]
        if sample["is_left"]:
            pose = np.concatenate([mirror.mirror_hand_pose(pose[:, :48]), mirror.mirror_points(pose[:, 48:])], 1)
        joints = np.asarray(HAND(pose[0, :48], sample["betas"], pose[0, 48:])[0])
        truth = mirror.mirror_points(sample["joints_3d"]) if sample["is_left"] else sample["joints_3d"]
        np.testing.assert_allclose(joints, truth, atol=1e-4)


def test_held_objects_touch_and_others_stay_outside():
    rng = np.random.default_rng(0)
    played = crops.sample(rng, shape(crops.STRIDE), 12, 0.0, (2, 4, 5, 6), K, SIZE, left=False)
    touching = 0
    for n in range(12):
        half, axis = OBJECTS[played.ycb_ids[played.grasped]].primitive
        R, t = played.object_R[n, played.grasped], played.object_t[n, played.grasped]
        gap = np.asarray(primitives.signed_distance((played.vertices[n] - t) @ R, half, np.asarray(axis)))
        assert gap.min() > -0.02
        touching += gap.min() < 0.004
    assert touching >= 5  # the others are still on their way


def test_hands_are_in_the_image_before_the_camera():
    rng = np.random.default_rng(1)
    played = crops.sample(rng, shape(crops.STRIDE), 40, 1.0, (2, 4), K, SIZE, left=False)
    joints = (played.joints - crops.T_WORLD_CAMERA[:3, 3]) @ crops.T_WORLD_CAMERA[:3, :3]
    assert joints[..., 2].min() > crops.NEAREST
    pixels = cameras.project(joints, K)
    assert ((pixels > -0.5) & (pixels < np.array(SIZE) - 0.5)).all(-1).mean() > 0.8
    extent = np.ptp(pixels, axis=1).max(-1) / SIZE[1]
    assert extent.min() > 0.15 and extent.max() < 1.3 and np.ptp(extent) > 0.3
    assert played.grasped == -1


def test_a_left_hand_is_the_mirror_image():
    rng = [np.random.default_rng(2) for _ in range(2)]
    right, left = (
        crops.sample(r, shape(), 2, 0.0, (2, 4), K, SIZE, left=s) for r, s in zip(rng, (False, True), strict=True)
    )
    np.testing.assert_allclose(left.joints, right.joints * [-1, 1, 1])
    assert left.side == "left" and np.allclose(np.linalg.det(left.object_R), 1)


def test_an_object_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"generate.objects: \[19, 40\]"):
        list(generate(dataclasses.replace(CROPS, objects=(2, 19, 40)), tmp_path, 0))
