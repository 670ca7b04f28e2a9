"""Two results of --mode=benchmark side by side; exit status 1 where the second is worse by more than the noise.

python experiments/benchmark/compare.py A/benchmark.json B/benchmark.json [--threshold=0.05] [--once=0.25]

A figure that was measured several times is worse where its median is, by more than `threshold` and by more than the
noise: the larger spread (maximum - minimum) / median of the two. What was measured once has to be worse by `once`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ONCE = ("step_trace_s", "step_compile_cold_s", "step_compile_warm_s", "step_ms")


class Row(NamedTuple):
    """`speed` is how many times as fast B is; `noise` None where each was measured once."""

    name: str
    a: float
    b: float
    speed: float
    noise: float | None
    verdict: str


def load(path: Path) -> dict:
    """A result. Ends the program for a file that is none."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: {error}; expected the benchmark.json that --mode=benchmark writes")
    if not isinstance(result, dict) or "measured" not in result:
        sys.exit(f'error: {path}: no "measured"; expected the benchmark.json that --mode=benchmark writes')
    return result


def rows(a: dict, b: dict, threshold: float, once: float) -> list[Row]:
    """Of the figures that both have."""
    found = []
    for name in [n for n in a["measured"] if n in b["measured"]]:
        runs = [np.array(x["measured"][name], float) for x in (a, b)]
        noise = max(float(np.ptp(x) / np.median(x)) for x in runs)
        found.append(_row(name, *(float(np.median(x)) for x in runs), noise, max(threshold, noise)))
    found += [_row(name, a[name], b[name], None, once) for name in ONCE if name in a and name in b]
    return found


def _row(name: str, a: float, b: float, noise: float | None, limit: float) -> Row:
    more_is_better = name.endswith("_per_s") or name.endswith("_per_cpu_s")
    speed = b / a if more_is_better else a / b
    verdict = "worse" if 1 / speed - 1 > limit else "better" if speed - 1 > limit else ""
    return Row(name, a, b, speed, noise, verdict)


def differences(a: dict, b: dict) -> list[str]:
    """Of machine, versions and configuration: what makes the comparison one of something else."""
    found = []
    for part in ("machine", "versions", "config"):
        flat = [_flatten(x.get(part, {}), part) for x in (a, b)]
        for name in sorted(flat[0].keys() | flat[1].keys()):
            values = [x.get(name, "-") for x in flat]
            if values[0] != values[1] and name != "machine.load_before":
                found.append(f"{name}: {values[0]} and {values[1]}")
    loads = [x.get("machine", {}).get("load_before") for x in (a, b)]
    return found + [f"load before: {loads[0]} and {loads[1]}"] * any(load and load > 0.5 for load in loads)


def _flatten(tree, prefix: str) -> dict:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, value in tree.items() for k, v in _flatten(value, f"{prefix}.{name}").items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--threshold", type=float, default=0.05, help="of figures measured several times")
    parser.add_argument("--once", type=float, default=0.25, help="of figures measured once")
    args = parser.parse_args()
    a, b = load(args.a), load(args.b)
    for line in differences(a, b):
        print(f"differs: {line}")
    found = rows(a, b, args.threshold, args.once)
    if not found:
        sys.exit("error: the two have no figure in common")
    width = max(len(row.name) for row in found)
    print(f"{'':{width}}  {'A':>10}  {'B':>10}  {'speed':>6}  {'noise':>6}")
    for row in found:
        noise = "once" if row.noise is None else f"{row.noise:.1%}"
        print(f"{row.name:{width}}  {row.a:10.4g}  {row.b:10.4g}  {row.speed:6.3f}  {noise:>6}  {row.verdict}".rstrip())
    return int(any(row.verdict == "worse" for row in found))


if __name__ == "__main__":
    sys.exit(main())
