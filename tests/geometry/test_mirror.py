"""A mirrored sample is a consistent picture of points, of objects, and of a left hand."""

import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

import amt.hand
from amt.geometry import mirror

RNG = np.random.default_rng(0)
WIDTH = 64
K = np.array([[60.0, 0.7, 30.2], [0, 62.0, 23.1], [0, 0, 1]])
POINTS = RNG.normal(size=(20, 3)) * 0.1 + [0.02, 0.01, 0.6]
S = np.diag([-1.0, 1, 1])


def project(points, K):
    pixels = points @ K.T
    return pixels[..., :2] / pixels[..., 2:]


def test_mirrored_points_project_to_mirrored_pixels():
    ours = project(mirror.mirror_points(POINTS), mirror.mirror_intrinsics(K, WIDTH))
    np.testing.assert_allclose(ours, mirror.mirror_pixels(project(POINTS, K), WIDTH), atol=1e-12)


def test_pixels_follow_the_flipped_image():
    image = RNG.integers(0, 255, (48, WIDTH, 3), dtype=np.uint8)
    u, v = 5, 7
    (mirrored_u, mirrored_v) = mirror.mirror_pixels(np.array([u, v], np.float32), WIDTH).astype(int)
    np.testing.assert_array_equal(cv2.flip(image, 1)[mirrored_v, mirrored_u], image[v, u])


def test_the_flips_homography_flips_an_image_and_its_pixels():
    image = RNG.integers(0, 255, (48, WIDTH, 3), dtype=np.uint8)
    warped = cv2.warpPerspective(image, mirror.flip_matrix(WIDTH), (WIDTH, 48), flags=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(warped, cv2.flip(image, 1))
    widths = np.array([64, 31])
    pixels = RNG.uniform(0, 60, (2, 5, 2))
    for width, F, some in zip(widths, mirror.flip_matrix(widths), pixels, strict=True):
        np.testing.assert_allclose(some @ F[:2, :2].T + F[:2, 2], mirror.mirror_pixels(some, int(width)))
    at_once = mirror.mirror_pixels(pixels, widths[:, None, None].astype(float))
    np.testing.assert_allclose(at_once[1], mirror.mirror_pixels(pixels[1], 31))


def test_object_pose_moves_the_mirrored_model_to_the_mirrored_points():
    model = RNG.normal(size=(30, 3))
    R, t = Rotation.random(random_state=0).as_matrix(), RNG.normal(size=3)
    pose = mirror.mirror_object_pose(np.concatenate([R, t[:, None]], 1))
    assert np.linalg.det(pose[:, :3]) > 0
    np.testing.assert_allclose(model @ S @ pose[:, :3].T + pose[:, 3], (model @ R.T + t) @ S, atol=1e-12)


def test_axis_angle_and_matrix_agree():
    vectors = RNG.normal(size=(10, 3))
    ours = Rotation.from_rotvec(mirror.mirror_axis_angle(vectors)).as_matrix()
    np.testing.assert_allclose(ours, mirror.mirror_rotation(Rotation.from_rotvec(vectors).as_matrix()), atol=1e-12)


def test_twice_is_nothing_and_the_kind_of_array_stays():
    cases = [
        (mirror.mirror_points, POINTS),
        (mirror.mirror_axis_angle, POINTS),
        (mirror.mirror_rotation, RNG.normal(size=(2, 3, 3))),
        (mirror.mirror_object_pose, RNG.normal(size=(2, 5, 3, 4))),
        (mirror.mirror_hand_pose, RNG.normal(size=(2, 48))),
        (lambda x: mirror.mirror_intrinsics(x, WIDTH), K[None]),
        (lambda x: mirror.mirror_pixels(x, WIDTH), RNG.normal(size=(4, 2))),
    ]
    for function, x in cases:
        x = x.astype(np.float32)
        assert isinstance(function(x), np.ndarray) and function(x).dtype == np.float32
        np.testing.assert_allclose(function(function(x)), x, atol=1e-5)
        assert isinstance(function(jnp.asarray(x)), jnp.ndarray)
        np.testing.assert_allclose(function(jnp.asarray(x)), function(x), atol=1e-5)


def test_a_left_hand_is_the_mirrored_right_hand():
    right = amt.hand.load()
    flip = np.float32([-1, 1, 1])
    joints_flip = -np.tile(flip, 15)
    left = dataclasses.replace(
        right,
        v_template=right.v_template * flip,
        shapedirs=right.shapedirs * flip[:, None],
        hands_mean=right.hands_mean * joints_flip,
        hands_components=right.hands_components * joints_flip,
    )
    pose = RNG.normal(size=(3, 48)).astype(np.float32)
    betas, transl = RNG.normal(size=(3, 10)).astype(np.float32), RNG.normal(size=(3, 3)).astype(np.float32)
    joints, vertices = left(pose, betas, transl)
    mirrored = right(mirror.mirror_hand_pose(pose), betas, mirror.mirror_points(transl))
    np.testing.assert_allclose(mirror.mirror_points(mirrored[0]), joints, atol=1e-6)
    np.testing.assert_allclose(mirror.mirror_points(mirrored[1]), vertices, atol=1e-6)
