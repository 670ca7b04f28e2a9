"""Crops and frames: labels and pixels move together, with and without jitter."""

import cv2
import numpy as np
import pytest

from amt.data import images, transforms
from amt.data.transforms import network_sample
from amt.errors import UserError
from amt.geometry import cameras, rotations
from tests.samples import BLACK, HAND, HEIGHT, NEVER_AWAY, PLAIN, WIDTH, K, changed, make_sample


def rng_or_none(jittered, seed):
    return np.random.default_rng([seed, 77]) if jittered else None


def bright_center(image):
    """Centre of mass of what is bright, pixels; None where nothing is."""
    weight = image.mean(-1) * (image.mean(-1) > 100)
    if weight.sum() < 1000:
        return None
    ys, xs = np.mgrid[: len(image), : len(image)]
    return np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()


@pytest.mark.parametrize("crop", transforms.CROPS)
@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize("is_left", [False, True])
def test_labels_project_to_their_pixels(crop, jittered, is_left):
    for seed in range(5):
        config = changed(crop=crop, **NEVER_AWAY)
        out = network_sample(make_sample(seed, is_left), rng_or_none(jittered, seed), config)
        assert out["joints_valid"] and out["hand_visible"]
        pixels = cameras.project(out["joints_3d"].astype(float), out["K"].astype(float))
        np.testing.assert_allclose(pixels, out["joints_2d"], atol=0.01)  # DESIGN.md section 6
        np.testing.assert_allclose(np.linalg.det(out["R_crop_camera"]), 1, atol=1e-5)
        if crop != "full":
            inside = (out["joints_2d"] > -0.3 * 96) & (out["joints_2d"] < 1.3 * 96)
            assert inside.all(-1).mean() > 0.8


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize("distance", [0.25, 0.5, 1.0])  # 0.25 and 0.5 are averaged down first
def test_a_dot_on_a_joint_is_found_where_the_label_says(is_left, jittered, distance, monkeypatch):
    monkeypatch.setattr(transforms, "occlude", lambda image, rng: image)  # a patch may cover half a dot
    found = 0
    for seed in range(12):
        dot = (5 * seed) % 21
        sample = make_sample(seed, is_left, distance, dot)
        config = changed(min_visible_share=0.0, **NEVER_AWAY)
        out = network_sample(sample, rng_or_none(jittered, seed), config)
        truth = out["joints_2d"][dot]
        if (truth < 6).any() or (truth > 89).any():
            continue
        black = network_sample({**sample, "color": BLACK}, rng_or_none(jittered, seed), config)
        center = bright_center(cv2.absdiff(out["image"], black["image"]))
        if center is None:  # outside the photograph
            continue
        found += 1
        np.testing.assert_allclose(center, truth, atol=0.6)  # JPEG, linear sampling, perspective of a disc
    assert found >= 3


@pytest.mark.parametrize("is_left", [False, True])
def test_a_dot_on_a_joint_is_found_in_the_frame(is_left):
    """Zoomed, turned, mirrored: `frame_joints` move with the pixels, and what is outside is not valid."""
    found, sides = 0, set()
    for seed in range(12):
        dot = (5 * seed) % 21
        sample = make_sample(seed, is_left, 0.4, dot)
        out = network_sample(sample, rng_or_none(True, seed), changed(**NEVER_AWAY))
        sides.add(bool(out["frame_is_left"]))
        black = network_sample({**sample, "color": BLACK}, rng_or_none(True, seed), changed(**NEVER_AWAY))
        inside = ((out["frame_joints"] > 0) & (out["frame_joints"] < 1)).all(-1)
        assert not (out["frame_joints_valid"] & ~inside).any()
        center = bright_center(cv2.absdiff(out["frame"], black["frame"]))
        truth = out["frame_joints"][dot] * 128 - 0.5
        if not out["frame_joints_valid"][dot] or center is None or (truth < 6).any() or (truth > 121).any():
            continue
        found += 1
        np.testing.assert_allclose(center, truth, atol=0.6)
    assert found >= 4 and sides == {False, True}


def test_the_frame_without_jitter_is_the_image_fitted_into_a_square():
    sample = make_sample(1, dot=4)
    out = network_sample(sample, None, PLAIN)
    joints = cameras.warp_points(images.fit_frame(WIDTH, HEIGHT, 128), sample["joints_2d"].astype(float))
    np.testing.assert_allclose(bright_center(out["frame"]), joints[4], atol=0.3)
    np.testing.assert_allclose(out["frame_joints"], (joints + 0.5) / 128, rtol=1e-5)
    assert out["frame_has_hand"] and out["frame_known"] and not out["frame_is_left"]
    assert out["frame_joints_valid"].all()


def test_frame_corners_land_on_the_square():
    H = images.fit_frame(640, 480, 128)
    corners = cameras.warp_points(H, np.array([[-0.5, -0.5], [639.5, 479.5]]))
    np.testing.assert_allclose(corners, [[-0.5, 15.5], [127.5, 111.5]], atol=1e-9)


