"""Grain pipelines: from the reader to batches on the mesh."""

import copy
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import grain.python as grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int

from amt.data.dexycb import DexYCB
from amt.data.quarantine import Quarantine, Readable, Watch, try_load
from amt.data.transforms import TransformConfig, network_batch, network_sample
from amt.errors import UserError
from amt.structs import Batch


@dataclasses.dataclass
class TrainTransform(grain.RandomMapTransform):
    """The batch of samples of so many indices; the generator is Grain's, a function of seed and position."""

    source: DexYCB
    config: TransformConfig
    quarantine: Quarantine | None
    jitter: bool

    def random_map(self, element: Int[np.ndarray, " batch"], rng: np.random.Generator) -> Batch:
        def make(source) -> Batch:
            samples = [source[int(i)] for i in element]
            return to_batch(network_batch(samples, copy.deepcopy(rng) if self.jitter else None, self.config))

        try:
            return make(self.source)
        except UserError:
            if self.quarantine is None:
                raise
            return make(Readable(self.source, self.quarantine))  # looks which of them it is


def train_iterator(*args, **kwargs) -> grain.DatasetIterator:
    """The iterator of `train_dataset`, whose state can be saved."""
    return iter(train_dataset(*args, **kwargs))


def train_dataset(
    source: DexYCB,
    config: TransformConfig,
    batch_size: int,
    seed: int,
    num_workers: int,
    quarantine: Quarantine | None = None,
    jitter: bool = True,
    prefetch: int = 4,
) -> grain.IterDataset:
    """Endless batches of host arrays for this process, shuffled anew each epoch.

    `batch_size` is over all processes, each of which reads its part of every batch: the order is the same for any
    number of processes and workers. With a `quarantine` samples that cannot be read are listed there and replaced; too
    many of them, and without one the first, raise UserError. Without `jitter` crops and frames are as in evaluation,
    for augmentation on the device; jitters of several processes are drawn apart.
    `prefetch` batches are read ahead by threads; 0 reads in the calling thread, when asked.
    """
    config.check()
    dataset = (
        shuffled(len(source), batch_size, seed)
        .random_map(TrainTransform(source, config, quarantine, jitter), seed=seed + jax.process_index())
        .to_iter_dataset(grain.ReadOptions(num_threads=1 if num_workers else 2, prefetch_buffer_size=prefetch))
    )
    if num_workers:
        absl_flags()
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=4)
        dataset = dataset.mp_prefetch(options, worker_init_fn=start_worker)
    if quarantine is not None:
        for folder in source.empty:
            quarantine.add(folder, "a sequence without frames")
        dataset = dataset.map(Watch(quarantine, batch_size // jax.process_count(), len(source)))
    return dataset


def shuffled(count: int, batch_size: int, seed: int) -> grain.MapDataset:
    """Endless batches of indices below `count`, shuffled anew each epoch: this process's part of each batch."""
    size = batch_size // jax.process_count()
    first = jax.process_index() * size
    dataset = grain.MapDataset.range(count).seed(seed).shuffle().repeat().batch(batch_size, batch_fn=np.array)
    return dataset.map(lambda indices: indices[first : first + size])


def start_worker(worker: int, num_workers: int) -> None:
    """For Grain's worker processes: they end with their parent, however that ends, and never before it.

    Grain stops them when an interpreter exits, not when it is killed: then they would wait for room in a queue that
    nobody reads. Signals for the whole process group (Ctrl-C, a cluster's SIGTERM) are the parent's to answer.
    """
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def absl_flags() -> None:
    """Grain's workers read flags, which only an absl program has parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def with_context(config: TransformConfig, context: float) -> TransformConfig:
    """The crops that augmentation on the device reads: about `context` times the side, at the same pixels a side."""
    if config.crop == "full":
        return config
    size = round(config.image_size * context)
    margin = config.crop_margin * size / config.image_size
    return dataclasses.replace(config, image_size=size, crop_margin=margin)


def to_batch(fields: dict[str, np.ndarray]) -> Batch:
    """A `Batch` of host arrays; fields that are not given are None."""
    return Batch(**dict.fromkeys(f.name for f in dataclasses.fields(Batch)) | fields)


def stack(samples: Sequence[dict[str, np.ndarray]]) -> Batch:
    """A list of samples as one `Batch`."""
    return to_batch({k: np.stack([s[k] for s in samples]) for k in samples[0]})


def to_mesh(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
    """Host arrays of this process as global arrays, split over the mesh's batch axes."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def eval_batches(
    source: DexYCB,
    config: TransformConfig,
    batch_size: int,
    max_samples: int,
    quarantine: Quarantine | None = None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches without jitter in the source's order, or evenly spaced over it; the last one is padded.

    Yields the batch and which of its samples are real. With a `quarantine` samples that cannot be read are listed
    there and left out, without one the first raises UserError.
    """

    def load(i: int) -> dict | None:
        def make(sample):
            return network_sample(sample, None, config)

        return make(source[i]) if quarantine is None else try_load(source, i, make, quarantine)

    count = len(source) if max_samples <= 0 else min(max_samples, len(source))
    indices = np.linspace(0, len(source) - 1, count).round().astype(int)
    for start in range(0, count, batch_size):
        chosen = indices[start : start + batch_size]
        samples = [sample for i in chosen if (sample := load(int(i))) is not None]
        if not samples:
            continue
        real = np.arange(batch_size) < len(samples)
        yield stack(samples + [samples[-1]] * (batch_size - len(samples))), real
