"""How long a train step takes to compile and to run, and who is waited for: the input, the host, the device."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

Step = Callable[[Any, Any], tuple[Any, Any]]
CACHE = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def compile_seconds(step: Any, state: Any, fed: Any) -> dict[str, float]:
    """Seconds to trace a jitted step, to compile it, and to take it out of the persistent cache; nothing is run.

    Compiled programs of the process are forgotten; the cache is an empty folder meanwhile, then the earlier one again.
    """
    before = {name: getattr(jax.config, name) for name in ("jax_compilation_cache_dir", *CACHE)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, value in {"jax_compilation_cache_dir": folder, **CACHE}.items():
                jax.config.update(name, value)
            (trace_s, cold_s), (_, warm_s) = _compile(step, state, fed), _compile(step, state, fed)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
    return {"trace_s": trace_s, "compile_cold_s": cold_s, "compile_warm_s": warm_s}


def _compile(step: Any, state: Any, fed: Any) -> tuple[float, float]:
    jax.clear_caches()
    compilation_cache.reset_cache()
    start = time.perf_counter()
    lowered = step.lower(state, fed)
    traced = time.perf_counter()
    lowered.compile()
    return traced - start, time.perf_counter() - traced


def breakdown(step: Step, state: Any, read: Callable[[], Any], steps: int) -> tuple[Any, dict[str, list[float]]]:
    """The state after `steps` steps, and milliseconds of each: `input_ms` until `read` has a batch on the device,
    `host_ms` until the step is handed over, `device_ms` until its results are there. They come one after the other.
    """
    times: dict[str, list[float]] = {"input_ms": [], "host_ms": [], "device_ms": []}
    for _ in range(steps):
        marks = [time.perf_counter()]
        fed = jax.block_until_ready(read())
        marks.append(time.perf_counter())
        state, metrics = step(state, fed)
        marks.append(time.perf_counter())
        jax.block_until_ready((state, metrics))
        marks.append(time.perf_counter())
        for values, start, end in zip(times.values(), marks[:-1], marks[1:], strict=True):
            values.append(1000 * (end - start))
    return state, times


def steady_rates(step: Step, state: Any, read: Callable[[], Any], steps: int, repeats: int) -> tuple[Any, list[float]]:
    """The state, and steps per second of rows of `steps` as training runs them: the host is one step ahead."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, read())
        jax.block_until_ready((state, metrics))
        rates.append(steps / (time.perf_counter() - start))
    return state, rates
