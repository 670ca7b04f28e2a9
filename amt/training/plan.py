"""What the train step takes on a mesh, as the compiler says it ahead of time: no array is allocated for it.

The mesh may be of the devices that are here, of virtual CPU devices, or of a TPU topology that libtpu describes.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from amt.errors import UserError
from amt.structs import Batch
from amt.training.collectives import Traffic, traffic
from amt.training.sharding import batch_sharding, tree_shardings
from amt.training.step import TrainState

NO_ROOM = "RESOURCE_EXHAUSTED"  # what a TPU's compiler says of a program that does not fit


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes of one device while the step runs, and what it sends.

    `weights`, `ema`, `optimizer`, `spectral` and `batch` are its shards of them, `padding` what layouts and scalars add
    to these, `temporaries` what else the compiler holds at once: gradients, activations, work space. `peak` is the sum.
    `collectives` are by kind.
    """

    weights: int
    ema: int
    optimizer: int
    spectral: int
    batch: int
    padding: int
    temporaries: int
    peak: int
    collectives: dict[str, Traffic]


def virtual_devices(count: int) -> Sequence[jax.Device]:
    """CPU devices that share this machine. Raises `UserError` where JAX has started with fewer."""
    with contextlib.suppress(RuntimeError):  # JAX has started, or XLA_FLAGS says how many there are
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"config.plan.devices={count}: JAX has {len(devices)} CPU devices; "
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    return devices[:count]


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The devices of a TPU topology such as v5e:4x4, none of which has to be there.

    Raises `UserError` without libtpu, and for a topology that it does not know.
    """
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except RuntimeError as error:
        if "not installed" in str(error):
            raise UserError(
                f"config.plan.topology={name}: needs libtpu, which compiles for TPUs; pip install -e '.[tpu]'"
            ) from error
        if "lockfile" in str(error):
            raise UserError(
                f"config.plan.topology={name}: another process here uses libtpu, which serves one at a time; "
                "wait until it ends, or remove /tmp/libtpu_lockfile where there is none"
            ) from error
        raise UserError(
            f"config.plan.topology={name}: libtpu does not know it ({str(error).splitlines()[0]}); "
            "expected a TPU and its grid, as v5e:2x2, v5e:16x16 or v4:2x2x1"
        ) from error


def read_plan(compiled: jax.stages.Compiled, state: TrainState, batch: Batch, mesh: Mesh) -> Plan:
    """Of a train step that was compiled for `state` and `batch`, which may be abstract."""
    placed = tree_shardings(state, mesh)
    parts = {
        "weights": shard_bytes(state.params, placed.params),
        "ema": shard_bytes(state.ema, placed.ema),
        "optimizer": shard_bytes(state.opt_state, placed.opt_state),
        "spectral": shard_bytes(state.spectral, placed.spectral),
        "batch": shard_bytes(batch, jax.tree.map(lambda _: batch_sharding(mesh), batch)),
    }
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Plan(
        **parts,
        padding=held - sum(parts.values()),
        temporaries=memory.temp_size_in_bytes,
        peak=held + memory.temp_size_in_bytes,
        collectives=traffic(compiled.as_text(), mesh.size),
    )


def shard_bytes(tree: Any, shardings: Any) -> int:
    """Bytes of one device's shards of the leaves."""
    sizes = jax.tree.map(lambda x, s: jnp.dtype(x.dtype).itemsize * math.prod(s.shard_shape(x.shape)), tree, shardings)
    return sum(jax.tree.leaves(sizes))


def largest_batch(peak: Callable[[int], float], multiple: int, budget: float, first: int) -> int:
    """The largest multiple of `multiple` whose `peak` bytes, which grow with it, are within `budget`; 0 for none.

    `peak` compiles, so few are asked for: from `first` on the next one is where the line through the two nearest the
    budget meets it, and every third halves what is left. Infinity stands for bytes that are not known, but too many.
    """
    known: dict[int, float] = {}
    fits, fails, trial = 0, math.inf, max(1, first // multiple)
    while fails - fits > 1:
        known[trial] = peak(trial * multiple)
        fits, fails = (trial, fails) if known[trial] <= budget else (fits, trial)
        guess = _meets(known, budget)
        if guess is None or (len(known) % 3 == 0 and fails < math.inf):
            guess = 2 * fits if fails == math.inf else (fits + fails) // 2
        trial = int(min(max(guess, fits + 1), fails - 1))
    return fits * multiple


def _meets(known: dict[int, float], budget: float) -> int | None:
    """Where the line through the two points that are nearest the budget meets it; None where there is no such line."""
    near = sorted((abs(y - budget), x) for x, y in known.items() if y < math.inf)[:2]
    if len(near) < 2:
        return None
    (_, a), (_, b) = near
    slope = (known[b] - known[a]) / (b - a)
    return math.floor(a + (budget - known[a]) / slope) if slope > 0 else None
