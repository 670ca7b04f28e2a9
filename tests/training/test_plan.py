"""The search for a batch against trying every one, and bytes of shards against placed arrays."""

import math

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amt.errors import UserError
from amt.training.plan import largest_batch, shard_bytes, topology_devices, virtual_devices
from amt.training.sharding import make_mesh

CURVES = {
    "line": lambda n: 1000 + 37 * n,
    "bent": lambda n: 1000 + 37 * n + (n > 200) * 11 * (n - 200),
    "steps": lambda n: 1000 + 50 * (n // 16),
    "refused": lambda n: 1000 + 37 * n if n < 150 else math.inf,
}


@pytest.mark.parametrize("name", ["line", "bent", "steps", "refused"])
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("budget", [900, 1040, 3000, 9876, 20_000])
def test_the_largest_batch_is_found_by_few_compiles(name, multiple, budget):
    curve, asked = CURVES[name], []

    def peak(size):
        asked.append(size)
        return curve(size)

    sizes = range(multiple, 20_000, multiple)
    assert largest_batch(peak, multiple, budget, 64) == max((n for n in sizes if curve(n) <= budget), default=0)
    assert len(asked) == len(set(asked)) <= (5 if name == "line" else 20)


def test_bytes_of_a_shard_are_those_of_placed_arrays():
    mesh = make_mesh(2, 2, 2)
    shardings = {"a": NamedSharding(mesh, P("fsdp", "tensor")), "b": NamedSharding(mesh, P())}
    tree = {"a": np.zeros((8, 4), np.float32), "b": np.zeros(3, np.int32)}
    placed = jax.device_put(tree, shardings)
    assert shard_bytes(tree, shardings) == sum(x.addressable_shards[0].data.nbytes for x in placed.values()) == 44


def test_more_virtual_devices_than_there_are():
    assert len(virtual_devices(4)) == 4
    with pytest.raises(UserError, match=r"config\.plan\.devices=64: JAX has 8 CPU devices; set XLA_FLAGS"):
        virtual_devices(64)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("JAX TPU support not installed", "needs libtpu"),
        ("ABORTED: Internal error when accessing libtpu multi-process lockfile", "another process"),
        ("INVALID_ARGUMENT: Invalid TPU", "does not know it"),
    ],
)
def test_a_topology_that_cannot_be_had(error, says, monkeypatch):
    def refuse(**_):
        raise RuntimeError(error)

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=rf"config\.plan\.topology=v9:2x2: .*{says}"):
        topology_devices("v9:2x2")
