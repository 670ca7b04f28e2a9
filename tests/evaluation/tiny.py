"""A predictor of the smallest size with weights at random."""

import functools

import jax
import numpy as np

from amt import hand as hand_model
from amt.inference.predictor import Predictor
from amt.models import weights
from amt.models.factory import build
from amt.training.sharding import make_mesh
from configs import demo


@functools.cache
def parameters():
    """Of `configs/demo.py:tiny`, and the settings that a weights file has."""
    settings = weights.architecture(demo.get_config("tiny").to_dict())
    model = build(settings["model"], settings["finder"], settings["image_size"])
    size, side = settings["image_size"], settings["finder"]["frame_size"]
    frame, image = np.zeros((1, side, side, 3), np.uint8), np.zeros((1, size, size, 3), np.uint8)
    K = np.array([[[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]]], np.float32)
    params = jax.jit(model.init)(jax.random.key(0), frame, image, K, hand_model.load())["params"]
    return jax.tree.map(np.asarray, params), settings


@functools.cache
def predictor(devices: int) -> Predictor:
    """On so many devices."""
    return Predictor(*parameters(), hand_model.load(), True, make_mesh(-1, 1, 1, jax.devices()[:devices]))
