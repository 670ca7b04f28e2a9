"""What perception says of a crop comes to where it is in the robot's base frame, mirrored for a left hand."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.inference.observing import crop_frames, misplaced
from amt.models.temporal import Observation
from amt.robot import load_robot


@pytest.mark.parametrize("mirrored", [False, True])
def test_points_of_a_crop_come_to_the_base(mirrored):
    """A left hand's crop is of the camera's picture flipped: x is negated before the crop's turn."""
    rng = np.random.default_rng(0)
    T_base_world, T_world_camera = np.eye(4), np.tile(np.eye(4), (3, 1, 1))
    T_base_world[:3, :3], T_base_world[:3, 3] = Rotation.random(random_state=1).as_matrix(), rng.normal(size=3)
    T_world_camera[:, :3, :3] = Rotation.random(3, random_state=2).as_matrix()
    T_world_camera[:, :3, 3] = rng.normal(size=(3, 3))
    R_crop_camera = Rotation.random(3, random_state=3).as_matrix()
    point = rng.normal(size=(3, 3))  # in the world, one a frame
    seen = np.einsum("tji,tj->ti", T_world_camera[:, :3, :3], point - T_world_camera[:, :3, 3])
    flip = np.array([-1.0, 1.0, 1.0]) if mirrored else np.ones(3)
    crop = np.einsum("tij,tj->ti", R_crop_camera, seen * flip)
    found = crop_frames(T_base_world, T_world_camera, R_crop_camera, mirrored)
    there = np.einsum("tij,tj->ti", found[:, :3, :3], crop) + found[:, :3, 3]
    expected = (point * flip) @ T_base_world[:3, :3].T + T_base_world[:3, 3]
    np.testing.assert_allclose(there, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(found[:, :3, :3]), 1, atol=1e-5)


def test_what_is_misplaced_is_nearer_or_aside_and_keeps_its_form():
    rng = np.random.default_rng(0)
    camera = np.tile([0.1, -0.9, 0.8], (1, 1))
    joints = rng.normal([0.5, 0.1, 0.2], 0.05, (1, 21, 3)).astype(np.float32)
    fields = {f.name: np.zeros(1) for f in dataclasses.fields(Observation)}
    fields |= {"joints": joints, "camera_position": camera, "object_position": joints[:, 9]}
    seen = Observation(**fields | {"valid": np.ones(1, bool)})
    distances, angles = [], []
    for made in misplaced(load_robot(), seen, np.zeros(22), rng, 0.05, 0.02, 40):
        a, b = joints[0] - camera[0], np.asarray(made.joints[0]) - camera[0]
        scale = np.linalg.norm(b, axis=-1) / np.linalg.norm(a, axis=-1)
        np.testing.assert_allclose(scale, scale[0], rtol=1e-5)
        spread = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (a, b)]
        np.testing.assert_allclose(spread[1], scale[0] * spread[0], atol=1e-5)
        distances.append(np.log(scale[0]))
        angles.append(np.arccos(np.clip((a[0] @ b[0]) / np.linalg.norm(a[0]) / np.linalg.norm(b[0]), -1, 1)))
        assert np.abs(made.object_position[0] - made.joints[0, 9]).max() > 1e-3  # each has its own error
        assert np.abs(np.asarray(made.qpos)).max() > 0
    assert np.std(distances) == pytest.approx(0.05, rel=0.35)
    assert np.sqrt(np.mean(np.square(angles)) / 2) == pytest.approx(0.02, rel=0.35)
