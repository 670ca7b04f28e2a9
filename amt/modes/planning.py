"""The memory plan of a configuration: for `--mode=describe`, and for `train.batch_size=auto`."""

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from amt.data.demonstrations import FPS
from amt.data.device_cache import free_bytes
from amt.data.ycb import USED_IDS
from amt.errors import UserError
from amt.evaluation.roofline import random_batch
from amt.losses.actions import TIPS, ActionLabels
from amt.models.factory import build_policy, frozen_parameters
from amt.modes import train_physics
from amt.modes.hands import load_hand
from amt.modes.train import (
    AUTO,
    augment_config,
    build_model,
    check_stage,
    fresh_params,
    network,
    objective,
    optimizer_config,
    with_batch,
)
from amt.physics.objective import Goal
from amt.robot.model import NUM_JOINTS
from amt.structs import Batch, HandClip
from amt.training.feed import Prepare, augment_on_devices
from amt.training.optimizer import make_optimizer
from amt.training.plan import NO_ROOM, Plan, largest_batch, read_plan, topology_devices, virtual_devices
from amt.training.policy import PolicyBatch, policy_loss
from amt.training.rollouts import (
    PhysicsBatch,
    PracticeBatch,
    Task,
    looker,
    num_commands,
    object_models,
    physics_loss,
    practice_loss,
)
from amt.training.sharding import check_batch, make_mesh, num_batch_parts
from amt.training.step import Loss, Objective, initial_state, make_train_step, perception_loss

FIRST = 8  # samples of a device that the search for a batch begins with
CROP_FIELDS_END = "contact_known"  # the last field of `Batch` that a finder alone does without
ROWS = ("weights", "ema", "optimizer", "spectral", "batch", "padding", "temporaries", "peak")


def planned_devices(config) -> list[jax.Device]:
    """Those of `config.plan`. Has to be asked before JAX starts where they are virtual.

    Raises `UserError` for fields that do not go together, and where a search for a batch has no budget.
    """
    plan = config.plan
    elsewhere = plan.topology or plan.devices
    if plan.topology and plan.devices:
        raise UserError(f"config.plan: devices={plan.devices} and topology={plan.topology}; give one of them")
    if plan.devices < 0:
        raise UserError(f"config.plan.devices={plan.devices}: expected a number of virtual devices, or 0 for none")
    if elsewhere and not plan.memory_gb and (plan.find_batch or config.train.batch_size == AUTO):
        raise UserError(
            "config.plan.memory_gb=0: a batch is looked for devices that are not here; give the memory of one, in GB"
        )
    if plan.topology:
        return topology_devices(plan.topology)
    return virtual_devices(plan.devices) if plan.devices else jax.devices()


def describe_plan(config, devices: list[jax.Device]) -> dict:
    """What the train step takes on the planned devices, on the screen and as figures in bytes.

    With `plan.find_batch`, or a batch size that is `auto`, also the largest batch that fits.
    """
    plan, size = config.plan, config.train.batch_size
    mesh = make_mesh(**config.mesh, devices=devices)
    parts = num_batch_parts(mesh)
    if size != AUTO:
        check_batch(size, mesh, "config.train.batch_size")
    budget = plan.memory_gb * 1e9 or config.train.memory_share * free_bytes(devices[0])
    planner = Planner(config, mesh)
    figures = {"devices": mesh.size, "kind": devices[0].device_kind, "mesh": dict(mesh.shape)}
    if plan.find_batch or size == AUTO:
        found = planner.largest(budget, FIRST * parts if size == AUTO else size)
        figures |= {"memory_bytes": int(budget), "largest_batch": found}
        size = max(found, parts) if size == AUTO else size
    made = planner.plan(size)
    if made is None:
        raise UserError(
            f"config.train.batch_size={size}: the compiler finds no room for the step on {devices[0].device_kind}; "
            "lower it, or let config.plan.find_batch=True look for one that fits"
        )
    print_plan(made, size, mesh)
    return {**figures, "batch_size": size, "fits": made.peak <= budget, **_figures(made)}


def choose_batch(config, mesh: Mesh) -> int:
    """The largest batch whose train step fits `train.memory_share` of what the devices of `mesh` have free.

    A cache of the data (`data.feed=cache`) is left its `data.cache_share`. All processes choose the same.
    Raises `UserError` where not even the smallest fits.
    """
    free = min(free_bytes(device) for device in mesh.local_devices)
    free = int(multihost_utils.process_allgather(np.int64(free)).min()) if jax.process_count() > 1 else free
    kept = 1 - config.data.cache_share if config.data.feed == "cache" else 1.0
    budget = config.train.memory_share * kept * free
    parts = num_batch_parts(mesh)
    found = Planner(config, mesh).largest(budget, FIRST * parts)
    if not found:
        raise UserError(
            f"config.train.batch_size=auto: not even {parts} samples fit {_gb(budget)} on each device (config.train."
            f"memory_share={config.train.memory_share} of what is free); use more devices, config.mesh.fsdp, more "
            "config.backbone.remat or a smaller model"
        )
    print(f"batch size {found}: the largest that fits {_gb(budget)} on each of {mesh.size} devices", file=sys.stderr)
    return found


