"""Can the perception model of configs/demo.py learn 32 samples by heart? What cannot, cannot learn anything.

python experiments/overfit/run.py --root=DATA
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from amt import hand as hand_model
from amt import metrics
from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.data.pipeline import stack, to_mesh
from amt.data.transforms import network_sample
from amt.modes.train import build_model, fresh_params, objective, optimizer_config, transform_config
from amt.structs import Batch
from amt.training.optimizer import make_optimizer
from amt.training.sharding import batch_sharding, one_device_mesh
from amt.training.step import create_state, make_train_step, perception_loss
from configs import demo

SAMPLES = 32
GOAL_MM = 3.0
CHECK_EVERY = 25  # steps


def chosen_samples(config) -> Batch:
    """Samples with a hand, spread over the training part; crops from labels, without any jitter."""
    source = open_source(find_root(config.data.root), config.data.split, "train")
    order = np.random.default_rng(0).permutation(len(source))
    transforms = transform_config(config, "perception")
    made = (network_sample(source[int(i)], None, transforms) for i in order)
    seen = (sample for sample in made if sample["joints_valid"])
    return stack([next(seen) for _ in range(SAMPLES)])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, help="a data set in the DexYCB layout")
    parser.add_argument("--steps", type=int, default=2000, help="at most")
    args = parser.parse_args()
    config = demo.get_config()
    config.data.root = args.root
    config.train.update(steps=args.steps, batch_size=SAMPLES, component="perception", weight_decay=0.0, warmup_steps=50)
    mesh = one_device_mesh()
    hand = jax.tree.map(jnp.asarray, hand_model.load())
    model, _ = build_model(config)
    optimizer = make_optimizer(optimizer_config(config), "perception")
    state = create_state(fresh_params(config, model, hand), optimizer, mesh)
    loss = perception_loss(model, objective(config, SAMPLES), hand)
    step = make_train_step(loss, optimizer, config.train.ema_decay, state, mesh)
    batch = to_mesh(chosen_samples(config), batch_sharding(mesh))

    @jax.jit
    def error_mm(params) -> jax.Array:
        joints = model.apply({"params": params}, batch.image, batch.K, hand, method="perceive").joints
        valid = jnp.broadcast_to(batch.joints_valid[:, None], joints.shape[:2])
        return metrics.mpjpe(joints, batch.joints_3d, valid).mean() * 1000

    start, used = time.monotonic(), time.process_time()
    for k in range(args.steps):
        state, _ = step(state, batch)
        if (k + 1) % CHECK_EVERY:
            continue
        error = float(error_mm(state.params))
        clock = f"{time.monotonic() - start:.0f} s, {time.process_time() - used:.0f} s of processor time"
        print(f"{k + 1:5d} steps  {error:6.2f} mm  {clock}, compiling included", flush=True)
        if error < GOAL_MM:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
