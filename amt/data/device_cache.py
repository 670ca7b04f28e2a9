"""A data set decoded once and held in the devices' memory, split over the mesh; batches are gathered there."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int

from amt.data.dexycb import DexYCB
from amt.data.pipeline import absl_flags, start_worker, to_mesh
from amt.data.quarantine import Quarantine, Readable
from amt.data.transforms import TransformConfig, network_sample
from amt.errors import UserError
from amt.structs import Batch

ENDLESS = 2**40  # batches


class CacheOrder:
    """Batch `k` of a run as rows of each part of the cache: a Grain source, so that its place is in checkpoints.

    Every part of the mesh draws from its own samples, shuffled anew each epoch: no sample ever changes its device.
    `sizes` are the samples of this process's parts, `first` the number of the first one, `batch` is for each part.
    """

    def __init__(self, sizes: tuple[int, ...], first: int, batch: int, seed: int):
        self.sizes, self.first, self.batch, self.seed = sizes, first, batch, seed

    def __len__(self) -> int:
        return ENDLESS

    def __repr__(self) -> str:
        return f"CacheOrder({sum(self.sizes)} samples in {len(self.sizes)} parts, seed {self.seed})"

    def __getitem__(self, k: int) -> Int[np.ndarray, " rows"]:
        positions = range(int(k) * self.batch, (int(k) + 1) * self.batch)
        rows = [
            _epoch(self.seed, self.first + part, position // size, size)[position % size]
            for part, size in enumerate(self.sizes)
            for position in positions
        ]
        return np.array(rows, np.int32)


@functools.lru_cache(maxsize=64)
def _epoch(seed: int, part: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, part, epoch]).permutation(size)


def part_samples(part: int, num_parts: int, num_samples: int) -> range:
    """The samples that lie in one part: disjoint, together all of them, as many in each to within one."""
    return range(part, num_samples, num_parts)


def free_bytes(device: jax.Device) -> int:
    """What a device has left; the devices of a CPU share the machine's memory."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024 // jax.local_device_count()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def check_capacity(num_samples: int, sample_bytes: int, num_parts: int, free: int, share: float) -> None:
    """Raises `UserError` where a part of the cache takes more than `share` of the `free` bytes of a device."""
    if num_samples < num_parts:
        raise UserError(
            f"config.data.feed=cache: {num_samples} samples for {num_parts} parts of the mesh; "
            "use config.data.feed=stream"
        )
    needed = -(-num_samples // num_parts) * sample_bytes
    if needed > share * free:
        raise UserError(
            f"config.data.feed=cache: {num_samples} samples of {sample_bytes} bytes need {needed} bytes "
            f"({needed / 1e9:.2f} GB) on each of {num_parts} devices; found {free} bytes free ({free / 1e9:.2f} GB), "
            f"of which config.data.cache_share={share} may be used; use more devices, a smaller "
            "config.data.image_size or config.data.context, or config.data.feed=stream"
        )


def load_cache(
    source: DexYCB,
    config: TransformConfig,
    sharding: jax.sharding.NamedSharding,
    num_workers: int,
    share: float,
    quarantine: Quarantine,
    report: Callable[[int], None] = lambda samples: None,
) -> Batch:
    """All samples as one `Batch` of global arrays, uint8 images and labels, split by `sharding` over its first axis.

    Each part holds the same number of rows, those beyond its own samples are never read. `report` is told the samples
    done. Samples that cannot be read are replaced as `Readable` does. Raises: UserError where there is no room.
    """
    num_parts = num_mesh_parts(sharding)
    load = functools.partial(_load, Readable(source, quarantine), config=config)
    first = load(0)
    device = jax.local_devices()[0]
    sample_bytes = sum(np.asarray(value).nbytes for value in first.values())
    check_capacity(len(source), sample_bytes, num_parts, free_bytes(device), share)
    rows = -(-len(source) // num_parts)
    parts = local_parts(num_parts)
    arrays = {k: np.zeros((len(parts) * rows, *np.shape(v)), np.asarray(v).dtype) for k, v in first.items()}
    places = [
        (place * rows + row, sample)
        for place, part in enumerate(parts)
        for row, sample in enumerate(part_samples(part, num_parts, len(source)))
    ]
    dataset = grain.MapDataset.source([sample for _, sample in places]).map(load)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1 if num_workers else 2, prefetch_buffer_size=16))
    if num_workers:
        absl_flags()
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=16)
        dataset = dataset.mp_prefetch(options, worker_init_fn=start_worker)
    for (row, _), sample in zip(places, dataset, strict=True):
        for name, value in sample.items():
            arrays[name][row] = value
        report(1)
    quarantine.check(len(source))
    return to_mesh(Batch(**dict.fromkeys(Batch.__dataclass_fields__) | arrays), sharding)


def cache_iterator(source: DexYCB, num_parts: int, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Endless rows of the cache for this process; `batch_size` is over all processes. Its state can be saved."""
    parts = local_parts(num_parts)
    sizes = tuple(len(part_samples(part, num_parts, len(source))) for part in parts)
    order = CacheOrder(sizes, parts.start, batch_size // num_parts, seed)
    return iter(grain.MapDataset.source(order).to_iter_dataset(grain.ReadOptions(1, 2)))


def num_mesh_parts(sharding: jax.sharding.NamedSharding) -> int:
    """Into how many parts the first axis is split."""
    axes = sharding.spec[0] if sharding.spec else ()
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return int(np.prod([sharding.mesh.shape[axis] for axis in axes], initial=1))


def local_parts(num_parts: int) -> range:
    """The parts of this process, in the order of its rows."""
    each = num_parts // jax.process_count()
    return range(jax.process_index() * each, (jax.process_index() + 1) * each)


def gather(cache: Batch, rows: Int[jax.Array, " batch"]) -> Batch:
    """Rows of one part of the cache, on its device."""
    return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), cache)


def _load(readable: Readable, i: int, config: TransformConfig) -> dict:
    return readable.load(i, lambda sample: network_sample(sample, None, config))