class Planned(NamedTuple):
    """The train step of a stage: abstract parameters, those of them that never learn, and by batch size what it
    minimises and the abstract batch that it is fed, with what is done to that on the devices.
    """

    params: dict
    frozen: Callable[[str], bool] | None
    loss: Callable[[int], Loss]
    feed: Callable[[int], tuple[Any, Prepare | None]]


class Planner:
    """Compiles the configured train step on a mesh for any batch size, each once; says on stderr what it does."""

    def __init__(self, config, mesh: Mesh):
        self.config, self.mesh = config, mesh
        check_stage(config)
        self.step = {"2": _cloning, "3": _physics}.get(config.train.stage, _perception)(config, mesh)
        component = config.train.component
        self.optimizer = make_optimizer(optimizer_config(config), component, self.step.frozen)
        make = functools.partial(
            initial_state, optimizer=self.optimizer, with_gains=config.train.sigma_reparam, component=component
        )
        self.state = jax.eval_shape(make, self.step.params)
        self.plans: dict[int, Plan | None] = {}

    def compile(self, size: int) -> tuple[jax.stages.Compiled, Any]:
        """The train step for a batch size, and the abstract batch that it takes beside `self.state`."""
        batch, prepare = self.step.feed(size)
        step = make_train_step(
            self.step.loss(size),
            self.optimizer,
            self.config.train.ema_decay,
            self.state,
            self.mesh,
            prepare,
            accumulation=self.config.train.accumulation,
        )
        return step.lower(self.state, batch).compile(), batch

    def plan(self, size: int) -> Plan | None:
        """None where the compiler finds that it does not fit, as a TPU's does."""
        if size not in self.plans:
            start = time.monotonic()
            print(
                f"compiling the train step: batch {size} on {self.mesh.size} devices ...", file=sys.stderr, flush=True
            )
            try:
                compiled, batch = self.compile(size)
                made = read_plan(compiled, self.state, batch, self.mesh)
            except jax.errors.JaxRuntimeError as error:
                if NO_ROOM not in str(error):
                    raise
                made = None
            found = "does not fit, says the compiler" if made is None else f"{_gb(made.peak)} on each device"
            print(f"  {found} ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
            self.plans[size] = made
        return self.plans[size]

    def largest(self, budget: float, first: int) -> int:
        """The largest batch whose peak is within `budget` bytes; 0 for none."""

        def peak(size: int) -> float:
            made = self.plan(size)
            return math.inf if made is None else made.peak

        return largest_batch(peak, num_batch_parts(self.mesh), budget, first)


def _perception(config, mesh: Mesh) -> Planned:
    """Of stages 1a and 1b."""
    model, _ = build_model(config)
    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))

    def loss(size: int) -> Loss:  # an epoch of any length takes the same
        return perception_loss(model, objective(with_batch(config, size), size), hand)

    params = jax.eval_shape(functools.partial(fresh_params, config, model), hand)
    return Planned(params, frozen_parameters(model), loss, lambda size: abstract_feed(config, size, mesh))


def _cloning(config, mesh: Mesh) -> Planned:
    """Of stage 2."""
    policy, params, see = _with_policy(config)
    loss = policy_loss(policy, Objective(config.train.action_loss.to_dict(), "policy"), config.seed)

    def feed(size: int) -> tuple[PolicyBatch, None]:
        size *= config.train.accumulation
        return PolicyBatch(see(size, config.train.window), _abstract_labels(config, size)), None

    return Planned(params, None, lambda size: loss, feed)


