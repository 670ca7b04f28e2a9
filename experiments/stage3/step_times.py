"""What a step of stage 3 is made of: seeing, acting, the rollout, and what comes back.

    python experiments/stage3/step_times.py configs/stage3.py:demo DATA STAGE2 TEACHER_FOLDER

Seconds of each part compiled on its own, and of the whole train step; medians of five, after one that compiles.
"""

import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from amt import physics
from amt.data.pipeline import to_mesh
from amt.data.quarantine import Quarantine
from amt.models.factory import frozen_parameters
from amt.modes import train as training
from amt.modes import train_physics
from amt.modes.flags import load_config
from amt.training import rollouts, sharding
from amt.training.optimizer import make_optimizer
from amt.training.step import create_state, make_train_step, perception_terms

REPEATS = 5


def main(config, data: str, stage2: str, folder: str) -> None:
    config.data.root, config.train.start_from, config.teacher.folder = data, stage2, folder
    workdir = Path(tempfile.mkdtemp())
    made, mesh = train_physics.prepare(config, workdir), sharding.one_device_mesh()
    batch = next(iter(train_physics.batches(config, made, mesh, Quarantine(workdir))))
    batch = to_mesh(batch, sharding.batch_sharding(mesh))
    params = jax.tree.map(jnp.asarray, made.params)
    look, act = rollouts.looker(made.model, made.hand), rollouts.actor(made.model, made.policy, made.hand)
    models = rollouts.object_models(video.lesson.ycb_id for video in made.windows.videos)
    settings, rng = train_physics.rollout_config(config), jax.random.key(0)
    seen = jax.jit(lambda p, clip: look(p, clip, {}))(params, batch.clip)
    chunks = jax.jit(lambda p, clip: act(p, clip, {}).commands)(params, batch.clip)
    commands = rollouts.played(batch.task.shares, chunks, batch.clip.qpos[:, 0])
    terms = perception_terms(made.model, train_physics.objective(config, 1), made.hand)

    def total_seen(p, clip):
        return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(look(p, clip, {})))

    def decided(p, seen):
        return jnp.sum(made.policy.apply({"params": p["policy"]}, seen)[0].commands)

    def rolled(u):
        return rollouts.rollout_loss(settings, models, u, batch.task, jnp.float32(1.0))

    def play(u):
        def one(model, u, pose):
            return physics.rollout(model, physics.at_rest(model, jnp.concatenate([u[0], pose])), u, follow=True).qpos

        return jax.vmap(one)(jax.tree.map(lambda x: x[batch.task.ycb_id], models), u, batch.task.object_pose)

    parts = {
        "perceive the windows": (lambda p: look(p, batch.clip, {}), params),
        "perceive, and back": (jax.grad(lambda p: total_seen(p, batch.clip)), params),
        "terms of perception, and back": (jax.grad(lambda p: sum(terms(p, batch.perception, rng)[0].values())), params),
        "policy, and back": (jax.grad(lambda p: decided(p, seen)), params),
        "rollout": (play, commands),
        "rollout, and back": (jax.grad(lambda u: rolled(u)[0]), commands),
    }
    steps = {name: _median(jax.jit(function), argument) for name, (function, argument) in parts.items()}
    optimizer = make_optimizer(training.optimizer_config(config, 1), "all", frozen_parameters(made.model))
    state = create_state(made.params, optimizer, mesh, config.train.sigma_reparam)
    step = make_train_step(train_physics.loss_of(config, made), optimizer, 0.999, state, mesh)
    state, _ = jax.block_until_ready(step(state, batch))
    whole = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        whole.append(time.perf_counter() - start)
    steps["the whole step"] = float(np.median(whole))
    b, count = commands.shape[:2]
    print(f"{b} windows of {batch.clip.valid.shape[1]} frames, {count} commands, {jax.devices()[0].device_kind}")
    for name, seconds in steps.items():
        print(f"{name:32} {1000 * seconds:8.0f} ms")


def _median(function, argument) -> float:
    jax.block_until_ready(function(argument))
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(argument))
        found.append(time.perf_counter() - start)
    return float(np.median(found))


if __name__ == "__main__":
    main(load_config(sys.argv[1], Path(__file__).parents[2]), *sys.argv[2:5])
