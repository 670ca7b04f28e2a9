"""Filters against scipy and closed forms; gaps, sides and objects that must not mix."""

import jax
import numpy as np
import pytest
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from amt.inference.smoothing import (
    OneEuro,
    SavitzkyGolay,
    project_rotation,
    segments,
    smooth_hand,
    smooth_objects,
    smooth_positions,
)
from amt.structs import HandPose, ObjectPoses

RNG = np.random.default_rng(0)
METHODS = [SavitzkyGolay(), OneEuro()]


def make_hand(count, valid=None, is_left=None):
    joints = RNG.normal(size=(count, 21, 3)).astype(np.float32)
    return HandPose(
        global_orient=Rotation.random(count, rng=RNG).as_matrix().astype(np.float32),
        hand_pose=Rotation.random(count * 15, rng=RNG).as_matrix().reshape(count, 15, 3, 3).astype(np.float32),
        betas=np.zeros((count, 10), np.float32),
        transl=joints[:, 0],
        joints=joints,
        vertices=joints[:, RNG.integers(0, 21, 778)],
        is_left=np.zeros(count, bool) if is_left is None else is_left,
        valid=np.ones(count, bool) if valid is None else valid,
    )


def test_savitzky_golay_is_scipys_in_each_segment():
    time = np.arange(40) / 30
    values, valid = RNG.normal(size=(40, 2, 3)), np.ones(40, bool)
    valid[18:21] = False
    smooth = smooth_positions(values, valid, time, SavitzkyGolay(window_s=0.3, order=2))
    for part in (slice(0, 18), slice(21, 40)):
        np.testing.assert_allclose(smooth[part], savgol_filter(values[part], 9, 2, axis=0), atol=1e-12)
    np.testing.assert_array_equal(smooth[18:21], values[18:21])


def test_savitzky_golay_keeps_a_parabola_without_lag():
    time = np.arange(30) / 30
    path = np.stack([time, time**2, 1 - 3 * time**2], -1)[:, None]
    np.testing.assert_allclose(smooth_positions(path, np.ones(30, bool), time, SavitzkyGolay()), path, atol=1e-10)


def test_one_euro_matches_the_paper_on_one_signal():
    """Algorithm 1 of Casiez 2012, written out for a point that moves along x."""
    time, x = np.arange(50) / 30, np.cumsum(RNG.normal(size=50)) * 0.01
    filter_, previous, speed, expected = OneEuro(1.2, 4.0, 1.0), x[0], 0.0, [x[0]]

    def alpha(cutoff):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau * 30)

    for value in x[1:]:
        speed = alpha(1.0) * (value - previous) * 30 + (1 - alpha(1.0)) * speed
        a = alpha(1.2 + 4.0 * abs(speed))
        previous = a * value + (1 - a) * previous
        expected.append(previous)
    points = np.zeros((50, 1, 3))
    points[:, 0, 0] = x
    smooth = smooth_positions(points, np.ones(50, bool), time, filter_)
    np.testing.assert_allclose(smooth[:, 0, 0], expected, atol=1e-12)


