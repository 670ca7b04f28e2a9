"""Collectives are counted as a program by hand says it sends, loops included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from amt.training.collectives import Traffic, num_bytes, traffic
from amt.training.sharding import make_mesh


def compiled(body, turns):
    """`body` in a loop of `turns`, on 400 numbers over fsdp=4."""
    mesh = make_mesh(2, 4, 1)

    def loop(x):
        return jax.lax.fori_loop(0, turns, lambda _, x: body(x), x)

    mapped = jax.shard_map(loop, mesh=mesh, in_specs=P("fsdp"), out_specs=P("fsdp"), check_vma=False)
    return jax.jit(mapped).lower(jax.ShapeDtypeStruct((400,), np.float32)).compile().as_text()


def test_every_turn_of_a_loop_counts():
    def body(x):
        whole = jax.lax.all_gather(x, "fsdp", tiled=True)  # 400 numbers from groups of 4
        return jax.lax.psum(whole.reshape(4, 100).sum(0), "data")  # 100 numbers in groups of 2

    assert traffic(compiled(body, 7), 8) == {
        "all-gather": Traffic(7, 7 * 1600, 7 * 1600 * 3 // 4),
        "all-reduce": Traffic(7, 7 * 400, 7 * 2 * 400 // 2),
    }


def test_scattered_and_permuted():
    def body(x):
        x = jax.lax.psum_scatter(jnp.tile(x, 4), "fsdp", tiled=True)
        return jax.lax.ppermute(x, "fsdp", [(k, (k + 1) % 4) for k in range(4)])

    assert traffic(compiled(body, 3), 8) == {
        "reduce-scatter": Traffic(3, 3 * 1600, 3 * 1600 * 3 // 4),
        "collective-permute": Traffic(3, 3 * 400, 3 * 400),
    }


ASYNC = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (x: (bf16[8,4])) -> (bf16[8,4]) {
  %x = (bf16[8,4]{1,0:T(8,128)(2,1)}) parameter(0)
  %y = bf16[8,4]{1,0} get-tuple-element(%x), index=0
  %s = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%y), replica_groups=[64,4]<=[256], dimensions={0}
  %d = bf16[32,4]{1,0} all-gather-done(%s)
  ROOT %t = (bf16[8,4]{1,0}) tuple(%y)
}

ENTRY %main (p: bf16[8,4], q: f32[3]) -> f32[3] {
  %p = bf16[8,4]{1,0} parameter(0)
  %q = f32[3]{0:T(128)} parameter(1)
  %i = (bf16[8,4]{1,0}) tuple(%p)
  %w = (bf16[8,4]{1,0}) while(%i), condition=%cond, body=%body
  %r = (f32[3]{0}, f32[]) all-reduce-start(%q, %q), replica_groups={}, to_apply=%add
  ROOT %e = f32[3]{0} all-reduce-done(%r)
}
"""


def test_asynchronous_ones_count_once_and_unknown_loops_are_named():
    found = traffic(ASYNC.replace("condition=%cond, ", ""), 256)
    assert found["all-gather"] == Traffic(1, 256, 192, unknown_loops=True)
    assert found["all-reduce"] == Traffic(1, 24, 2 * 24 * 255 // 256)


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[2,3]{1,0}", 24), ("bf16[]", 2), ("pred[5]", 5), ("f8e4m3fn[7]", 7), ("(u8[2], s64[3]{0:T(128)})", 26)],
)
def test_bytes_of_a_shape(shape, size):
    assert num_bytes(shape) == size


FUSED = """
%first (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[32]{0} all-gather(%p), channel_id=7, GROUPS {'axis_1'}, dimensions={0}
}

%second (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %h = f32[32]{0} all-gather(%q), channel_id=7, GROUPS {'axis_1'}, dimensions={0}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %a = f32[8]{0} fusion(%x), kind=kCustom, calls=%first
  %b = f32[8]{0} fusion(%a), kind=kCustom, calls=%second
  %r = f32[8]{0} all-reduce(%b), channel_id=8, GROUPS {'axis_0', 'axis_1'}, to_apply=%add
  ROOT %s = f32[8]{0} all-reduce(%r), channel_id=9, GROUPS {'axis_1':(1)2}, to_apply=%add
}
""".replace("GROUPS", "replica_groups=mesh['axis_0'=2,'axis_1'=4]")


def test_what_goes_over_one_channel_is_sent_once_and_by_the_axes_of_its_group():
    assert traffic(FUSED, 8) == {
        "all-gather": Traffic(1, 4 * 32, 4 * 32 * 3 // 4),  # in a group of 4
        "all-reduce": Traffic(2, 2 * 32, 2 * 32 * 7 // 8 + 2 * 32 // 2),  # one of all 8, one of 2
    }
