"""The memory plan of a configuration: for `--mode=describe`, and for `train.batch_size=auto`."""

import dataclasses
import functools
import math
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from amt import hand as hand_model
from amt.data.device_cache import free_bytes
from amt.errors import UserError
from amt.evaluation.roofline import random_batch
from amt.models.factory import frozen_parameters
from amt.modes.train import (
    AUTO,
    augment_config,
    build_model,
    check_perception,
    fresh_params,
    network,
    objective,
    optimizer_config,
    with_batch,
)
from amt.structs import Batch
from amt.training.feed import Prepare, augment_on_devices
from amt.training.optimizer import make_optimizer
from amt.training.plan import NO_ROOM, Plan, largest_batch, read_plan, topology_devices, virtual_devices
from amt.training.sharding import check_batch, make_mesh, num_batch_parts
from amt.training.step import initial_state, make_train_step, perception_loss

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


class Planner:
    """Compiles the configured train step on a mesh for any batch size, each once; says on stderr what it does."""

    def __init__(self, config, mesh: Mesh):
        self.config, self.mesh = config, mesh
        check_perception(config)
        self.model, _ = build_model(config)
        self.hand = jax.tree.map(jnp.asarray, hand_model.load())
        component = config.train.component
        self.optimizer = make_optimizer(optimizer_config(config), component, frozen_parameters(self.model))
        params = jax.eval_shape(functools.partial(fresh_params, config, self.model), self.hand)
        make = functools.partial(
            initial_state, optimizer=self.optimizer, with_gains=config.train.sigma_reparam, component=component
        )
        self.state = jax.eval_shape(make, params)
        self.plans: dict[int, Plan | None] = {}

    def compile(self, size: int) -> tuple[jax.stages.Compiled, Batch]:
        """The train step for a batch size, and the abstract batch that it takes beside `self.state`."""
        batch, prepare = abstract_feed(self.config, size, self.mesh)
        goal = objective(with_batch(self.config, size), size)  # an epoch of any length takes the same
        step = make_train_step(
            perception_loss(self.model, goal, self.hand),
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


def abstract_feed(config, size: int, mesh: Mesh) -> tuple[Batch, Prepare | None]:
    """Shapes of what `data.augment` feeds the train step, and what it does with that on the devices."""
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