def _physics(config, mesh: Mesh) -> Planned:
    """Of stage 3, with every object there is."""
    policy, params, see = _with_policy(config)
    model, _ = build_model(config)
    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))
    rollouts, models = train_physics.rollout_config(config), object_models(USED_IDS)

    def loss(size: int) -> Loss:
        goal, last = train_physics.objective(with_batch(config, size), size), (config.seed, config.train.accumulation)
        if train_physics.alone(config):
            return practice_loss(policy, goal, rollouts, models, *last)
        return physics_loss(model, policy, goal, rollouts, models, hand, *last)

    def feed(size: int) -> tuple[PhysicsBatch | PracticeBatch, None]:
        b, t = size * config.train.accumulation, config.train.window
        count = num_commands((t - 1) / FPS)
        goal = Goal(
            object_pos=_floats(b, count, 3),
            object_rot=_floats(b, count, 3, 3),
            tips=_floats(b, count, len(TIPS), 3),
            wrist_pos=_floats(b, count, 3),
            wrist_rot=_floats(b, count, 3, 3),
            valid=jax.ShapeDtypeStruct((b, count), jnp.bool_),
        )
        shares = _floats(b, count, t, config.actions.num_steps)
        played = Task(shares, jax.ShapeDtypeStruct((b,), jnp.int32), _floats(b, 7), goal)
        if train_physics.alone(config):
            return PracticeBatch(see(b, t), _abstract_labels(config, b), played), None
        samples, _ = abstract_feed(config, config.rollout.perception_batch_size, mesh)
        return PhysicsBatch(_abstract_clip(config, b, t), _abstract_labels(config, b), played, samples), None

    return Planned(params, frozen_parameters(model), loss, feed)


def _with_policy(config) -> tuple[Any, dict, Callable[[int, int], Any]]:
    """The policy, the abstract parameters of perception and policy, and what it is given of b x t frames."""
    model, _ = build_model(config)
    policy = build_policy(config.fusion, config.actions, config.train.blocks.to_dict())
    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))
    params = jax.eval_shape(functools.partial(fresh_params, config, model), hand)
    look = looker(model, hand)

    def see(b: int, t: int):
        return jax.eval_shape(lambda p, clip: look(p, clip, {}), params, _abstract_clip(config, b, t))

    rng = jax.eval_shape(lambda: jax.random.key(0))
    return policy, params | {"policy": jax.eval_shape(policy.init, rng, see(1, 1))["params"]}, see


def _abstract_clip(config, b: int, t: int) -> HandClip:
    side = config.data.image_size
    return HandClip(
        image=jax.ShapeDtypeStruct((b, t, side, side, 3), jnp.uint8),
        K=_floats(b, t, 3, 3),
        T_base_crop=_floats(b, t, 4, 4),
        qpos=_floats(b, t, NUM_JOINTS),
        valid=jax.ShapeDtypeStruct((b, t), jnp.bool_),
        scale=_floats(b, t),
    )


def _abstract_labels(config, b: int) -> ActionLabels:
    frames = (b, config.train.window)
    steps = (*frames, config.actions.num_steps)
    return ActionLabels(
        commands=_floats(*steps, NUM_JOINTS),
        position=_floats(*steps, 3),
        rotation=_floats(*steps, 3, 3),
        grasp=jax.ShapeDtypeStruct(steps, jnp.int32),
        aperture=_floats(*steps),
        approach=_floats(*steps, 3),
        force=_floats(*steps),
        lifts=jax.ShapeDtypeStruct(frames, jnp.bool_),
        valid=jax.ShapeDtypeStruct(frames, jnp.bool_),
    )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def abstract_feed(config, size: int, mesh: Mesh) -> tuple[Batch, Prepare | None]:
    """Shapes of what `data.augment` feeds the train step of perception, and what it does with that on the devices."""
    size *= config.train.accumulation
    image_size, prepare = config.data.image_size, None
    if config.data.augment == "device":
        read, augmentation = augment_config(config, network(config))
        image_size, prepare = read.image_size, augment_on_devices(mesh, augmentation, config.seed)
    one = random_batch(1, image_size, None if network(config) == "perception" else config.finder.frame_size)
    if network(config) == "finder":
        names = [f.name for f in dataclasses.fields(Batch)]
        one = one.replace(**dict.fromkeys(names[: names.index(CROP_FIELDS_END) + 1]))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), one), prepare


def print_plan(plan: Plan, size: int, mesh: Mesh) -> None:
    """Two tables: bytes of a device, collectives of a step."""
    print(f"\none of {mesh.size} devices, batch {size}{'MB':>16}")
    for name in ROWS:
        print(f"{name:<24}{getattr(plan, name) / 1e6:>12.1f}")
    print(f"\n{'collectives of a step':<24}{'count':>12}{'MB':>12}{'MB sent':>12}")
    for kind, traffic in plan.collectives.items():
        loops = "  and loops of unknown length" if traffic.unknown_loops else ""
        print(f"{kind:<24}{traffic.count:>12}{traffic.bytes / 1e6:>12.1f}{traffic.sent / 1e6:>12.1f}{loops}")
    if not plan.collectives:
        print("none")


def _figures(plan: Plan) -> dict:
    sizes = {f"{name}_bytes": getattr(plan, name) for name in ROWS}
    return sizes | {"collectives": {kind: dataclasses.asdict(x) for kind, x in plan.collectives.items()}}


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