def test_a_left_hand_is_the_right_hand_in_the_mirror():
    """A mirrored scene seen by a camera with the mirrored K gives the same crop and labels."""
    right = make_sample(2, contacts=True)
    mirrored = dict(right)
    image = images.decode(right["color"])
    mirrored["K"] = right["K"].copy()
    mirrored["K"][0, 2] = WIDTH - 1 - right["K"][0, 2]
    flip = np.diag([-1.0, 1, 1]).astype(np.float32)
    mirrored["joints_3d"] = right["joints_3d"] @ flip
    mirrored |= {name: right[name] @ flip for name in ("contact_points", "contact_force")}
    mirrored["joints_2d"] = right["joints_2d"] * np.float32([-1, 1]) + np.float32([WIDTH - 1, 0])
    mirrored["hand_pose"] = right["hand_pose"] * np.float32([1, -1, -1] + [1] * 45 + [-1, 1, 1])
    mirrored["object_pose"] = right["object_pose"] * np.float32([[1, -1, -1, -1], [-1, 1, 1, 1], [-1, 1, 1, 1]])
    mirrored["is_left"] = np.bool_(True)
    mirrored["color"] = cv2.imencode(".jpg", image[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    ours, theirs = (network_sample(s, None, PLAIN) for s in (mirrored, right))
    names = ("K", "R_crop_camera", "joints_3d", "joints_2d", "hand_pose", "object_pose", "betas")
    for name in (*names, "contact_points", "contact_force", "contact_kind", "contact_valid"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    assert ours["frame_is_left"] and not theirs["frame_is_left"]


@pytest.mark.parametrize("is_left", [False, True])
def test_hand_parameters_give_the_crops_joints(is_left):
    """The wrist's rotation through `R_crop_camera`, as the losses do it."""
    for seed in range(3):
        out = network_sample(make_sample(seed, is_left), rng_or_none(True, seed), changed(**NEVER_AWAY))
        R = np.array(HAND.rotations(out["hand_pose"]))
        R[0] = out["R_crop_camera"] @ R[0]
        joints = np.asarray(HAND.from_rotations(R, out["betas"], np.zeros(3, np.float32))[0])
        truth = out["joints_3d"]
        np.testing.assert_allclose(joints - joints[0], truth - truth[0], atol=1e-5)


def test_objects_turn_with_the_crop():
    sample = make_sample(3)
    out = network_sample(sample, np.random.default_rng(0), changed(**NEVER_AWAY))
    R = out["R_crop_camera"]
    np.testing.assert_allclose(out["object_pose"][0], R @ sample["object_pose"][0], atol=1e-5)
    assert out["object_valid"].tolist() == [True] + [False] * 9  # the second lies far outside the crop
    np.testing.assert_allclose(R @ sample["joints_3d"][5], out["joints_3d"][5], atol=1e-5)


@pytest.mark.parametrize("is_left", [False, True])
def test_contacts_and_their_forces_turn_with_the_crop(is_left):
    """Points given at joints stay there; a force is as long as before and as oblique to the fingers."""
    sample = make_sample(3, is_left, contacts=True)
    out = network_sample(sample, np.random.default_rng(0), changed(**NEVER_AWAY))
    tips = [4, 8, 12, 16]
    np.testing.assert_allclose(out["contact_points"][:4], out["joints_3d"][tips], atol=1e-6)
    along, before = (x["joints_3d"][tips] - x["joints_3d"][0] for x in (out, sample))
    ours, theirs = along @ out["contact_force"][:4].T, before @ sample["contact_force"][:4].T
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert out["contact_valid"].tolist() == [True] * 4 + [False] * 6 and out["contact_known"]
    assert out["contact_kind"].tolist() == sample["contact_kind"].tolist()


@pytest.mark.parametrize("fields", [{"wrong_side_share": 1.0}, {"no_hand_share": 1.0}])
def test_a_wrong_side_or_another_place_has_no_contacts(fields):
    out = network_sample(make_sample(3, contacts=True), np.random.default_rng(0), changed(**NEVER_AWAY | fields))
    assert not out["contact_valid"].any()


def test_the_generator_decides_everything():
    sample = make_sample(4, dot=3)
    first, again, other = (network_sample(sample, np.random.default_rng(s), PLAIN) for s in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert (first["image"] != other["image"]).any() and (first["joints_2d"] != other["joints_2d"]).any()
    plain, once_more = (network_sample(sample, None, PLAIN) for _ in range(2))
    for name in plain:
        np.testing.assert_array_equal(plain[name], once_more[name])


def test_without_jitter_the_hand_fills_an_upright_crop():
    out = network_sample(make_sample(5), None, PLAIN)
    up = out["joints_2d"][9] - out["joints_2d"][0]
    assert up[1] < 0 and abs(up[0]) < 0.06 * abs(up[1])
    extent = np.ptp(out["joints_2d"], axis=0).max()
    assert extent == pytest.approx(96 / 1.35, rel=0.1)


def test_an_unknown_crop_is_named():
    with pytest.raises(UserError, match="config.data.crop=square: expected one of aligned, box, full"):
        changed(crop="square").check()


def test_a_broken_jpeg_is_named():
    with pytest.raises(UserError, match="not a readable JPEG"):
        images.decode(b"no image")


@pytest.mark.parametrize("jittered", [False, True])
def test_frames_without_a_label_are_marked_in_every_field(jittered):
    sample = make_sample(6) | {"joints_valid": np.bool_(False), "hand_pose_valid": np.bool_(False)}
    sample |= {name: np.zeros_like(sample[name]) for name in ("joints_3d", "joints_2d", "hand_pose")}
    out = network_sample(sample, rng_or_none(jittered, 6), PLAIN)
    for name in ("joints_valid", "hand_visible", "hand_pose_valid", "frame_joints_valid", "frame_has_hand"):
        assert not np.any(out[name]), name
    assert not out["object_valid"].any() and out["frame_known"]
    assert all(np.isfinite(value).all() for value in out.values() if value.dtype.kind == "f")


def test_crops_that_look_away_have_no_hand():
    """With `no_hand_share` 1 every crop and most frames are of something else, and say so."""
    config = changed(no_hand_share=1.0, rough_share=0.0, color_jitter=0.0)
    shown, frames = [], []
    for seed in range(20):
        out = network_sample(make_sample(seed), np.random.default_rng(seed), config)
        assert not out["hand_visible"] and not out["joints_valid"] and not out["object_valid"].any()
        shown.append(transforms.visible_share(out["joints_2d"], (96, 96)))
        frames.append(bool(out["frame_has_hand"]))
    assert np.mean(shown) < 0.15 and np.mean(frames) < 0.2


def test_a_wrong_side_shows_the_mirrored_hand_and_teaches_the_side_alone():
    config = changed(**NEVER_AWAY, wrong_side_share=1.0, crop_jitter=0.0, roll_jitter=0.0, rough_share=0.0)
    for is_left in (False, True):
        sample = make_sample(3, is_left=is_left, dot=8)
        wrong = network_sample(sample, np.random.default_rng(0), config)
        right = network_sample(sample, None, config)
        assert wrong["shows_left"] and wrong["hand_visible"] and not right["shows_left"]
        for name in ("joints_valid", "hand_pose_valid", "object_valid"):
            assert right[name].any() and not wrong[name].any(), name
        flipped = right["joints_2d"] * [-1, 1] + [len(right["image"]) - 1, 0]
        np.testing.assert_allclose(wrong["joints_2d"], flipped, atol=1e-2)
        u, v = wrong["joints_2d"][8].round().astype(int)
        assert wrong["image"][v, u].min() > 150  # the disc is drawn at this joint


def test_hands_mostly_outside_the_image_are_not_learned_from():
    sample = make_sample(7)
    sample["joints_3d"] = sample["joints_3d"] + np.float32([0.45, 0, 0])
    sample["joints_2d"] = cameras.project(sample["joints_3d"], K)
    assert transforms.visible_share(sample["joints_2d"], (WIDTH, HEIGHT)) < 0.6
    out = network_sample(sample, None, PLAIN)
    assert not out["joints_valid"] and not out["hand_pose_valid"]


def test_colour_jitter_keeps_places():
    image = np.zeros((96, 96, 3), np.uint8)
    cv2.circle(image, (30, 60), 8, (255, 255, 255), -1)
    for seed in range(20):
        jittered = images.color_jitter(image, np.random.default_rng(seed), 0.3).astype(float).mean(-1)
        contrast = np.clip(jittered - np.median(jittered) - 40, 0, None)
        ys, xs = np.mgrid[:96, :96]
        center = (contrast * xs).sum() / contrast.sum(), (contrast * ys).sum() / contrast.sum()
        np.testing.assert_allclose(center, (30, 60), atol=0.5)


def test_rotations_of_objects_stay_rotations():
    out = network_sample(make_sample(8), np.random.default_rng(1), changed(**NEVER_AWAY))
    angle = rotations.geodesic_angle(
        out["object_pose"][0, :, :3], out["R_crop_camera"] @ make_sample(8)["object_pose"][0, :, :3]
    )
    assert float(angle) < 1e-3


def test_a_crop_far_wider_than_a_tiny_image_shows_it_in_its_middle():
    image = np.full((6, 8, 3), 200, np.uint8)
    to_crop = np.array([[0.04, 0, 15.9], [0, 0.04, 15.9], [0, 0, 1.0]])  # a third of a pixel
    pixels = images.warp(image, to_crop, 32)
    assert pixels.max() > 100 and pixels[:12].max() == 0 and pixels[20:].max() == 0
