"""Times of a step whose parts take a known time."""

import time

import jax
import jax.numpy as jnp

from amt.evaluation.step_times import breakdown, compile_seconds, steady_rates

PAUSE = 0.03  # seconds


@jax.jit
def program(state, fed):
    return state + 1, jax.lax.fori_loop(0, 3, lambda _, x: jnp.sort(x @ x, 0), fed).sum()


def read():
    time.sleep(PAUSE)
    return jnp.ones((50, 50))


def test_waiting_counts_as_input():
    state, times = breakdown(program, jnp.zeros(()), read, steps=3)
    assert state == 3 and times.keys() == {"input_ms", "host_ms", "device_ms"}
    assert all(len(values) == 3 and min(values) > 0 for values in times.values())
    assert min(times["input_ms"]) >= 1000 * PAUSE


def test_a_row_of_steps_is_no_faster_than_its_input():
    state, rates = steady_rates(program, jnp.zeros(()), read, steps=2, repeats=3)
    assert state == 6 and len(rates) == 3 and max(rates) <= 1 / PAUSE


def test_compiling_leaves_the_settings_of_the_cache(tmp_path):
    names = [name for name in dir(jax.config) if "compilation_cache" in name or "persistent_cache" in name]
    before = {name: getattr(jax.config, name) for name in names}
    figures = compile_seconds(program, jnp.zeros(()), read())
    assert figures.keys() == {"trace_s", "compile_cold_s", "compile_warm_s"} and min(figures.values()) > 0
    assert {name: getattr(jax.config, name) for name in names} == before


def test_the_second_compilation_comes_out_of_the_cache():
    """JAX's own events tell."""
    state, fed = jnp.zeros(()), read()
    events = []

    def listen(event, **_):
        events.append(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(listen)
    try:
        compile_seconds(program, state, fed)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    assert [e for e in events if e in ("cache_hits", "cache_misses")] == ["cache_misses", "cache_hits"]
