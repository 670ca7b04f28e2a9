"""How the step of configs/base.py grows from 1 to 256 chips, counted, and what 50 epochs of DexYCB's s0 would take.

python launch.py --config=configs/base.py --mode=describe --workdir=runs/describe
python experiments/scaling/run.py --describe=runs/describe/describe.json

Nothing is compiled: state bytes are those of the sharding table, traffic is that of a ring. README.md has the
assumptions; `--mode=describe --config.plan.enabled=True` is the compiler's answer.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, AxisType

from amt.models.factory import frozen_parameters
from amt.modes.planning import Planner
from amt.training.plan import shard_bytes
from amt.training.sharding import AXES, one_device_mesh, tree_shardings
from configs import base

SAMPLES, EPOCHS = 465_504, 50  # s0 train
BATCH = 32  # of each device
FSDP = 16  # devices that share one copy of the state; the finder's width of 128 allows no more than 128


class Chip(NamedTuple):
    """Vendor figures: dense bfloat16 FLOP/s, and bytes/s between chips, of one axis in both directions."""

    flops: float
    link: float


CHIPS = {"H100/H200": Chip(989e12, 450e9), "v5e": Chip(197e12, 90e9)}
UTILISATION = 0.4  # of peak FLOP/s while computing: assumed, not measured
RUNS = (("H100/H200", 1), ("v5e", 16), ("v5e", 256))


def state_bytes(state, mesh) -> int:
    return shard_bytes(state, tree_shardings(state, mesh))


def learned_bytes(planner: Planner) -> int:
    """Float32 gradients, which every step adds up over the devices."""
    frozen = frozen_parameters(planner.model) or (lambda path: False)
    flat = flatten_dict(planner.state.params, sep="/")
    return sum(x.size * jnp.dtype(x.dtype).itemsize for path, x in flat.items() if not frozen(path))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--describe", required=True, help="describe.json of the same configuration")
    flops = json.loads(Path(parser.parse_args().describe).read_text())["training_flops"]
    planner = Planner(base.get_config(), one_device_mesh())
    gradient = learned_bytes(planner)
    weights = sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(planner.state.params))
    print(f"{flops / 1e9:.0f} GFLOP a sample, weights {weights / 1e6:.0f} MB, gradient {gradient / 1e6:.0f} MB\n")

    chip = CHIPS["v5e"]
    compute = BATCH * flops / (chip.flops * UTILISATION)
    print(
        "| v5e chips | state MB, data only | state MB, fsdp | gradient sent MB | compute ms | sending ms | in a row |"
    )
    print("|---|---|---|---|---|---|---|")
    for n in (1, 4, 16, 64, 256):
        data, fsdp = (AbstractMesh((n // f, f, 1), AXES, axis_types=(AxisType.Auto,) * 3) for f in (1, min(n, FSDP)))
        sent = 2 * gradient * (n - 1) / n
        sending = sent / chip.link
        figures = [state_bytes(planner.state, mesh) / 1e6 for mesh in (data, fsdp)]
        row = [f"{x:.0f}" for x in (*figures, sent / 1e6, 1000 * compute, 1000 * sending)]
        print(f"| {n} | {' | '.join(row)} | {compute / (compute + sending):.0%} |")

    print(f"\n{EPOCHS} epochs of {SAMPLES} samples\n")
    print("| chips | batch | hours, hidden | hours, in a row |\n|---|---|---|---|")
    for name, n in RUNS:
        chip, steps = CHIPS[name], EPOCHS * SAMPLES / (BATCH * n)
        compute, sending = BATCH * flops / (chip.flops * UTILISATION), 2 * gradient * (n - 1) / n / chip.link
        hours = [steps * seconds / 3600 for seconds in (max(compute, sending), compute + sending)]
        print(f"| {n} x {name} | {BATCH * n} | {hours[0]:.2f} | {hours[1]:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
