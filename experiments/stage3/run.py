"""Does training through physics help, and what of it: lifts of unseen videos, several seeds, what is learned paired.

python experiments/stage3/run.py --train=TRAIN --test=TEST --teacher=FOLDER --start=WEIGHTS --workdir=OUT --seeds=3

Every row of `ROWS` is trained and evaluated once a seed of stage 2, from which stage 3 starts; what follows is the same
for all seeds, so that it is compiled once. What is there already is not made again. Then how much worse perception sees
after stage 3 than before.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
STAGE2 = [f"--config.train.{field}" for field in ("steps=700", "eval_every=350", "checkpoint_every=350", "variants=3",
                                                  "depth_error=0.03", "angle_error=0.015")]  # fmt: skip
ROWS = {
    "stage2": [],
    "stage3": [],
    "stage3 with the policy at a fifth of the rate": ["--config.train.rates.policy=0.2"],
    "stage3 without rollouts": ["--config.rollout.weight=0.0"],
    "stage3 without contact from a distance": ["--config.rollout.reach_width=0.0"],
    "stage3 with the derivative of stock MJX": ["--config.rollout.unrolled=True"],
}
BASELINES = {"true": "retargeting of the labels", "predicted": "retargeting of what is seen", "teacher": "the teacher"}
DRAWS = 4000
SEEING = ("seen_joints_from_wrist_mm", "seen_joints_mm", "seen_object_mm")  # of perception, before and after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "teacher", "start", "workdir"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablation_seeds", type=int, default=3, help="of the rows after the second")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    first = list(ROWS)[:2]
    seeds = {row: range(args.seeds if row in first else args.ablation_seeds) for row in args.rows}
    found = {row: [_one(args, row, seed) for seed in seeds[row]] for row in args.rows}
    show(found)
    for row in args.rows:
        for name in SEEING:
            pairs = [[_figures(args, r, k)[name] for r in ("stage2", row)] for k in seeds[row]]
            before, after = np.mean(pairs, axis=0)
            print(f"{row}: {name} {before:.1f} -> {after:.1f} ({after / before:.3f})")


def _folder(args: argparse.Namespace, row: str, seed: int) -> Path:
    return args.workdir / f"{row.replace(' ', '_')}_{seed}"


def _one(args: argparse.Namespace, row: str, seed: int) -> list[dict]:
    """Trials of the test videos."""
    folder, stage, start = _folder(args, row, seed), "stage2", args.start
    if row != "stage2":
        stage, start = "stage3", _folder(args, "stage2", seed)
    common = [f"--config=configs/{stage}.py:demo", f"--config.teacher.folder={args.teacher}"]
    how = ROWS[row] if stage == "stage3" else [*STAGE2, f"--config.seed={seed}"]
    if not (folder / "train.json").exists():
        data = f"--config.data.root={args.train}", f"--config.train.start_from={start}"
        _launch("train", folder, *common, *data, *how)
    if not (folder / "evaluate.json").exists():
        _launch("evaluate", folder, *common, f"--config.data.root={args.test}", "--config.eval.robot=True",
                f"--config.eval.checkpoint={folder}", "--config.eval.part=all", "--config.eval.films=0",
                "--config.eval.report=False")  # fmt: skip
    return json.loads((folder / "robot_trials.json").read_text())["trials"]


def _figures(args: argparse.Namespace, row: str, seed: int) -> dict:
    return json.loads((_folder(args, row, seed) / "evaluate.json").read_text())


def _launch(mode: str, folder: Path, *flags: str) -> None:
    print(folder.name, mode, file=sys.stderr, flush=True)
    program = [sys.executable, str(ROOT / "launch.py"), f"--mode={mode}", f"--workdir={folder}", *flags]
    subprocess.run(program, cwd=ROOT, check=True)


def show(found: dict[str, list[list[dict]]]) -> None:
    """Shares that are lifted, with 95% intervals over videos, which are drawn again with all their seeds."""
    rng = np.random.default_rng(0)
    first = next(iter(found.values()))[0]
    draws = rng.integers(len(first), size=(DRAWS, len(first)))

    def lifted(runs: list[list[dict]], origin: str) -> np.ndarray:
        """[videos]: the mean over seeds."""
        return np.mean([[row["trials"][origin]["lifted"] for row in rows] for rows in runs], axis=0)

    def interval(values: np.ndarray) -> str:
        low, high = 100 * np.quantile(values[draws].mean(1), [0.025, 0.975])
        return f"{100 * values.mean():5.1f}% ({low:.1f} to {high:.1f})"

    print(f"{len(first)} videos\n{'commands from':<48}{'lifted (95%)':<26}{'by seed':<26}against stage 2")
    rows = {name: lifted([first], origin) for origin, name in BASELINES.items()}
    for name, values in rows.items():
        print(f"{name:<48}{interval(values)}")
    for name, runs in found.items():
        values = lifted(runs, "policy")
        seeds = ", ".join(f"{100 * lifted([rows], 'policy').mean():.1f}" for rows in runs)
        against = ""
        if "stage2" in found and name != "stage2":
            against = interval(values - lifted(found["stage2"][: len(runs)], "policy"))
        print(f"{name:<48}{interval(values):<26}{seeds:<26}{against}")


if __name__ == "__main__":
    main()
