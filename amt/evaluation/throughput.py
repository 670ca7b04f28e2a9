"""How fast data reaches the train step, against what decoding and warping alone would take.

Rates are samples per second of processor time (user and system, all threads of this process), so that what else runs on
the machine changes them little; contenders take turns, and shares are medians over the turns. Nothing is read ahead:
threads of one contender would work, and be counted, in the turn of another.
"""

import time
from collections.abc import Callable, Mapping

import cv2
import jax
import numpy as np

from amt.data.augmentation import AugmentConfig
from amt.data.device_cache import cache_iterator, load_cache, num_mesh_parts
from amt.data.dexycb import DexYCB
from amt.data.images import decode, read_size, shrink_frame, warp
from amt.data.pipeline import train_iterator
from amt.data.quarantine import Quarantine
from amt.data.transforms import TransformConfig, crop_labels, stack_labels
from amt.training.feed import Feed, augmented_feed, cached_feed
from amt.training.sharding import batch_sharding

Turn = Callable[[], None]


def take_turns(turns: Mapping[str, Turn], samples: int, rounds: int) -> dict[str, np.ndarray]:
    """Samples per second of processor time of every contender in each of `rounds`, after one that warms up."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for k in range(rounds + 1):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            if k:
                rates[name].append(samples / (time.process_time() - start))
    return {name: np.array(values) for name, values in rates.items()}


def contenders(
    source: DexYCB,
    read: TransformConfig,
    augmentation: AugmentConfig,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    batches: int,
    quarantine: Quarantine,
) -> dict[str, Turn]:
    """Turns of `batches` batches each, in this process, with one OpenCV thread; the whole source is in memory.

    decode_warp  JPEG bytes to crop and frame, the warps known beforehand: the limit
    host         from the disk to a batch on the device, labels and all
    augmented    the same, augmented there
    cache        gathered and augmented out of the device cache
    """
    cv2.setNumThreads(1)
    count = batches * batch_size
    chosen = np.random.default_rng(0).permutation(len(source))[:count]
    samples = [source[int(i)] for i in np.resize(chosen, count)]
    colors = [sample["color"] for sample in samples]
    H, _ = crop_labels(stack_labels(samples), np.array([read_size(color) for color in colors]), None, read)
    augmented = streamed(source, read, augmentation, mesh, batch_size, batches)

    def decode_warp():
        for color, H_crop_image in zip(colors, H, strict=True):
            image = decode(color)
            warp(image, H_crop_image, read.image_size)
            shrink_frame(image, read.frame_size)

    split = batch_sharding(mesh)
    cache = load_cache(source, read, split, 0, 0.5, quarantine)
    parts = num_mesh_parts(split)
    cached = cached_feed(cache_iterator(source, parts, batch_size, 0), cache, mesh, augmentation, 0)
    return {"decode_warp": decode_warp, **augmented, "cache": _turn(cached, batches, augment=True)}


def streamed(
    source: DexYCB,
    read: TransformConfig,
    augmentation: AugmentConfig,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    batches: int,
) -> dict[str, Turn]:
    """`host` and `augmented` of `contenders`."""
    feed = augmented_feed(
        train_iterator(source, read, batch_size, 0, 0, jitter=False, prefetch=0), mesh, augmentation, 0
    )
    return {"host": _turn(feed, batches, augment=False), "augmented": _turn(feed, batches, augment=True)}


def _turn(feed: Feed, batches: int, augment: bool) -> Turn:
    prepare = jax.jit(feed.prepare)

    def turn():
        for step in range(batches):
            placed = feed.place(next(feed.iterator))
            jax.block_until_ready(prepare(np.int32(step), placed) if augment else placed)

    return turn


def shares(rates: Mapping[str, np.ndarray], of: str) -> dict[str, float]:
    """Each contender's rate over that of `of`, turn by turn, in the median."""
    return {name: float(np.median(values / rates[of])) for name, values in rates.items() if name != of}
