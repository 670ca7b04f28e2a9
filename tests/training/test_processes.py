"""Two real processes over the loopback, started as a user starts them, against one."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from amt.models import weights
from amt.modes import generate
from amt.storage import only_run
from configs import vmt

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
FLAGS = (
    "--config.data.feed=cache",
    "--config.data.augment=device",
    f"--config.train.steps={STEPS}",
)


def start(workdir, root, devices, *flags):
    """A training run as a process with so many devices of its own."""
    command = [sys.executable, "launch.py", "--config=configs/vmt.py:tiny", "--mode=train", f"--workdir={workdir}"]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command += [f"--config.data.root={root}", *FLAGS, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_two(workdir, root):
    """A run of two processes, and what they have said when both have ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = ("--config.distributed.enabled=True", f"--config.distributed.coordinator=127.0.0.1:{port}")
    joined += ("--config.distributed.num_processes=2",)
    runs = [start(workdir, root, 1, *joined, f"--config.distributed.process_id={k}") for k in range(2)]
    return runs, [run.communicate(timeout=600) for run in runs]


def losses(workdir):
    with (workdir / "scalars.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """The same losses, the same weights to rounding, and one of them reports."""
    root, one, two = (tmp_path / name for name in ("data", "one", "two"))
    generate.run(vmt.get_config("tiny"), root, None)
    runs, outputs = start_two(two, root)
    assert [run.returncode for run in runs] == [0, 0], outputs
    single = start(one, root, 2)
    _, errors = single.communicate(timeout=600)
    assert single.returncode == 0, errors
    assert len(losses(two)) == STEPS
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    ours, theirs = (jax.tree.leaves(weights.load(folder / "weights.safetensors")[0]) for folder in (two, one))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # half precision, and Adam's steps of gradients that are rounding
    assert "val_mpjpe_mm" in outputs[0][0] and "val_mpjpe_mm" not in outputs[1][0] + outputs[1][1]


@pytest.mark.slow
def test_both_processes_end_where_another_run_works(tmp_path):
    with only_run(tmp_path):
        runs, outputs = start_two(tmp_path, "/nowhere")
    assert [run.returncode for run in runs] == [2, 2], outputs
    assert f"process {os.getpid()} of " in outputs[0][1] and "the first process says more" in outputs[1][1]
