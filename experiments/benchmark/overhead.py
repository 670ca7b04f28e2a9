"""What logging, checkpoints and pictures of evaluations add to the train step, at the intervals of configs/base.py.

python experiments/benchmark/overhead.py --root=DATA [--steps=20] [--pairs=8]

Rows of `steps` bare steps and of as many with their metrics fetched one step late, in turns, in one process: what
logging adds to every step. Then the events one by one: writing a line, saving a checkpoint (until the loop may go on,
and, in processor time, until it is on the disk), drawing and writing the picture; each counts as often as it
happens. Processor time counts all threads of the process, so that what else runs changes it little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from amt import hand as hand_model
from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.data.pipeline import eval_batches
from amt.data.quarantine import Quarantine
from amt.models.factory import frozen_parameters
from amt.modes import train as training
from amt.modes.validation import perceiver, pictures
from amt.training.checkpoint import Checkpoints
from amt.training.health import Health
from amt.training.loop import make_average
from amt.training.optimizer import make_optimizer
from amt.training.sharding import one_device_mesh
from amt.training.step import create_state, make_train_step, perception_loss
from amt.training.writers import MetricLog, open_writers
from configs import demo

EVENTS = 5  # of each kind are timed


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.start = np.array([time.perf_counter(), time.process_time()])

    def read(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()]) - self.start


def timed(event: Callable[[int], object]) -> np.ndarray:
    """Medians of `EVENTS` runs, after one."""
    event(0)
    taken = []
    for k in range(1, EVENTS + 1):
        clock = Clock()
        event(k)
        taken.append(clock.read())
    return np.median(taken, axis=0)


class Loop:
    """The demo's train step on its data, as amt/training/loop.py runs it."""

    def __init__(self, config, workdir: Path):
        self.config, self.mesh = config, one_device_mesh()
        self.source = open_source(find_root(config.data.root), config.data.split, config.data.part)
        self.quarantine = Quarantine(workdir)
        self.model, self.settings = training.build_model(config)
        self.hand = jax.tree.map(jnp.asarray, hand_model.load())
        self.transforms = training.transform_config(config)
        self.feed = training.make_feed(config, self.source, self.transforms, self.mesh, self.quarantine)
        optimizer = make_optimizer(training.optimizer_config(config), "all", frozen_parameters(self.model))
        params = training.fresh_params(config, self.model, self.hand)
        self.state = create_state(params, optimizer, self.mesh, config.train.sigma_reparam)
        goal = training.objective(config, len(self.source))
        decay = config.train.ema_decay
        loss = perception_loss(self.model, goal, self.hand)
        self.step = make_train_step(loss, optimizer, decay, self.state, self.mesh)
        self.writers = open_writers(workdir, "", self.settings)
        self.log = MetricLog(self.writers, config.train.batch_size, Health(10))

    def row(self, steps: int, logged: bool) -> np.ndarray:
        clock = Clock()
        for k in range(steps):
            self.state, metrics = self.step(self.state, self.feed.place(next(self.feed.iterator)))
            if logged:
                self.log.add(k + 1, metrics, 0.0, last=False)
        if logged:
            self.log.flush()
        jax.block_until_ready((self.state, metrics))
        return clock.read() / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--steps", type=int, default=20, help="in a row")
    parser.add_argument("--pairs", type=int, default=8, help="of rows")
    args = parser.parse_args()
    config = demo.get_config()
    config.data.root = args.root
    with tempfile.TemporaryDirectory() as folder:
        measure(Loop(config, Path(folder)), Path(folder), args.steps, args.pairs)


def measure(loop: Loop, workdir: Path, steps: int, pairs: int):
    train = loop.config.train
    loop.row(3, logged=True)
    rows = [(loop.row(steps, logged=False), loop.row(steps, logged=True)) for _ in range(pairs)]
    bare = np.median([a for a, _ in rows], axis=0)
    fetching = np.array([np.median([b[i] / a[i] for a, b in rows]) - 1.0 for i in (0, 1)])
    spread = np.array([np.ptp([b[i] / a[i] for a, b in rows]) for i in (0, 1)])

    loop.state, metrics = jax.block_until_ready(loop.step(loop.state, loop.feed.place(next(loop.feed.iterator))))
    fetched = timed(lambda k: (loop.log.add(k, jax.tree.map(jnp.copy, metrics), 0.0, last=False), loop.log.flush()))
    scalars = dict.fromkeys((f"name_{k}" for k in range(60)), 1.0)
    line = timed(lambda k: loop.writers.write_scalars(k, scalars))

    blocked = []

    def save(k: int):
        clock = Clock()
        checkpoints.save(k + 1, loop.state, loop.feed.iterator)
        blocked.append(clock.read()[0])
        checkpoints.manager.wait_until_finished()

    about = training.about(loop.config, loop.settings)
    with Checkpoints(workdir / "checkpoints", about) as checkpoints:
        saved = timed(save)

    held_out = list(eval_batches(loop.source, loop.transforms, loop.config.eval.batch_size, 64, loop.quarantine))
    averaged = make_average(loop.mesh)(loop.state)
    draw = pictures(perceiver(loop.model, loop.hand), held_out)
    picture = timed(lambda k: loop.writers.write_image(k, draw(averaged)))
    loop.writers.close()

    print(f"step {1000 * bare[0]:.0f} ms, {1000 * bare[1]:.0f} processor ms, batch {train.batch_size}")
    print(f"{'':34} {'wall ms':>8} {'cpu ms':>8}  every  share of the step, wall and processor time")
    total = np.zeros(2)
    events = {
        "metrics of a step fetched": (fetched, 1),
        "a line of scalars": (line, train.log_every),
        "a checkpoint, until it is on disk": (saved, train.checkpoint_every),
        "a picture": (picture, train.eval_every),
    }
    for name, (cost, every) in events.items():
        share = cost / every / bare
        total += share
        print(f"{name:34} {1000 * cost[0]:8.1f} {1000 * cost[1]:8.1f} {every:6d}  {share[0]:.3%} {share[1]:.3%}")
    print(f"a checkpoint holds the loop up for {1000 * np.median(blocked):.0f} ms")
    print(f"events together                                           {total[0]:.3%} {total[1]:.3%}")
    print(f"rows with metrics fetched over bare rows                  {fetching[0]:+.2%} {fetching[1]:+.2%}")
    print(f"  spread of the pairs (max - min)                         {spread[0]:.2%} {spread[1]:.2%}")


if __name__ == "__main__":
    main()