def test_one_euro_sees_no_future():
    time, values, valid = np.arange(30) / 30, RNG.normal(size=(30, 4, 3)), np.ones(30, bool)
    whole = smooth_positions(values, valid, time, OneEuro())
    start = smooth_positions(values[:12], valid[:12], time[:12], OneEuro())
    np.testing.assert_allclose(whole[:12], start, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_noise_shrinks(method):
    time = np.arange(90) / 30
    truth = np.stack([0.1 * np.sin(time), 0.1 * np.cos(time), 0.5 + 0 * time], -1)[:, None]
    noisy = truth + RNG.normal(size=truth.shape) * 0.004
    smooth = smooth_positions(noisy, np.ones(90, bool), time, method)
    jitter = [np.linalg.norm(np.diff(path, 2, axis=0), axis=-1).mean() for path in (smooth, noisy)]
    assert jitter[0] < 0.5 * jitter[1]
    assert np.abs(smooth - truth).mean() < np.abs(noisy - truth).mean()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_invalid_neither_changes_nor_matters(method):
    time, valid = np.arange(24) / 30, np.ones(24, bool)
    valid[[0, 10, 11]] = False
    hand = make_hand(24, valid)
    garbage = hand.joints.copy()
    garbage[~valid] = np.nan
    first = smooth_hand(hand, time, method)
    second = smooth_hand(hand.replace(joints=garbage), time, method)
    np.testing.assert_array_equal(first.joints[valid], second.joints[valid])
    np.testing.assert_array_equal(first.joints[~valid], hand.joints[~valid])
    np.testing.assert_array_equal(first.valid, valid)


@pytest.mark.parametrize("method", METHODS)
def test_hand_stays_together_and_moves_with_the_frame_of_reference(method):
    """Joints that are vertices stay on them; turning the camera before or after smoothing is the same."""
    time, hand = np.arange(20) / 30, make_hand(20)
    R = Rotation.random(rng=RNG).as_matrix().astype(np.float32)
    copy = hand.replace(vertices=np.repeat(hand.joints, 38, axis=1)[:, :778])
    smooth = smooth_hand(copy, time, method)
    np.testing.assert_allclose(smooth.vertices[:, :760:38], smooth.joints[:, :20], atol=1e-6)
    np.testing.assert_allclose(smooth.transl, smooth.joints[:, 0], atol=1e-6)
    turned = smooth_hand(hand.replace(joints=hand.joints @ R.T, global_orient=R @ hand.global_orient), time, method)
    np.testing.assert_allclose(turned.joints, smooth.joints @ R.T, atol=1e-5)
    np.testing.assert_allclose(turned.global_orient, R @ smooth.global_orient, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_rotations_stay_rotations_through_a_half_turn(method):
    """Angles that pass pi wrap as vectors and flip sign as quaternions; the smoothed turn goes on evenly."""
    time = np.arange(40) / 30
    angle = np.linspace(2.6, 3.7, 40)
    hand = make_hand(40).replace(global_orient=Rotation.from_rotvec(angle[:, None] * [0, 0, 1.0]).as_matrix())
    hand = hand.replace(joints=np.zeros((40, 21, 3)))
    smooth = smooth_hand(hand, time, method).global_orient
    np.testing.assert_allclose(smooth @ np.swapaxes(smooth, -1, -2), np.tile(np.eye(3), (40, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(smooth), 1, atol=1e-9)
    steps = (Rotation.from_matrix(smooth[:-1]).inv() * Rotation.from_matrix(smooth[1:])).magnitude()
    assert steps.max() < 1.05 * (angle[1] - angle[0])


def test_projection_is_the_nearest_rotation():
    R = Rotation.random(50, rng=RNG).as_matrix()
    np.testing.assert_allclose(project_rotation(2 * R), R, atol=1e-12)
    mirrored = project_rotation(R @ np.diag([1.0, 1.0, -1.0]))
    np.testing.assert_allclose(np.linalg.det(mirrored), 1, atol=1e-12)


def test_a_change_of_side_is_a_gap():
    is_left = np.arange(20) >= 10
    hand = make_hand(20, is_left=is_left)
    time = np.arange(20) / 30
    both = smooth_hand(hand, time, SavitzkyGolay())
    alone = smooth_hand(jax.tree.map(lambda x: x[:10], hand), time[:10], SavitzkyGolay())
    np.testing.assert_array_equal(both.joints[:10], alone.joints)


def test_objects_are_smoothed_while_a_slot_holds_the_same_one():
    time = np.arange(20) / 30
    pose = np.concatenate([Rotation.random(20, rng=RNG).as_matrix(), RNG.normal(size=(20, 3, 1))], -1)[:, None]
    ids = np.where(np.arange(20) < 9, 3, 5)[:, None]
    objects = ObjectPoses(pose, ids, np.ones((20, 1)), np.ones((20, 1), bool))
    smooth = smooth_objects(objects, time, SavitzkyGolay(window_s=0.15))
    for part in (slice(0, 9), slice(9, 20)):
        np.testing.assert_allclose(smooth.pose[part, 0, :, 3], savgol_filter(pose[part, 0, :, 3], 5, 2, axis=0))
    np.testing.assert_allclose(np.linalg.det(smooth.pose[:, 0, :, :3]), 1, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips_pass(method, count):
    hand = smooth_hand(make_hand(count), np.arange(count) / 30, method)
    assert np.isfinite(hand.joints).all()


def test_segments():
    valid = np.array([0, 1, 1, 0, 1, 1, 1], bool)
    key = np.array([0, 2, 2, 2, 2, 3, 3])
    assert list(segments(valid, key)) == [slice(1, 3), slice(4, 5), slice(5, 7)]
    assert list(segments(np.zeros(3, bool))) == []
