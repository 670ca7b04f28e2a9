"""Two real processes over the loopback, started as a user starts them, against one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amt.evaluation.samples import ARRAYS, FILE, Samples
from amt.hand import EMBEDDED_HAND
from amt.models import weights
from amt.modes import generate
from configs import demo
from tests.evaluation import tiny
from tests.evaluation.test_evaluate import MEAN

ROOT = Path(__file__).resolve().parents[2]


def start(workdir, *flags):
    """An evaluation as a process with one device of its own."""
    command = [sys.executable, "launch.py", "--config=configs/demo.py:tiny", "--mode=evaluate", f"--workdir={workdir}"]
    environment = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *flags], cwd=ROOT, env=environment, **pipes)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """The table out of two shares of the videos is that of all of them; one reports, and compares: no change."""
    data, one, two, file = (tmp_path / name for name in ("data", "one", "two", "tiny.safetensors"))
    generate.run(demo.get_config("tiny"), data, None)
    weights.save(file, *tiny.parameters(), MEAN.to_json(), hand=EMBEDDED_HAND)
    flags = [f"--config.data.root={data}", f"--config.eval.checkpoint={file}", "--config.eval.part=all"]
    flags += ["--config.eval.max_samples=0", "--config.eval.report=False"]
    single = start(one, *flags)
    _, errors = single.communicate(timeout=600)
    assert single.returncode == 0, errors
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags += ["--config.distributed.enabled=True", f"--config.distributed.coordinator=127.0.0.1:{port}"]
    flags += ["--config.distributed.num_processes=2", f"--config.eval.against={one}"]
    runs = [start(two, *flags, f"--config.distributed.process_id={k}") for k in range(2)]
    outputs = [run.communicate(timeout=600) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    ours, theirs = (Samples.load(folder / FILE) for folder in (two, one))
    for name in ARRAYS:
        a, b = getattr(ours, name), getattr(theirs, name)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(b), initial=0), err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert "mpjpe_mm" in outputs[0][0] and "mpjpe_mm" not in outputs[1][0]
    figures = json.loads((two / "evaluate.json").read_text())
    assert figures["samples"] == figures["against_samples"] == len(theirs) > 10
    assert figures["against_mpjpe_mm_difference"] == pytest.approx(0, abs=1e-5 * figures["mpjpe_mm"])
    assert json.loads((two / "comparison.json").read_text())["samples_only_here"] == 0
