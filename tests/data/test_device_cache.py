"""The device cache: every sample once, on its own device, and refused before it is loaded where it does not fit."""

import re

import grain.python as grain
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amt.data import device_cache
from amt.data.device_cache import CacheOrder, cache_iterator, check_capacity, load_cache, part_samples
from amt.data.dexycb import DexYCB
from amt.data.files import FileError
from amt.data.pipeline import stack
from amt.data.quarantine import Quarantine
from amt.data.transforms import network_sample
from amt.errors import UserError
from tests.data.layout import SUBJECTS, real_labels, write
from tests.samples import changed

CONFIG = changed(image_size=32, frame_size=32)
PARTS = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """1 subject x 2 sequences x 3 cameras x 3 frames = 18 samples, which 4 does not divide."""
    root = tmp_path_factory.mktemp("cache")
    write(root, SUBJECTS[:1], 2, 3, real_labels, (640, 480))
    return DexYCB(root, "s1", "train")


@pytest.fixture
def sharding():
    """4 parts, each on two devices."""
    return NamedSharding(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor")), P(("data", "fsdp")))


def test_every_part_holds_its_own_samples(source, sharding, tmp_path):
    seen = []
    cache = load_cache(source, CONFIG, sharding, 0, 0.5, Quarantine(tmp_path), seen.append)
    assert sum(seen) == len(source) == 18
    rows = 5  # of 18 / 4, rounded up
    assert cache.image.shape == (PARTS * rows, 32, 32, 3) and cache.image.dtype == np.uint8
    assert {shard.data.shape[0] for shard in cache.image.addressable_shards} == {rows}
    held = []
    for part in range(PARTS):
        mine = part_samples(part, PARTS, 18)
        held += mine
        expected = stack([network_sample(source[i], None, CONFIG) for i in mine])
        place = slice(part * rows, part * rows + len(mine))
        ours = jax.tree.map(lambda x, place=place: np.asarray(x)[place], cache)
        jax.tree.map(np.testing.assert_array_equal, ours, expected)
    assert sorted(held) == list(range(18))


def test_an_epoch_of_every_part_sees_its_samples_once():
    sizes = (5, 4, 7)
    order = CacheOrder(sizes, 0, 2, seed=3)
    batches = np.stack([order[k] for k in range(70)]).reshape(70, 3, 2)
    orders = set()
    for part, size in enumerate(sizes):
        rows = batches[:, part].ravel()
        for epoch in range(len(rows) // size):
            once = rows[epoch * size : (epoch + 1) * size]
            assert sorted(once) == list(range(size))
            orders.add((part, *once.tolist()))
    assert len(orders) > 30  # shuffled anew each epoch
    assert not np.array_equal(order[0], CacheOrder(sizes, 0, 2, seed=4)[0])


def test_the_place_in_the_order_can_be_restored(source):
    iterator = cache_iterator(source, PARTS, 8, 1)
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(4)]
    fresh = cache_iterator(source, PARTS, 8, 1)
    fresh.set_state(state)
    np.testing.assert_array_equal([next(fresh) for _ in range(4)], expected)
    assert isinstance(iterator, grain.DatasetIterator)


def test_what_does_not_fit_is_refused_with_both_numbers():
    check_capacity(1000, 100, 8, free=25_000, share=0.5)  # exactly
    with pytest.raises(UserError, match=re.escape("1000 samples of 101 bytes need 12625 bytes")) as error:
        check_capacity(1000, 101, 8, free=25_000, share=0.5)
    assert "found 25000 bytes free" in str(error.value) and "config.data.feed=stream" in str(error.value)
    with pytest.raises(UserError, match="3 samples for 8 parts"):
        check_capacity(3, 1, 8, free=100, share=0.5)


def test_nothing_is_loaded_where_there_is_no_room(source, sharding, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(device_cache, "free_bytes", lambda device: 10_000)
    monkeypatch.setattr(type(source), "__getitem__", _counting(type(source).__getitem__, read))
    with pytest.raises(UserError, match=r"config.data.feed=cache: 18 samples .* found 10000 bytes free"):
        load_cache(source, CONFIG, sharding, 0, 0.5, Quarantine(tmp_path))
    assert len(read) == 1  # to see how large a sample is


def _counting(function, read):
    def get(self, i):
        read.append(i)
        return function(self, i)

    return get


def test_a_cpu_has_what_the_machine_has_left():
    free = device_cache.free_bytes(jax.local_devices()[0])
    assert 0 < free * jax.local_device_count() < 2**50


def test_a_broken_sample_is_replaced_and_listed(source, sharding, tmp_path, monkeypatch):
    original = type(source).__getitem__

    def get(self, i):
        if i == 6:
            raise FileError("color_000000.jpg", "broken")
        return original(self, i)

    monkeypatch.setattr(type(source), "__getitem__", get)
    quarantine = Quarantine(tmp_path)
    cache = load_cache(source, CONFIG, sharding, 0, 0.5, quarantine)
    assert [entry["sample"] for entry in quarantine.entries()] == [6]
    image = np.asarray(cache.image)[2 * 5 + 1]  # sample 6 is the second one of part 2
    assert any(np.array_equal(image, network_sample(source[i], None, CONFIG)["image"]) for i in range(18) if i != 6)
