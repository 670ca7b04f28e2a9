"""Feeding the train step: the devices make the same batch of the same draws on every mesh, cached or streamed."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from amt.data.augmentation import AugmentConfig, augment
from amt.data.pipeline import stack, to_mesh
from amt.data.transforms import network_sample
from amt.training.feed import augmented_feed, cached_feed, host_feed
from amt.training.sharding import AXES, batch_sharding
from configs import base
from tests.samples import changed, make_sample

CONFIG = AugmentConfig(32, 1.25, 0.6, 0.2, **base.augmentation(), box_shift=0.06, box_scale=0.09, box_roll=0.2)
READ = changed(image_size=40, frame_size=32, crop_margin=1.35 * 1.25)


def mesh(*sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@pytest.fixture(scope="module")
def samples():
    return stack([network_sample(make_sample(seed, is_left=seed % 3 == 0), None, READ) for seed in range(8)])


def assert_close(ours, theirs):
    """Images to a level: what is compiled for another mesh rounds differently."""
    assert np.abs(np.asarray(ours.image, int) - np.asarray(theirs.image, int)).max() <= 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        *(x.replace(image=None, frame=None) for x in (ours, theirs)),
    )


def test_streamed_and_cached_are_the_same_on_every_mesh(samples):
    expected = augment(jax.random.fold_in(jax.random.key(7), 3), samples, CONFIG)
    on = mesh(2, 2, 2)
    streamed = augmented_feed(iter([samples]), on, CONFIG, 7)
    step = np.int32(3)
    ours = jax.jit(streamed.prepare)(step, streamed.place(next(streamed.iterator)))
    assert_close(ours, expected)
    assert {shard.data.shape[0] for shard in ours.image.addressable_shards} == {2}
    # Each of four parts holds two samples; the rows say them in another order than they lie there.
    rows = np.array([1, 0, 0, 1, 1, 1, 0, 0], np.int32)
    chosen = np.array([1, 0, 2, 3, 5, 5, 6, 6])
    cached = cached_feed(iter([rows]), to_mesh(samples, batch_sharding(on)), on, CONFIG, 7)
    ours = jax.jit(cached.prepare)(step, cached.place(next(cached.iterator)))
    assert_close(
        ours, augment(jax.random.fold_in(jax.random.key(7), 3), jax.tree.map(lambda x: x[chosen], samples), CONFIG)
    )


def test_what_the_host_made_is_passed_on(samples):
    feed = host_feed(iter([samples]), mesh(8, 1, 1))
    assert feed.prepare is None
    jax.tree.map(np.testing.assert_array_equal, feed.place(next(feed.iterator)), samples)
