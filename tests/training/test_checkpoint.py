"""Checkpoints hold the state and the place in the data: a run that goes on sees what it would have seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.data.device_cache import cache_iterator
from amt.data.dexycb import DexYCB
from amt.data.packed import Packed, make_plan, pack
from amt.data.pipeline import train_iterator
from amt.models import sigma_reparam
from amt.training.checkpoint import Checkpoints
from amt.training.step import TrainState
from tests.data.layout import SUBJECTS, real_labels, write
from tests.samples import changed

CONFIG = changed(image_size=16, frame_size=16)
SETTINGS = {"model": {"width": 1}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """3 sequences x 3 cameras x 2 frames = 18 samples: 4 batches of 4 and a half."""
    root = tmp_path_factory.mktemp("data")
    write(root, SUBJECTS[:1], 3, 2, real_labels, (640, 480))
    return DexYCB(root, "s1", "train")


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    whole = DexYCB(source.root, part="all")
    list(pack(whole, make_plan(whole, 5), folder))
    return Packed(folder, "s1", "train")


def state(step: int) -> TrainState:
    params = {"w": jnp.full((2, 2), float(step))}
    return TrainState(jnp.int32(step), params, params, (), sigma_reparam.EMPTY)


@pytest.mark.parametrize("way", ["tree", "packed", "cache", pytest.param("two workers", marks=pytest.mark.slow)])
def test_a_run_stopped_in_mid_epoch_goes_on_with_the_same_batches(way, source, packed, tmp_path):
    def begin():
        if way == "cache":
            return cache_iterator(source, 2, 4, 3)
        return train_iterator(packed if way == "packed" else source, CONFIG, 4, 3, 2 * (way == "two workers"))

    iterator = begin()
    for _ in range(6):  # in the middle of the second epoch
        next(iterator)
    first = Checkpoints(tmp_path, SETTINGS)
    first.save(6, state(6), iterator)
    first.close()
    expected = [next(iterator) for _ in range(8)]  # into the fourth
    again = begin()
    second = Checkpoints(tmp_path, SETTINGS)
    restored = second.restore(state(0), again)
    second.close()
    assert int(restored.step) == 6 and float(restored.params["w"][0, 0]) == 6
    for theirs in expected:
        jax.tree.map(np.testing.assert_array_equal, next(again), theirs)
