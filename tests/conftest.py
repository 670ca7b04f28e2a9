"""JAX as every test has it: CPU, 8 virtual devices, strict promotion, quick compiling, programs kept between runs."""

import os
import subprocess
from pathlib import Path

# Before jax is imported, which reads these; subprocesses of tests inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
# On two cores eight devices may wait long for each other: that is no deadlock.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=300"
    # Almost all of the time goes into compiling programs that run a few times: this halves it.
    + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache/amt/jax-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def small_disk(tmp_path):
    """A folder that takes 3 MiB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk of 3 MiB cannot be mounted: " + mounted.stderr.decode().strip())
    yield folder
    subprocess.run(["umount", folder], check=True)
