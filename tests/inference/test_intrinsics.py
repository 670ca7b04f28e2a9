"""The camera of a clip: given, assumed, or refused."""

import numpy as np
import pytest

from amt.errors import UserError
from amt.inference.intrinsics import make_camera

K = (600.0, 0, 319.5, 0, 610, 239.5, 0, 0, 1)


def test_a_given_camera_is_taken_as_it_is():
    T = np.eye(4)
    T[:3, 3] = [1, 2, 3]
    for numbers, pose in ((K, T.ravel()), (np.reshape(K, (3, 3)).tolist(), T[:3].ravel()), (K, T[:3])):
        camera, assumptions = make_camera(numbers, pose, 640, 480, 0.96)
        np.testing.assert_allclose(camera.K, np.reshape(K, (3, 3)))
        np.testing.assert_allclose(camera.T_world_camera, T)
        assert assumptions == ()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_an_unknown_camera_has_the_field_of_view_along_its_longer_side_and_is_level(width, height):
    camera = make_camera((), (), width, height, np.pi / 3).camera
    K, T = camera.K, camera.T_world_camera
    assert K[0, 0] == K[1, 1] == pytest.approx(320 / np.tan(np.pi / 6))
    np.testing.assert_allclose(K[:2, 2], [(width - 1) / 2, (height - 1) / 2])
    np.testing.assert_allclose(T[:3, :3] @ [0, 1, 0], [0, 0, -1], atol=1e-7)  # down in the image is down
    np.testing.assert_allclose(np.linalg.det(T[:3, :3]), 1)


def test_assumptions_are_said():
    said = " ".join(make_camera((), (), 640, 480, np.pi / 3).assumptions)
    assert "a field of view of 60 degrees" in said and "554 pixels" in said and "level" in said
    assert "outside" in make_camera((600, 0, 960, 0, 600, 540, 0, 0, 1), (), 640, 480, 1.0).assumptions[0]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((600, 0, 320, 0), "found 4, expected 3x3"),
        (600.0, "found one number, expected 3x3"),
        (np.eye(4).tolist(), "found 4x4"),
        ("wide", "expected 3x3 numbers"),
        (((1, 2), (3,)), "expected 3x3 numbers"),
        ((0, 0, 320, 0, 600, 240, 0, 0, 1), "positive .* fx=0"),
        ((600, 0, 320, 0, -600, 240, 0, 0, 1), "positive .* fy=-600"),
        ((np.nan, 0, 320, 0, 600, 240, 0, 0, 1), "finite"),
        ((600, 0, 0, 0, 600, 0, 320, 240, 1), "transposed"),
    ],
)
def test_intrinsics_that_are_none_are_refused(numbers, says):
    with pytest.raises(UserError, match=f"camera.K.*{says}"):
        make_camera(numbers, (), 640, 480, 0.96)


@pytest.mark.parametrize("pose", [np.eye(3), 2 * np.eye(4), np.diag([1.0, 1, -1, 1]), np.full(16, np.inf)])
def test_a_pose_that_is_none_is_refused(pose):
    with pytest.raises(UserError, match="camera.T_world_camera"):
        make_camera(K, pose, 640, 480, 0.96)


@pytest.mark.parametrize("fov", [0.0, -1.0, 4.0])
def test_a_field_of_view_that_is_none_is_refused(fov):
    with pytest.raises(UserError, match="horizontal_fov"):
        make_camera((), (), 640, 480, fov)
