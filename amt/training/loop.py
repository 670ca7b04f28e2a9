"""The training loop: feed, step, log, save."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amt.errors import Stopped, UserError
from amt.training import sharding
from amt.training.checkpoint import Checkpoints
from amt.training.feed import Feed
from amt.training.health import Health
from amt.training.optimizer import OptimizerConfig, belongs, make_optimizer
from amt.training.sharding import path_name
from amt.training.step import Loss, TrainState, create_state, make_train_step
from amt.training.writers import Image, MetricLog, open_writers


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Counts in steps; a step takes `batch_size` samples `accumulation` times."""

    batch_size: int
    accumulation: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    max_skipped: int
    best_metric: str
    sigma_reparam: bool
    wandb_project: str


def train(
    loss: Loss,
    feed: Feed,
    validate: Callable[[dict], Mapping[str, float]],
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    workdir: Path,
    progress: Any,
    params: dict,
    component: str = "all",
    frozen: Callable[[str], bool] | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    draw: Callable[[dict], Image] | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Train up to `optimizer_config.steps` steps from the newest of `checkpoints`, if there is one, else `params`.

    What learns is `component`, but for parameters whose path is `frozen`. `validate` scores the averaged parameters,
    `draw` makes a picture of what they predict. `progress` is told the steps done (`update`, or `skip` for those of an
    earlier run) and a line about them. Scalars and pictures go to `workdir` (`amt.training.writers`). `stop` is asked
    after each step whether to save and end.
    Returns the state, its scores and, where a checkpoint has been scored, `best_step` and `best_` + the metric.
    Raises `UserError` for a component that there is not, for checkpoints of another configuration, on a full disk, and
    where `loop.max_skipped` updates in a row are not finite; `Stopped` where `stop` says so.
    """
    sharding.check_batch(loop.batch_size, mesh, "config.train.batch_size")
    _check_component(params, component)
    optimizer = make_optimizer(optimizer_config, component, frozen)
    state = create_state(params, optimizer, mesh, loop.sigma_reparam, component)
    before = {"metrics": [], "scores": {}, "skipped": 0}
    if (restored := checkpoints.restore(state, feed.iterator)) is not None:
        state, before = restored
    step_fn = make_train_step(
        loss,
        optimizer,
        optimizer_config.ema_decay,
        state,
        mesh,
        feed.prepare,
        optimizer_config.accumulation,
    )
    average = make_average(mesh)
    first, last = int(state.step), optimizer_config.steps
    if first:
        progress.skip(first, f"resumed at step {first}")
    scores, health = before["scores"], Health(loop.max_skipped, before["skipped"])
    with contextlib.closing(open_writers(workdir, loop.wandb_project, checkpoints.about, first)) as writers:
        log = MetricLog(writers, loop.batch_size * loop.accumulation, health, before["metrics"])
        for step in range(first + 1, last + 1):
            waited = time.monotonic()
            fed = feed.place(next(feed.iterator))
            waited = time.monotonic() - waited
            state, metrics = step_fn(state, fed)
            # The device works on this step while the host logs the one before.
            progress.update(1, log.add(step, metrics, waited, last=step % loop.log_every == 0))
            checkpoints.check()
            evaluate = step % loop.eval_every == 0 or step == last
            if evaluate:
                averaged = average(state)
                scores = dict(validate(averaged))
                writers.write_scalars(step, scores)
                if draw:
                    writers.write_image(step, draw(averaged))
                progress.update(0, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
            stopping = stop(step) and step < last
            if step % loop.checkpoint_every == 0 or step == last or stopping:
                log.flush()
                so_far = {"metrics": log.metrics, "scores": scores, "skipped": health.skipped}
                checkpoints.save(step, state, feed.iterator, so_far, scores[loop.best_metric] if evaluate else None)
            if stopping:
                raise Stopped(
                    f"stopped after step {step} of {last}, which is saved; run the same command again to go on"
                )
    scores |= {"skipped_updates": health.skipped}
    if checkpoints.best:
        scores |= {"best_step": checkpoints.best[0], f"best_{loop.best_metric}": checkpoints.best[1]}
    return state, scores


def make_average(mesh: jax.sharding.Mesh) -> Callable[[TrainState], dict]:
    """`TrainState.averaged` on the first device of this process, from wherever the mesh holds it."""
    averaged = jax.jit(TrainState.averaged, out_shardings=NamedSharding(mesh, P()))
    return lambda state: jax.tree.map(lambda x: x.addressable_data(0), averaged(state))


def _check_component(params: dict, component: str) -> None:
    """Raises `UserError` for a component of which there are no parameters."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if not any(belongs(path, component) for path in paths):
        parts = sorted({"/".join(p.split("/")[: 1 + p.startswith("perception/")]) for p in paths} - {"finder"})
        known = ", ".join(["all", *(n for n in ("finder", "perception") if any(belongs(p, n) for p in paths)), *parts])
        raise UserError(f"config.train.component={component}: this model has no such part; expected one of {known}")
