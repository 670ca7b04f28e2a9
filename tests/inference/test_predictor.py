"""The way from frame to crop and back, with the networks replaced by known answers where geometry is tested."""

import numpy as np
import pytest

from amt.data.images import warp
from amt.geometry import cameras, mirror
from amt.hand import EMBEDDED_HAND
from amt.inference import predictor as module
from amt.inference.predictor import load_predictor
from amt.models import weights

K = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def embedded():
    return load_predictor()


def test_crops_and_predictions_of_a_left_hand_are_those_of_the_mirrored_right_hand(embedded):
    """Up to OpenCV's places in 1/32 of a pixel, which are others in the mirror; noise is the worst picture."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1, 480, 640, 3), np.uint8)
    box = cameras.Box(np.array([[300.0, 200.0]]), np.array([150.0]), np.array([-1.2]))
    mirrored_box = cameras.Box(mirror.mirror_pixels(box.center, 640), box.size, np.pi - box.angle)
    right = embedded.perceive(image, K[None], box, np.array([False]))
    left = embedded.perceive(
        np.ascontiguousarray(image[:, :, ::-1]),
        mirror.mirror_intrinsics(K, 640)[None],
        mirrored_box,
        np.array([True]),
    )
    np.testing.assert_allclose(left.hand.joints, mirror.mirror_points(right.hand.joints), atol=1e-3)
    np.testing.assert_allclose(left.hand.global_orient, right.hand.global_orient, atol=1e-3)
    assert left.hand.is_left.all() and not right.hand.is_left.any()


def test_parameters_give_the_vertices_that_are_returned(embedded):
    image = np.random.default_rng(1).integers(0, 255, (1, 480, 640, 3), np.uint8)
    box = cameras.Box(np.array([[350.0, 260.0]]), np.array([180.0]), np.array([-2.0]))
    hand = embedded.perceive(image, K[None], box, np.array([False])).hand
    rotations = np.concatenate([hand.global_orient[:, None], hand.hand_pose], 1)
    _, vertices, _ = embedded.hand.from_rotations(rotations, hand.betas, hand.transl)
    np.testing.assert_allclose(vertices, hand.vertices, atol=1e-4)  # float32 at half a metre


def test_the_side_is_the_one_that_the_odds_of_all_frames_speak_for(embedded, monkeypatch):
    """With both networks' answers given: the crop network's odds that it sees a right hand, the finder undecided."""
    images = np.zeros((3, 480, 640, 3), np.uint8)
    answers = {}

    def acquire(images, K, found, is_left):
        box = cameras.Box(np.tile([300.0, 200.0], (len(K), 1)), np.full(len(K), 150.0), np.full(len(K), -1.5))
        prediction = embedded.perceive(images, K, box, is_left)
        return prediction.replace(side_confidence=np.array(answers[bool(is_left[0])]))

    find = embedded.find
    monkeypatch.setattr(embedded, "find", lambda images: find(images)._replace(left=np.full(len(images), 0.5)))
    monkeypatch.setattr(embedded, "_acquire_all", acquire)
    Ks = np.tile(K, (3, 1, 1))
    answers.update({False: [0.9, 0.2, 0.6], True: [0.2, 0.9, 0.5]})
    right, left, odds = embedded.both_sides(images, Ks)
    assert not right.hand.is_left.any() and left.hand.is_left.all()
    np.testing.assert_allclose(odds, [np.log(1 / 36), np.log(36), np.log(2 / 3)], rtol=1e-5)
    assert embedded.stills(images, Ks).hand.is_left.tolist() == [False, True, False]
    found = embedded.find(images)
    assert not embedded._side(images, K, found, np.ones(3, bool))
    answers.update({False: [0.2, 0.2, 0.6], True: [0.9, 0.9, 0.5]})
    assert embedded._side(images, K, found, np.ones(3, bool))


def test_kinds_and_forces_are_said_by_weights_that_learned_them(embedded):
    """Back in the camera's frame: turned by the crop's rotation, and in the mirror for a left hand."""
    image = np.random.default_rng(2).integers(0, 255, (1, 480, 640, 3), np.uint8)
    box = cameras.Box(np.array([[350.0, 260.0]]), np.array([180.0]), np.array([-2.0]))
    untaught = module.Predictor(embedded.params, embedded.settings, embedded.hand)
    plain = untaught.perceive(image, K[None], box, np.array([False]))
    assert (plain.contacts.kind == -1).all() and np.isnan(plain.contacts.force).all()
    taught = module.Predictor(embedded.params, embedded.settings, embedded.hand, contacts_taught=True)
    seen = taught.perceive(image, K[None], box, np.array([False]))
    np.testing.assert_array_equal(seen.contacts.points, plain.contacts.points)
    assert set(seen.contacts.kind.ravel().tolist()) <= {0, 1, 2, 3}
    crop = cameras.crop_camera(K[None], box, taught.image_size)
    picture = warp(image[0], crop.H_crop_image[0], taught.image_size)[None]
    fields = picture, np.float32(crop.K), taught.hand
    raw = taught.model.apply({"params": taught.params}, *fields, method="perceive").contacts
    expected = np.asarray(raw.force)[0] @ crop.R_crop_camera[0]
    np.testing.assert_allclose(seen.contacts.force[0], expected, atol=1e-3)
    assert (seen.contacts.kind[0] == np.asarray(raw.kind)[0].argmax(-1)).all()
    flipped = cameras.Box(mirror.mirror_pixels(box.center, 640), box.size, np.pi - box.angle)
    mirrored = mirror.mirror_intrinsics(K, 640)[None]
    left = taught.perceive(np.ascontiguousarray(image[:, :, ::-1]), mirrored, flipped, np.array([True]))
    np.testing.assert_allclose(left.contacts.force, mirror.mirror_points(seen.contacts.force), atol=2e-2)


def test_weights_say_whether_kinds_and_forces_were_taught(embedded, tmp_path):
    assert weights.contacts_taught(weights.EMBEDDED)
    params, settings, mean = weights.load(weights.EMBEDDED)
    weights.save(tmp_path / "w.safetensors", params, settings, mean, contacts_taught=False, hand=EMBEDDED_HAND)
    assert embedded.contacts_taught and not load_predictor(tmp_path / "w.safetensors").contacts_taught
    weights.check_architecture(weights.load(tmp_path / "w.safetensors")[1], settings, "here")


def test_an_empty_image_has_no_hand(embedded):
    grey = np.full((2, 480, 640, 3), 127, np.uint8)
    from amt.structs import Camera

    prediction = embedded(grey, Camera(K, np.eye(4)))
    assert not prediction.hand.valid.any()
