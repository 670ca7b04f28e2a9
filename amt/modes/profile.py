"""`--mode=profile`: where the time of the configured train step goes, on the data that it would train on."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp

from amt.data.hand_labels import HandIds
from amt.data.mixed import find_roots, open_mixed
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.evaluation import trace
from amt.modes import train, train_physics, train_policy
from amt.modes.common import Progress
from amt.modes.hands import load_hand
from amt.training import sharding
from amt.training.optimizer import make_optimizer
from amt.training.step import create_state, make_train_step


def run(config, workdir: Path, input: str | None) -> dict:
    """`profile.warmup` steps, then `profile.steps` with a trace below `workdir`/trace.

    Weights of stages 1a and 1b are random, perception's of stage 2 and all of stage 3 are those of `train.start_from`.
    Raises `UserError` without a data set, as training does.
    """
    steps = config.profile.steps
    if min(steps, config.profile.warmup) < 1:
        raise UserError(f"config.profile.steps={steps}, warmup={config.profile.warmup}: expected at least 1 of each")
    train.check_stage(config)
    made, component = learning(config, workdir), config.train.component
    feed, chosen = made.feed, made.optimizer
    optimizer = make_optimizer(chosen, component, made.frozen)
    state = create_state(made.params, optimizer, made.mesh, config.train.sigma_reparam, component)
    step = make_train_step(made.loss, optimizer, chosen.ema_decay, state, made.mesh, feed.prepare, chosen.accumulation)
    fed = feed.place(next(feed.iterator))
    start = time.perf_counter()
    compiled = step.lower(state, fed).compile()
    compile_s = time.perf_counter() - start
    folder, waited = workdir / "trace", 0.0
    with Progress(config.profile.warmup + steps, "steps") as progress:
        for _ in range(config.profile.warmup):
            state, _ = jax.block_until_ready(compiled(state, fed))
            fed = feed.place(next(feed.iterator))
            progress.update()
        with jax.profiler.trace(str(folder)):
            start = time.perf_counter()
            with jax.profiler.TraceAnnotation(trace.WINDOW):
                for number in range(steps):
                    with jax.profiler.StepTraceAnnotation("train", step_num=number):
                        waiting = time.perf_counter()
                        with jax.profiler.TraceAnnotation("input"):
                            fed = feed.place(next(feed.iterator))
                        waited += time.perf_counter() - waiting
                        state, _ = compiled(state, fed)
                    progress.update()
                jax.block_until_ready(state)
            seconds = time.perf_counter() - start
    summary = trace.summarise(folder, steps, trace.sources_of(compiled.as_text()))
    count = config.profile.operations
    print(trace.table(summary, count))
    shown = summary.operations[:count]
    return {
        "device": jax.devices()[0].device_kind,
        "batch_size": config.train.batch_size * chosen.accumulation,
        "compile_s": compile_s,
        "steps_per_s": steps / seconds,
        "samples_per_s": steps * config.train.batch_size * chosen.accumulation / seconds,
        "input_wait_share": waited / seconds,
        "idle_share": summary.idle_share,
        "shown_share": sum(o.share for o in shown),
        "distinct_operations": len(summary.operations),
        "operations": [o._asdict() for o in shown],
        "trace": str(folder),
        "open_with": f"pip install -e '.[profile]'; xprof --logdir={folder}; or vm.trace.json.gz in ui.perfetto.dev",
    }


def learning(config, workdir: Path) -> train.Learning:
    """What the configured stage trains, on its data. Raises as `--mode=train` does."""
    quarantine = Quarantine(workdir, jax.process_index())
    if config.train.stage == "2":
        return train_policy.learning(config, train_policy.prepare(config, workdir))
    if config.train.stage == "3":
        return train_physics.learning(config, train_physics.prepare(config, workdir), quarantine)
    model, _ = train.build_model(config)
    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))
    source = open_mixed(find_roots(config.data.root), config.data.split, config.data.part, HandIds.of(hand))
    params = train.fresh_params(config, model, hand)
    return train.learning(config, sharding.make_mesh(**config.mesh), model, source, hand, params, quarantine)
