"""The camera of a clip: given, assumed, or refused."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.errors import UserError
from amt.inference.intrinsics import make_camera

K = (600.0, 0, 319.5, 0, 610, 239.5, 0, 0, 1)


def looking(height, pitch, roll=0.0, yaw=30.0, xy=(-0.5, 0.2)):
    """T_world_camera that looks down by `pitch` and is turned about its axis by `roll`, degrees."""
    R_world_level = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    T = np.eye(4)
    turns = Rotation.from_euler("z", yaw, degrees=True), Rotation.from_euler("XZ", [-pitch, roll], degrees=True)
    T[:3, :3] = turns[0].as_matrix() @ R_world_level @ turns[1].as_matrix()
    T[:3, 3] = [*xy, height]
    return T


def test_a_given_camera_is_taken_as_it_is():
    T = looking(0.8, 35)
    for numbers, pose in ((K, T.ravel()), (np.reshape(K, (3, 3)).tolist(), T[:3].ravel()), (K, T[:3])):
        camera, assumptions, _ = make_camera(numbers, pose, 640, 480, 0.96)
        np.testing.assert_allclose(camera.K, np.reshape(K, (3, 3)))
        np.testing.assert_allclose(camera.T_world_camera, T, rtol=1e-6)
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
        ((0.94, 0, 0.5, 0, 1.25, 0.5, 0, 0, 1), "normalised by the image size; multiply row 1 by 640 and row 2 by 480"),
        ((1.8, 0, 0, 0, 2.4, 0, 0, 0, 1), "normalised"),
        ((4.2, 0, 320, 0, 4.2, 240, 0, 0, 1), "millimetres"),
        ((1e7, 0, 320, 0, 1e7, 240, 0, 0, 1), "0.00367 degrees"),
        ((30, 0, 320, 0, 30, 240, 0, 0, 1), "169 degrees"),
        ((600, 0, 5000, 0, 600, 240, 0, 0, 1), "principal point .* 83 degrees"),
        ((600, 320, 0, 0, 600, 240, 0, 0, 1), "skew of 320 cannot be"),
        ((600, 0, 320, 0, 0.9, 240, 0, 0, 1), "too different"),
        ((600, 0, 320, 0, 600, 240, 0, 0, 2), "expected fx,s,cx"),
    ],
)
def test_intrinsics_that_are_none_are_refused(numbers, says):
    with pytest.raises(UserError, match=f"camera.K.*{says}"):
        make_camera(numbers, (), 640, 480, 0.96)


@pytest.mark.parametrize(("focal", "cx"), [(200, 320), (6000, 320), (600, 250), (600, 400), (600, 1100)])
def test_unusual_lenses_and_crops_are_taken(focal, cx):
    """Wide, tele, not centred, cut out of a larger frame."""
    assert make_camera((focal, 0, cx, 0, focal, 239.5, 0, 0, 1), (), 640, 480, 1.0).camera.K[0, 0] == focal


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((1200, 0, 640, 0, 1200, 480, 0, 0, 1), "frames of 1280x960 pixels, .*first two rows by 0.5"),
        ((300, 0, 159.5, 0, 300, 119.5, 0, 0, 1), "frames of 320x240 pixels, .*first two rows by 2"),
        ((600, 0, 240, 0, 600, 320, 0, 0, 1), "frames of 480x640 pixels on their side"),
    ],
)
def test_intrinsics_that_seem_to_be_of_another_size_are_said(numbers, says):
    """They may be right where the frames are cut out of larger ones."""
    (said, _) = make_camera(numbers, (), 640, 480, 1.0).assumptions
    assert re.search(says, said)


def test_pixels_that_are_not_square_are_said():
    said = make_camera((300, 0, 319.5, 0, 600, 239.5, 0, 0, 1), (), 640, 480, 1.0).assumptions[0]
    assert "not square" in said and "as players show them" in said


MIRROR = np.diag([1.0, 1, -1, 1])


@pytest.mark.parametrize(
    ("pose", "says"),
    [
        (np.eye(3), "found 3x3"),
        (2 * np.eye(4), "last row"),
        (np.full(16, np.inf), "finite"),
        (looking(0.8, 35) @ MIRROR, "it mirrors"),
        (np.diag([1000.0, 1000, 1000, 1]) @ looking(0.8, 35), "scaled by 1000"),
        (looking(0.8, 35) + np.eye(4, k=1), "not orthogonal"),
        (looking(0.8, 35).T, "transposed"),
        (np.zeros((3, 4)), "not orthogonal"),
    ],
)
def test_a_pose_that_is_none_is_refused(pose, says):
    with pytest.raises(UserError, match=f"camera.T_world_camera.*{says}"):
        make_camera(K, pose, 640, 480, 0.96)


@pytest.mark.parametrize(
    ("height", "pitch", "roll", "says"),
    [
        (0.8, 35, 0, "0.80 m above the table, looking down 35 degrees"),
        (0.8, 35, 12, "looking down 35 degrees, rolled by 12 degrees"),
        (0.3, 0, 0, "0.30 m above the table, looking level"),
        (0.3, -10, 0, "looking up 10 degrees"),
        (0.0, 0, 0, "0.00 m above the table, looking level"),
        (1.2, 90, 77, "1.20 m above the table, looking down 90 degrees;"),
        (0.8, 35, 180, "upside down"),
    ],
)
def test_what_was_understood_is_said(height, pitch, roll, says):
    camera = make_camera(K, looking(height, pitch, roll), 640, 480, 0.96)
    assert says in camera.understood and "field of view 56 x 43 degrees" in camera.understood
    assert bool(camera.assumptions) == (roll == 180)


OPENGL = np.diag([1.0, -1, -1, 1])
Y_UP = np.eye(4)
Y_UP[1:3, 1:3] = [[0, 1], [-1, 0]]  # T_yup_zup


@pytest.mark.parametrize(
    ("pose", "says"),
    [
        (np.linalg.inv(looking(0.8, 35) @ OPENGL), "OpenGL's view matrix"),
        (looking(0.8, 35) @ OPENGL, "OpenGL's axes"),
        (Y_UP @ looking(0.8, 35), "of a world with y up"),
        (OPENGL @ looking(0.8, 35), "of a world with z down"),
    ],
)
def test_a_camera_that_cannot_see_the_table_is_refused_with_the_likely_cause(pose, says):
    with pytest.raises(UserError, match=f"camera.T_world_camera.*{says}.*0.80 m above the table, looking down 35"):
        make_camera(K, pose, 640, 480, 0.96)


def test_an_inverse_that_could_be_is_said():
    camera = make_camera(K, np.linalg.inv(looking(0.8, 35)), 640, 480, 0.96)
    assert (
        "rolled by" in camera.understood and "the inverse, T_camera_world (then 0.80 m above" in camera.assumptions[0]
    )


def test_millimetres_the_sky_and_the_cellar_are_refused():
    millimetres, below = looking(0.8, 35), looking(-0.2, -20)
    millimetres[:3, 3] *= 1000
    for pose, says in (
        (millimetres, "millimetres"),
        (np.eye(4), "leave it empty"),
        (looking(0.3, -40), "looking up 40 degrees"),
        (below, "0.20 m below the table"),
    ):
        with pytest.raises(UserError, match=f"camera.T_world_camera.*{says}"):
            make_camera(K, pose, 640, 480, 0.96)


@pytest.mark.parametrize("fov", [0.0, -1.0, 4.0])
def test_a_field_of_view_that_is_none_is_refused(fov):
    with pytest.raises(UserError, match="horizontal_fov"):
        make_camera((), (), 640, 480, fov)
