"""Two benchmark results: what got worse beyond the noise is told by the exit status."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark" / "compare.py"
RESULT = {
    "measured": {
        "find_frames_per_s": [100.0, 101.0, 99.0],
        "step_device_ms": [50.0, 51.0, 50.5],
        "step_samples_per_s": [60.0, 80.0, 70.0],
    },
    "step_compile_cold_s": 20.0,
    "machine": {"processor": "A", "cores": 2, "load_before": 0.1},
    "config": {"seed": 0},
    "versions": {"jax": "0.10.2"},
}


def compare(tmp_path, change):
    other = copy.deepcopy(RESULT)
    change(other)
    for name, result in (("a", RESULT), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def measured(name, factor):
    def change(result):
        result["measured"][name] = [factor * x for x in result["measured"][name]]

    return change


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda r: None, 0, "find_frames_per_s"),
        (measured("find_frames_per_s", 0.9), 1, "worse"),
        (measured("find_frames_per_s", 1.2), 0, "better"),
        (measured("step_device_ms", 1.1), 1, "worse"),
        (measured("step_device_ms", 0.8), 0, "better"),
        (measured("step_samples_per_s", 0.85), 0, "28.6%"),  # its runs differ by more
        (measured("step_samples_per_s", 0.7), 1, "worse"),
        (lambda r: r.update(step_compile_cold_s=24.0), 0, "once"),
        (lambda r: r.update(step_compile_cold_s=26.0), 1, "worse"),
        (lambda r: r["machine"].update(processor="B"), 0, "differs: machine.processor: A and B"),
        (lambda r: r["config"].update(seed=1), 0, "differs: config.seed: 0 and 1"),
        (lambda r: r["machine"].update(load_before=3.0), 0, "load before: 0.1 and 3.0"),
    ],
)
def test_what_got_worse_is_told(change, status, says, tmp_path):
    found, text = compare(tmp_path, change)
    assert (found, says in text) == (status, True), text
    assert ("worse" in text) == (status == 1)


def test_a_file_that_is_no_result_is_named(tmp_path):
    status, text = compare(tmp_path, lambda r: r.pop("measured"))
    assert status == 1 and "b.json" in text and "expected the benchmark.json" in text and "Traceback" not in text
