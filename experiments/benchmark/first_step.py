"""Seconds from the start of a training process to the end of its first step, with an empty compilation cache and again.

python experiments/benchmark/first_step.py --root=DATA [--cores=2] [-- --config.FIELD=VALUE ...]
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST = 600  # seconds


def first_step(root: str, cache: Path, arguments: list[str]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of the process without its workers. The run is ended at its first line."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "launch.py", "--config=configs/demo.py", "--mode=train", f"--workdir={workdir}"]
        command += [f"--config.data.root={root}", "--config.train.log_every=1", *arguments]
        before, start = os.times(), time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=(Path(workdir) / "errors").open("w"),
            start_new_session=True,
        )
        table = Path(workdir) / "scalars.csv"
        while not table.exists() and process.poll() is None and time.monotonic() - start < LONGEST:
            time.sleep(0.02)
        seconds, done = time.monotonic() - start, table.exists()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that read data
        process.wait()
        if not done:
            last = (Path(workdir) / "errors").read_text().strip().splitlines()[-1:]
            sys.exit(f"no first step within {seconds:.0f} s: {last}")
    after = os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="a data set in the DexYCB layout")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--warm", type=int, default=2, help="runs after the first")
    parser.add_argument("rest", nargs="*", help="arguments of launch.py")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    with tempfile.TemporaryDirectory() as cache:
        for name in ["cold"] + ["warm"] * args.warm:
            seconds, cpu = first_step(args.root, Path(cache), args.rest)
            print(f"{name}  {seconds:6.1f} s  {cpu:6.1f} processor s  load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
