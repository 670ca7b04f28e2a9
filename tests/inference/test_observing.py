"""What perception says of a crop comes to where it is in the robot's base frame, mirrored for a left hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.inference.observing import crop_frames


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
