"""JAX as every test has it: CPU, 8 virtual devices, strict promotion, quick compiling, programs kept between runs."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

CACHE = Path.home() / ".cache/amt/jax-tests"
FLAGS = (
    # On two cores eight devices may wait long for each other: that is no deadlock.
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
    # Almost all of the time goes into compiling programs that run a few times: these two halve it.
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)


def is_known(flag: str) -> bool:
    """Whether this jaxlib has the flag: one that it does not know ends the process, so another one tries, once."""
    mark = CACHE / f"{importlib.metadata.version('jaxlib')}{flag}"
    if not mark.is_file():
        environment = os.environ | {"XLA_FLAGS": flag}
        tried = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True
        )
        if tried.returncode and b"Unknown flag" not in tried.stderr:
            raise RuntimeError(f"jax does not start:\n{tried.stderr.decode(errors='replace')}")
        CACHE.mkdir(parents=True, exist_ok=True)
        mark.write_text("unknown" if tried.returncode else "known")
    return mark.read_text() == "known"


# Before jax is imported, which reads these; subprocesses of tests inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the controller's
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", *filter(is_known, FLAGS)]
    )
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
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
