"""A trace in a few figures: by hand-made spans, and a real trace of a program whose operations are known."""

import jax
import jax.numpy as jnp
import pytest

from amt.evaluation.trace import WINDOW, Span, covered, self_times, sources_of, summarise, table


def test_an_operation_counts_without_what_runs_inside_it():
    line = [
        Span("while", 0, 100),
        Span("dot", 10, 40),
        Span("add", 40, 50),
        Span("dot", 60, 90),
        Span("sort", 120, 130),
    ]
    own = self_times(reversed(line))
    assert sorted(own) == [("add", 10), ("dot", 30), ("dot", 30), ("sort", 10), ("while", 30)]
    assert sum(x for _, x in own) == 110


def test_overlapping_operations_cover_the_window_once():
    window = Span("", 0, 100)
    spans = [Span("a", -20, 10), Span("b", 5, 30), Span("c", 6, 8), Span("d", 50, 60), Span("e", 90, 130)]
    assert covered(spans, window) == 50
    assert covered([], window) == 0


def test_sources_are_read_out_of_a_compiled_program():
    hlo = '  %fusion.1 = f32[2]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(step)/block_0/tanh" source_line=3}\n'
    assert sources_of(hlo + "  %copy.2 = f32[2]{0} copy(%p)\n") == {"fusion.1": "block_0/tanh"}


def test_a_real_trace(tmp_path):
    program = jax.jit(lambda x: jnp.sort(jnp.cumsum(jax.lax.sort(x, dimension=0), 0), 1)).lower(jnp.ones((300, 300)))
    compiled = program.compile()
    x = jnp.ones((300, 300))
    jax.block_until_ready(compiled(x))
    with jax.profiler.trace(str(tmp_path)), jax.profiler.TraceAnnotation(WINDOW):
        for _ in range(4):
            jax.block_until_ready(compiled(x))
    summary = summarise(tmp_path, 4, sources_of(compiled.as_text()))
    names = [o.name for o in summary.operations]
    assert any("sort" in name for name in names) and all(name in compiled.as_text() for name in names)
    assert sum(o.share for o in summary.operations) == pytest.approx(1.0)
    assert 0 <= summary.idle_share < 1
    assert all(a.self_ms >= b.self_ms for a, b in zip(summary.operations, summary.operations[1:], strict=False))
    assert len(table(summary, 1).splitlines()) == 2
