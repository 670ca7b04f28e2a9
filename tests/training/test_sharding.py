"""The sharding table, and what a user is told about a mesh that does not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from amt.errors import UserError
from amt.training.sharding import batch_sharding, check_batch, make_mesh, tree_shardings


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((2, 2, 2), (2, 2, 2)), ((2, -1, 2), (2, 2, 2)), ((1, 4, -1), (1, 4, 2))],
)
def test_one_size_takes_the_devices_that_are_left(sizes, expected):
    mesh = make_mesh(*sizes)
    assert tuple(mesh.shape[axis] for axis in ("data", "fsdp", "tensor")) == expected
    assert {d.id for d in mesh.devices.ravel()} == {d.id for d in jax.devices()}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (2, 2, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 8), (-1, 16, 1), (-2, 1, -4)])
def test_a_mesh_that_does_not_cover_the_devices_is_named(sizes):
    with pytest.raises(UserError, match=r"config.mesh: data=.* does not cover 8 devices"):
        make_mesh(*sizes)


def tree(width=8):
    """Parameters of a block as linen names them, and an optimizer's copy below another name."""
    block = {
        "self_attention": {
            "query": {"kernel": np.zeros((width, width)), "bias": np.zeros(width)},
            "out": {"kernel": np.zeros((width, width))},
        },
        "cross_attention": {"value": {"kernel": np.zeros((width, width))}},
        "Dense_0": {"kernel": np.zeros((width, 2 * width))},
        "Dense_1": {"kernel": np.zeros((2 * width, width))},
    }
    head = {"kernel": np.zeros((width, 3)), "bias": np.zeros(3)}
    params = {"encoder": {"Block_0": block, "head": head, "queries": np.zeros((5, width))}}
    return {"params": params, "mu": params, "count": np.zeros(())}


def test_blocks_are_split_and_the_rest_is_copied():
    specs = jax.tree.map(lambda s: s.spec, tree_shardings(tree(), make_mesh(2, 2, 2)))
    block = specs["params"]["encoder"]["Block_0"]
    assert block["self_attention"]["query"]["kernel"] == P("fsdp", "tensor")
    assert block["self_attention"]["out"]["kernel"] == P("tensor", "fsdp")
    assert block["cross_attention"]["value"]["kernel"] == P("fsdp", "tensor")
    assert block["Dense_0"]["kernel"] == P("fsdp", "tensor")
    assert block["Dense_1"]["kernel"] == P("tensor", "fsdp")
    assert block["self_attention"]["query"]["bias"] == P()
    assert specs["params"]["encoder"]["head"]["kernel"] == P() == specs["params"]["encoder"]["queries"]
    assert specs["mu"] == specs["params"] and specs["count"] == P()


def test_a_split_kernel_needs_an_eighth_of_the_numbers_per_device():
    values = tree(16)
    placed = jax.device_put(values, tree_shardings(values, make_mesh(2, 2, 2)))
    kernel = placed["params"]["encoder"]["Block_0"]["Dense_0"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(8, 16)}


def test_a_width_that_does_not_divide_is_named():
    with pytest.raises(UserError, match=r"config.mesh.fsdp=4: does not divide .*Block_0/.*kernel of shape \(6"):
        tree_shardings(tree(6), make_mesh(1, 4, 2))


def test_a_parameter_without_a_rule_is_named():
    with pytest.raises(UserError, match=r"params/encoder/nose of shape \(8,\): no rule says where it lives"):
        tree_shardings({"params": {"encoder": {"nose": np.zeros(8)}}}, make_mesh(8, 1, 1))


def test_batches_are_split_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    placed = jax.device_put(np.arange(8), batch_sharding(mesh))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2,)}
    check_batch(8, mesh, "config.train.batch_size")
    with pytest.raises(UserError, match="config.train.batch_size=6: must be a multiple of 4"):
        check_batch(6, mesh, "config.train.batch_size")
