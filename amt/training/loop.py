"""The training loop: feed, step, log, save."""

import csv
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from amt.errors import Stopped, UserError
from amt.hand import HandModel
from amt.models.factory import frozen_parameters
from amt.models.perception import Amt
from amt.training import sharding
from amt.training.checkpoint import Checkpoints
from amt.training.feed import Feed
from amt.training.step import (
    Objective,
    OptimizerConfig,
    TrainState,
    create_state,
    make_optimizer,
    make_train_step,
)

COMPONENTS = ("finder", "perception")


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Counts in steps."""

    batch_size: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    best_metric: str
    sigma_reparam: bool


def train(
    model: Amt,
    hand: HandModel,
    feed: Feed,
    validate: Callable[[dict], Mapping[str, float]],
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    objective: Objective,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    workdir: Path,
    progress: Any,
    params: dict,
    seed: int,
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[TrainState, dict[str, float]]:
    """Train up to `optimizer_config.steps` steps from the newest of `checkpoints`, if there is one, else `params`.

    `seed` is that of dropout. `validate` scores the averaged parameters. `progress` is told the steps done (`update`,
    or `skip` for those of an earlier run) and a line about them. Scalars go to `workdir`/scalars.csv. `stop` is asked
    after each step whether to save and end.
    Returns the state, its scores and, where a checkpoint has been scored, `best_step` and `best_` + the metric.
    Raises `UserError` when the loss is not finite, for checkpoints of another configuration and on a full disk,
    `Stopped` where `stop` says so.
    """
    sharding.check_batch(loop.batch_size, mesh, "config.train.batch_size")
    if objective.component not in ("all", *COMPONENTS):
        raise UserError(f"config.train.component={objective.component}: expected all, {' or '.join(COMPONENTS)}")
    optimizer = make_optimizer(optimizer_config, objective.component, frozen_parameters(model))
    state = create_state(params, optimizer, mesh, loop.sigma_reparam, objective.component)
    log, scores = _Scalars(workdir / "scalars.csv", loop.batch_size), {}
    if (restored := checkpoints.restore(state, feed.iterator)) is not None:
        state, before = restored
        log.sums, scores = before["sums"], before["scores"]
    step_fn = make_train_step(
        model, optimizer, objective, optimizer_config.ema_decay, hand, state, mesh, feed.prepare, seed
    )
    average = jax.jit(TrainState.averaged)
    first = int(state.step)
    log.cut(first)
    if first:
        progress.skip(first, f"resumed at step {first}")
    for step in range(first, optimizer_config.steps):
        waited = time.monotonic()
        fed = feed.place(next(feed.iterator))
        waited = time.monotonic() - waited
        state, metrics = step_fn(state, fed)
        # The device works on this step while the host logs the one before.
        line = log.add(step + 1, metrics, waited, last=(step + 1) % loop.log_every == 0)
        progress.update(1, line)
        done = step + 1 == optimizer_config.steps
        checkpoints.check()
        evaluate = (step + 1) % loop.eval_every == 0 or done
        if evaluate:
            scores = dict(validate(average(state)))
            log.write(step + 1, scores)
            progress.update(0, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        stopping = stop(step + 1) and not done
        if (step + 1) % loop.checkpoint_every == 0 or done or stopping:
            log.flush()
            so_far = {"sums": log.sums, "scores": scores}
            checkpoints.save(step + 1, state, feed.iterator, so_far, scores[loop.best_metric] if evaluate else None)
        if stopping:
            raise Stopped(
                f"stopped after step {step + 1} of {optimizer_config.steps}, which is saved; "
                "run the same command again to go on"
            )
    if checkpoints.best:
        scores |= {"best_step": checkpoints.best[0], f"best_{loop.best_metric}": checkpoints.best[1]}
    return state, scores


class _Scalars:
    """Reads metrics one step late, keeps the means since the last line, appends them to a CSV."""

    def __init__(self, path: Path, batch_size: int):
        self.path, self.batch_size = path, batch_size
        self.pending: tuple[int, dict] | None = None
        self.sums: list[dict[str, float]] = []
        self.steps, self.waited, self.start = 0, 0.0, time.monotonic()

    def cut(self, step: int) -> None:
        """Drop the rows beyond `step`, and a line that was not finished: they will be written again."""
        if not self.path.exists():
            return
        head, *lines = self.path.read_text().splitlines(keepends=True) or [""]
        rows = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= step]
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text(head + "".join(rows))
        part.replace(self.path)

    def add(self, step: int, metrics: dict[str, jax.Array], waited: float, last: bool) -> str:
        self.flush()
        self.pending = (step, metrics)
        self.steps, self.waited = self.steps + 1, self.waited + waited
        if not last:
            return ""
        self.flush()
        seconds = time.monotonic() - self.start
        means = {k: float(np.mean([s[k] for s in self.sums])) for k in self.sums[0]}
        speed = {
            "samples_per_s": self.batch_size * self.steps / seconds,
            "input_wait_share": self.waited / seconds,
        }
        self.write(step, {**means, **speed})
        self.sums, self.steps, self.waited, self.start = [], 0, 0.0, time.monotonic()
        return "  ".join(
            (
                f"loss {means['loss']:.3f}",
                *[f"hand {means[k] * 100:.1f} mm" for k in ("hand_refined", "hand_coarse") if k in means][:1],
                f"{speed['samples_per_s']:.0f} samples/s",
                f"input wait {speed['input_wait_share']:.0%}",
            )
        )

    def flush(self) -> None:
        """Fetch the pending metrics. Raises `UserError` where the loss is not finite."""
        if self.pending is None:
            return
        step, metrics = self.pending
        self.pending = None
        values = {k: float(v) for k, v in metrics.items()}
        if not np.isfinite(values["loss"]):
            culprits = [k for k, v in values.items() if not np.isfinite(v)]
            raise UserError(
                f"training: the loss is not finite at step {step} ({', '.join(culprits)}); "
                "lower config.train.learning_rate and resume: checkpoints hold the state before"
            )
        self.sums.append(values)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append rows of step, name, value."""
        new = not self.path.exists()
        rows: Iterable = [(step, k, f"{v:.6g}") for k, v in scalars.items()]
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("step", "name", "value"))
            writer.writerows(rows)
