"""How batches reach the train step: made on the host, or completed on the devices inside the jitted step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import grain.python as grain
import jax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from amt.data.augmentation import AugmentConfig, augment_each
from amt.data.device_cache import gather
from amt.data.pipeline import to_mesh
from amt.structs import Batch
from amt.training.sharding import BATCH, batch_sharding

Prepare = Callable[[Int[Array, ""], Any], Batch]


@dataclasses.dataclass(frozen=True)
class Feed:
    """`iterator` gives host arrays and its state goes into checkpoints; `place` puts them on the mesh, which the loop
    does while the devices still work on the step before; `prepare(step, placed)` is traced into the train step.
    """

    iterator: grain.DatasetIterator
    place: Callable[[Any], Any]
    prepare: Prepare | None = None


def host_feed(iterator: grain.DatasetIterator, mesh: Mesh) -> Feed:
    """Batches as the host made them."""
    split = batch_sharding(mesh)
    return Feed(iterator, lambda batch: to_mesh(batch, split))


def augmented_feed(iterator: grain.DatasetIterator, mesh: Mesh, config: AugmentConfig, seed: int) -> Feed:
    """Crops with their surroundings from the host, augmented on the devices."""
    split = batch_sharding(mesh)
    return Feed(iterator, lambda batch: to_mesh(batch, split), augment_on_devices(mesh, config, seed))


def cached_feed(iterator: grain.DatasetIterator, cache: Batch, mesh: Mesh, config: AugmentConfig, seed: int) -> Feed:
    """Rows of the cache from the host; gathered and augmented on the devices, each from its own part."""
    split = batch_sharding(mesh)
    prepare = _on_devices(mesh, config, seed, lambda placed: gather(*placed))
    return Feed(iterator, lambda rows: (cache, to_mesh(rows, split)), prepare)


def augment_on_devices(mesh: Mesh, config: AugmentConfig, seed: int) -> Prepare:
    """What `augmented_feed` has done on the devices."""
    return _on_devices(mesh, config, seed, lambda batch: batch)


def _on_devices(mesh: Mesh, config: AugmentConfig, seed: int, read: Callable[[Any], Batch]) -> Prepare:
    """Augmentation as a function of seed, step and place in the batch: the same on every mesh and after a restart."""

    def prepare(step, placed) -> Batch:
        size = jax.tree.leaves(placed)[-1].shape[0]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), size)
        local = jax.shard_map(
            lambda keys, placed: augment_each(keys, read(placed), config),
            mesh=mesh,
            in_specs=(BATCH, BATCH),
            out_specs=BATCH,
        )
        return local(keys, placed)

    return prepare
