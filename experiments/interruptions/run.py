"""Does a training that is killed again and again end in the same parameters as one that is left alone?

python experiments/interruptions/run.py --root=DATA --workdir=OUT

The command of a run is started, interrupted at a random moment and started again, until it has been interrupted often
enough; then it may end. Its last checkpoint is compared with that of an uninterrupted run, bit for bit.
"""

import argparse
import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from amt.training.checkpoint import newest_step

ROOT = Path(__file__).resolve().parents[2]
STOPPED = 75  # launch.py's status of a run that saved and can go on
STARTING_S = 15.0  # what imports take, and part of the rest before the first step
STEP_S = 1.0  # a few steps, or the writing of a checkpoint


def command(root: Path, workdir: Path, steps: int, overrides: list[str]) -> list[str]:
    """200 steps of the tiny configuration, with dropout; checkpoints come often and apart from the lines of the log."""
    fields = {"steps": steps, "checkpoint_every": 7, "log_every": 5, "eval_every": 50, "blocks.dropout": 0.1}
    flags = [f"--config.train.{name}={value}" for name, value in fields.items()]
    program = [sys.executable, str(ROOT / "launch.py"), "--config=configs/demo.py:tiny", "--mode=train"]
    return [*program, f"--workdir={workdir}", f"--config.data.root={root}", *flags, *overrides]


def finish(run: list[str], log: Path) -> None:
    with log.open("a") as file:
        subprocess.run(run, cwd=ROOT, stdout=file, stderr=file, check=True)


def interrupt(run: list[str], log: Path, number: signal.Signals, workdir: Path, step: int, delay: float) -> bool:
    """Starts the run and sends the signal `delay` seconds after it has logged `step`; False if it had ended by then."""
    with log.open("a") as file:
        start = time.time()
        process = subprocess.Popen(run, cwd=ROOT, stdout=file, stderr=file)
        while process.poll() is None and logged_step(workdir, start) < step:
            time.sleep(0.02)
        try:
            status = process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            status = process.wait()
    # A run that is still importing has nothing to save and dies of SIGTERM as programs do.
    allowed = {signal.SIGKILL: {-9}, signal.SIGTERM: {STOPPED, -15}}[number] | {0}
    if status not in allowed:
        raise SystemExit(f"exit status {status} after {number.name}: see {log}")
    return status != 0


def saved_arrays(workdir: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The newest step and every array of its state: parameters, averages, optimizer, spectral vectors."""
    folder = workdir / "checkpoints"
    step = newest_step(folder)
    path = (folder / f"step_{step}" / "state").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.handler.metadata(path).tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        state = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    return step, {jax.tree_util.keystr(k): np.asarray(x) for k, x in jax.tree_util.tree_leaves_with_path(state)}


def logged_step(workdir: Path, since: float) -> int:
    """The last whole line's step; 0 until the process that began at `since` has cut the lines of the one before."""
    path = workdir / "scalars.csv"
    if not path.exists() or path.stat().st_mtime < since:
        return 0
    lines = [line for line in path.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]
    return int(lines[-1].split(",")[0]) if lines else 0


def log_rows(workdir: Path) -> list[list[str]]:
    """Rows of scalars.csv but those of speed, which no two runs share."""
    with (workdir / "scalars.csv").open() as file:
        return [row for row in csv.reader(file) if row[1] not in ("samples_per_s", "input_wait_share")]


def differing(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> list[str]:
    return [
        name
        for name in sorted(a.keys() | b.keys())
        if name not in a or name not in b or a[name].tobytes() != b[name].tobytes()
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, type=Path, help="a data set in the DexYCB layout")
    parser.add_argument("--workdir", required=True, type=Path, help="an empty folder")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--times", type=int, default=10, help="interruptions of a run")
    parser.add_argument("--signals", nargs="+", default=["SIGKILL", "SIGTERM"])
    parser.add_argument("--seed", type=int, default=0)
    args, overrides = parser.parse_known_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    root = args.root.resolve()

    def begin(name: str) -> tuple[list[str], Path, Path]:
        workdir = args.workdir.resolve() / name
        return command(root, workdir, args.steps, overrides), workdir, args.workdir / f"{name}.log"

    whole, whole_dir, log = begin("whole")
    start = time.monotonic()
    finish(whole, log)
    seconds = time.monotonic() - start
    last, expected = saved_arrays(whole_dir)
    print(f"uninterrupted: {last} steps in {seconds:.0f} s, {len(expected)} arrays")
    failed = False
    for name in args.signals:
        run, workdir, log = begin(name.lower())
        moments = random.Random(f"{args.seed} {name}")
        interrupted, reached = 0, []
        while interrupted < args.times:
            # Anywhere in what is left, evenly; one in five while it starts, before the first step.
            begun = reached[-1] if reached else 0
            ahead = 2 * (args.steps - begun) / (args.times - interrupted + 1)
            starting = moments.random() < 0.2
            step = 0 if starting else begun + 1 + int(moments.uniform(0, min(ahead, args.steps - begun - 1)))
            delay = moments.uniform(0, STARTING_S if starting else STEP_S)
            if not interrupt(run, log, signal.Signals[name], workdir, step, delay):
                break
            interrupted += 1
            steps = newest_step(workdir / "checkpoints")
            reached.append(steps or 0)
        finish(run, log)
        step, found = saved_arrays(workdir)
        different = differing(expected, found)
        same_log = log_rows(whole_dir) == log_rows(workdir)
        failed |= bool(different) or not same_log or step != last
        print(f"{name}: interrupted {interrupted} times, saved by then {reached}; ended at step {step}")
        print(f"{name}: {len(different)} of {len(expected)} arrays differ {different[:3]}; same log: {same_log}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
