"""Crops are cameras: a point seen by the crop camera lands where the warped image has it."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from amt.geometry import cameras

K = np.array([[613.0, 0, 313.0], [0, 611.0, 245.0], [0, 0, 1]])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def hand(rng, n=8):
    center = np.stack([rng.uniform(-0.2, 0.2, n), rng.uniform(-0.15, 0.15, n), rng.uniform(0.5, 1.0, n)], -1)
    return center[:, None] + rng.normal(0, 0.04, (n, 21, 3))


def crops(rng, size=224):
    points = hand(rng)
    K_batch = np.broadcast_to(K, (len(points), 3, 3))
    box = cameras.hand_box(cameras.project(points, K_batch))
    return points, K_batch, cameras.crop_camera(K_batch, box, size)


def test_rotated_points_project_to_the_warped_pixels(rng):
    points, K_batch, crop = crops(rng)
    seen = cameras.project(cameras.rotate(crop.R_crop_camera, points), crop.K)
    warped = cameras.warp_points(crop.H_crop_image, cameras.project(points, K_batch))
    np.testing.assert_allclose(seen, warped, atol=1e-6)


def test_the_hand_fills_the_crop_and_stands_upright(rng):
    points, _, crop = crops(rng)
    seen = cameras.project(cameras.rotate(crop.R_crop_camera, points), crop.K)
    assert seen.min() > -15 and seen.max() < 238  # the square is exact at its centre, perspective stretches its rim
    up = seen[:, 9] - seen[:, 0]
    np.testing.assert_allclose(up[:, 0], 0, atol=0.05 * np.abs(up[:, 1]).max())
    assert (up[:, 1] < 0).all()


def test_rotation_is_proper(rng):
    R = crops(rng)[2].R_crop_camera
    np.testing.assert_allclose(R @ R.swapaxes(-1, -2), np.broadcast_to(np.eye(3), R.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-9)


def test_scaling_image_and_K_together_changes_nothing(rng):
    points = hand(rng, 1)[0]
    scale = np.diag([2.0, 2.0, 1.0])
    box = cameras.hand_box(cameras.project(points, K))
    small = cameras.crop_camera(K, box, 96)
    large = cameras.crop_camera(scale @ K, cameras.Box(box.center * 2, box.size * 2, box.angle), 96)
    np.testing.assert_allclose(small.K, large.K, rtol=1e-9)
    np.testing.assert_allclose(small.R_crop_camera, large.R_crop_camera, atol=1e-9)


def test_a_drawn_dot_is_found_in_the_crop_image(rng):
    point = np.array([[0.05, -0.08, 0.7]])
    uv = cameras.project(point, K)[0]
    image = np.zeros((480, 640), np.uint8)
    cv2.circle(image, (int(round(uv[0] * 16)), int(round(uv[1] * 16))), 4 * 16, 255, -1, shift=4)
    crop = cameras.crop_camera(K, cameras.Box(uv + 20, np.float64(120.0), np.float64(-1.0)), 224)
    warped = cv2.warpPerspective(image, crop.H_crop_image, (224, 224))
    ys, xs = np.nonzero(warped > 127)
    expected = cameras.project(point @ crop.R_crop_camera.T, crop.K)[0]
    np.testing.assert_allclose([xs.mean(), ys.mean()], expected, atol=0.5)  # half a pixel of rasterisation


def test_unproject_inverts_project(rng):
    points = hand(rng)
    skewed = K + np.array([[0, 3.0, 0], [0, 0, 0], [0, 0, 0]])
    K_batch = np.broadcast_to(skewed, (len(points), 3, 3))
    pixels = cameras.project(points, K_batch)
    np.testing.assert_allclose(cameras.unproject(pixels, points[..., 2], K_batch), points, atol=1e-12)


@pytest.mark.parametrize("angle", [-3.0, 0.0, 2.5])
def test_jax_and_numpy_agree(rng, angle):
    box = (np.array([300.0, 200.0]), np.array(150.0), np.array(angle))
    ours = cameras.crop_camera(K, cameras.Box(*box), 96)
    theirs = cameras.crop_camera(jnp.asarray(K), cameras.Box(*map(jnp.asarray, box)), 96)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # float32
