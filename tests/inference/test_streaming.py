"""A policy on a stream of frames gives what it gives on the whole video."""

import jax
import numpy as np
import pytest

from amt import hand as hand_model
from amt.inference import predictor as predictors
from amt.inference import streaming
from amt.inference.observing import Observer
from amt.inference.predictor import Predictor
from amt.inference.streaming import FIT_FRAMES, PolicyStream
from amt.models import factory, weights
from amt.robot import fit_hand, load_robot
from amt.structs import Camera
from amt.training.step import init_params, jit_once
from configs import stage2

CONFIG = stage2.get_config("tiny")
HAND = hand_model.load()
HOME = np.zeros(22, np.float32)


@pytest.fixture(scope="module")
def parts():
    """A predictor of random weights, a policy on top, and a video of noise in which it always sees a hand."""
    settings = weights.architecture(CONFIG.to_dict())
    model = factory.from_settings(settings)
    params = init_params(model, 0, CONFIG.data.image_size, CONFIG.finder.frame_size, HAND)
    predictor = Predictor(params, settings, HAND)
    policy = factory.build_policy(CONFIG.fusion, CONFIG.actions)
    images = np.random.default_rng(0).integers(0, 255, (6, 60, 80, 3), np.uint8)
    T = np.eye(4)
    T[:3] = [[1, 0, 0, 0.5], [0, -1, 0, 0.1], [0, 0, -1, 0.8]]
    camera = Camera(np.array([[70.0, 0, 40], [0, 70, 30], [0, 0, 1]]), T)
    return predictor, policy, images, camera


@pytest.mark.parametrize("is_left", [False, True])
def test_a_stream_is_the_whole_video(parts, is_left, monkeypatch):
    for name in ("PRESENCE", "NEW", "LOST"):  # which random weights do not reach
        monkeypatch.setattr(predictors, name, -1.0)
    predictor, policy, images, camera = parts
    prediction = predictor(images, camera, is_left=is_left)
    T = np.tile(camera.T_world_camera, (len(images), 1, 1))
    seen, _ = Observer(predictor)(images, camera.K, T, np.eye(4), HOME, prediction)
    if "policy" not in predictor.params:
        predictor.params["policy"] = jit_once(policy.init)(jax.random.key(0), seen)["params"]
    fit = fit_hand(load_robot(), np.asarray(seen.joints[0]), 1.0)  # which the stream would only come to know
    monkeypatch.setattr(streaming, "fit_hand", lambda *_: fit)
    stream = PolicyStream(predictor, policy, camera, np.eye(4), HOME, is_left)
    streamed = [stream(image) for image in images]
    assert len(images) < FIT_FRAMES and all(s.valid for s in streamed)
    together = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *(s.seen for s in streamed))
    for name in ("joints", "hand", "object_position", "camera_position", "qpos"):
        np.testing.assert_allclose(getattr(together, name), getattr(seen, name), atol=1e-2, err_msg=name)
    actions, _ = policy.apply({"params": predictor.params["policy"]}, together)
    np.testing.assert_allclose(np.stack([s.chunk for s in streamed]), actions.commands[0], atol=1e-5)


def test_a_frame_without_a_hand_holds(parts, monkeypatch):
    predictor, policy, images, camera = parts
    assert "policy" in predictor.params
    monkeypatch.setattr(predictors, "PRESENCE", 2.0)
    out = PolicyStream(predictor, policy, camera, np.eye(4), HOME, False)(images[0])
    assert not out.valid and not np.asarray(out.seen.valid).any()
    np.testing.assert_array_equal(out.seen.qpos[0, 0], HOME)
