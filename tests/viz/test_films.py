"""Ghosts stand where the human's objects stood, seen from the hand; a left hand is mirrored with them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.robot import human_tips
from amt.structs import Camera, Contacts, HandPose, ObjectPoses, Prediction
from amt.viz.films import ghost_objects, ghost_poses

RNG = np.random.default_rng(0)
FRAMES = 6


def random_transform():
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(rng=RNG).as_matrix(), RNG.normal(size=3)
    return T


def make_prediction(is_left):
    joints = RNG.normal(size=(FRAMES, 21, 3)) * 0.1 + [0, 0, 0.6]
    pose = np.dstack([Rotation.random(2 * FRAMES, rng=RNG).as_matrix(), RNG.normal(size=(2 * FRAMES, 3))])
    valid = np.ones((FRAMES, 2), bool)
    valid[2:4, 0] = valid[0, 1] = False
    return Prediction(
        hand=HandPose(
            global_orient=np.tile(np.eye(3), (FRAMES, 1, 1)),
            hand_pose=np.tile(np.eye(3), (FRAMES, 15, 1, 1)),
            betas=np.zeros((FRAMES, 10)),
            transl=joints[:, 0],
            joints=joints,
            vertices=np.zeros((FRAMES, 778, 3)),
            is_left=np.full(FRAMES, is_left),
            valid=np.ones(FRAMES, bool),
        ),
        joint_confidence=np.ones((FRAMES, 21)),
        side_confidence=np.ones(FRAMES),
        objects=ObjectPoses(
            pose=pose.reshape(FRAMES, 2, 3, 4),
            ycb_ids=np.tile([3, 10], (FRAMES, 1)),
            confidence=np.ones((FRAMES, 2)),
            valid=valid,
        ),
        contacts=Contacts(
            points=np.zeros((FRAMES, 1, 3)),
            confidence=np.zeros((FRAMES, 1)),
            kind=np.zeros((FRAMES, 1), int),
            force=np.zeros((FRAMES, 1, 3)),
        ),
        camera=Camera(K=np.eye(3), T_world_camera=random_transform()),
    )


@pytest.mark.parametrize("is_left", [False, True])
def test_ghosts_keep_their_distance_to_the_fingertips(is_left):
    prediction, T_base_world = make_prediction(is_left), random_transform()
    poses = ghost_poses(prediction, T_base_world)
    assert list(poses) == [item.name for item in ghost_objects(prediction)] == ["004_sugar_box", "011_banana"]
    tips = human_tips(prediction.hand, T_base_world, prediction.camera.T_world_camera)
    for slot, T in enumerate(poses.values()):
        seen = prediction.objects.valid[:, slot]
        apart = np.linalg.norm(tips - T[:, None, :3, 3], axis=-1)
        human = prediction.hand.joints[:, 4::4] - prediction.objects.pose[:, slot, None, :, 3]
        np.testing.assert_allclose(apart[seen], np.linalg.norm(human, axis=-1)[seen], atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(T[:, :3, :3]), 1, atol=1e-6)


def test_a_ghost_that_is_lost_stays():
    box, banana = ghost_poses(make_prediction(False), np.eye(4)).values()
    np.testing.assert_array_equal(box[2:4], box[[1, 1]])
    np.testing.assert_array_equal(banana[0], banana[1])
