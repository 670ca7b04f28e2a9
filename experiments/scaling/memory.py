"""Does the memory plan hold? Planned peak against the growth of this process while the real step runs, on the CPU.

python experiments/scaling/memory.py --batch=32

Linux only: the peak of resident memory is read from /proc.
"""

import argparse
import ctypes
import os
import re
import sys
from pathlib import Path

# Every array gets pages of its own, which go back when it is freed: resident memory is then what arrays take.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
STEPS = 3


def resident(field: str) -> int:
    """Bytes: VmRSS is now, VmHWM the most since `forget_peak`."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def forget_peak() -> None:
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hidden-dim", type=int, default=0, help="another width of the demo's model")
    args = parser.parse_args()
    if any(name not in os.environ for name in MALLOC):  # read when the process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)

    import jax
    import jax.numpy as jnp

    from amt.evaluation.roofline import random_batch
    from amt.modes.planning import Planner
    from amt.training.plan import read_plan
    from amt.training.sharding import one_device_mesh
    from configs import demo

    config = demo.get_config()
    if args.hidden_dim:
        config.model.update(hidden_dim=args.hidden_dim, mlp_dim=4 * args.hidden_dim)
    planner = Planner(config, one_device_mesh())
    compiled, batch = planner.compile(args.batch)
    plan = read_plan(compiled, planner.state, batch, planner.mesh)
    fill = jax.jit(lambda: jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), planner.state)).lower().compile()
    made = random_batch(args.batch, config.data.image_size, config.finder.frame_size)
    forget_peak()
    before = resident("VmRSS")
    state, fed = fill(), jax.tree.map(lambda x: jnp.array(x, copy=True), made)
    jax.block_until_ready((state, fed))
    forget_peak()
    held = resident("VmRSS") - before
    for _ in range(STEPS):
        state, metrics = jax.block_until_ready(compiled(state, fed))
    peak = resident("VmHWM") - before
    print(f"batch {args.batch}, {sum(x.size for x in jax.tree.leaves(planner.state.params)) / 1e6:.1f} M parameters")
    print(f"state and batch  planned {(plan.peak - plan.temporaries) / 1e6:8.1f} MB  measured {held / 1e6:8.1f} MB")
    print(f"peak             planned {plan.peak / 1e6:8.1f} MB  measured {peak / 1e6:8.1f} MB")
    print(f"planned / measured {plan.peak / peak:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
