"""Training that ends before its time, in processes and out of the devices' cache, goes on to the same end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from amt.models import weights
from amt.modes import generate, train
from configs import demo


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate.run(demo.get_config("tiny"), folder, None)
    return folder


@pytest.mark.slow
def test_killed_and_stopped_processes_end_the_same(root, tmp_path):
    """experiments/interruptions, shortened: one kill -9 and one SIGTERM, of the finder alone, which compiles soon."""
    script = Path(__file__).parents[2] / "experiments/interruptions/run.py"
    command = [sys.executable, script, f"--root={root}", f"--workdir={tmp_path}", "--steps=20", "--times=1"]
    command += ["--config.train.component=finder"]
    one_device = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(command, env=os.environ | one_device, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ended at step 20") == done.stdout.count(": 0 of") == 2


@pytest.mark.slow
def test_out_of_the_device_cache_and_stopped_it_ends_the_same(root, tmp_path):
    """On 8 devices; augmentation is a function of the step, so a run that goes on sees the same pictures."""
    config = demo.get_config("tiny")
    config.data.root = str(root)
    config.data.update(augment="device", feed="cache")
    config.train.component = "perception"
    assert np.isfinite(train.run(config, tmp_path / "whole", None)["val_mpjpe_mm"])
    checkpoints = tmp_path / "resumed" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copytree(tmp_path / "whole/checkpoints/step_2", checkpoints / "step_2")
    train.run(config, tmp_path / "resumed", None)
    whole, resumed = (weights.load(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "resumed"))
    for a, b in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)  # saved in half precision


@pytest.mark.slow
@pytest.mark.parametrize("free", [40, 1200])  # kB: not even the figures, not one checkpoint
def test_a_full_disk_ends_training_in_one_line(free, root, small_disk):
    (small_disk / "other").write_bytes(bytes((3072 - free) << 10))
    command = [sys.executable, "launch.py", "--mode=train", "--config=configs/demo.py:tiny"]
    command += [f"--workdir={small_disk / 'run'}", f"--config.data.root={root}"]
    command += ["--config.train.component=finder", "--config.train.checkpoint_every=1"]
    one_device = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, env=one_device, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    others = [line for line in done.stderr.splitlines() if " steps  " not in line]  # than progress
    assert len(others) == 1 and others[0].startswith("error: ") and "(No space left on device)" in others[0]
