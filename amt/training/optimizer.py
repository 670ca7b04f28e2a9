"""AdamW with a rate for each group of parameters; what does not learn has neither state nor update."""

import dataclasses
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from amt.errors import UserError
from amt.training.sharding import path_name

# The first match is a parameter's group. `config.train.rates` multiplies the learning rate of each.
RATE_GROUPS = (
    ("backbone", r"^perception/encoder/backbone/"),
    ("finder", r"^finder/"),
    ("encoder", r"^perception/(encoder|hand_encoder|object_encoder|contact_encoder)/"),
    ("decoder", r"^perception/(keypoints|coarse_hand|joint_refiner|side|joint_logits|object_heads)\b"),
    ("decoder", r"^perception/(object|contact)_decoder/"),
    ("policy", r"^policy/(fusion|actions)/"),
)
SCHEDULES = ("cosine", "restarts")
CYCLE_GROWTH = 2  # each cycle of warm restarts is so many times as long as the one before


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, warm-up, and a cosine from `learning_rate` to `learning_rate_floor`; lengths in updates.

    `schedule` is one cosine over all `steps`, or starts again (Loshchilov and Hutter 2017, SGDR) after `restart_steps`,
    then after twice as many, and so on. An update sums up `accumulation` batches. `rates` are multipliers by the group
    of `RATE_GROUPS`; groups that it does not name have 1.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    learning_rate_floor: float = 1e-6
    schedule: str = "cosine"
    restart_steps: int = 0
    accumulation: int = 1
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Raises `UserError` for a value that makes no sense, by the name of its field."""
        if self.schedule not in SCHEDULES:
            raise UserError(f"config.train.schedule={self.schedule}: expected {' or '.join(SCHEDULES)}")
        if self.schedule == "restarts" and self.restart_steps <= self.warmup_steps:
            raise UserError(
                f"config.train.restart_steps={self.restart_steps}: expected more than warmup_steps={self.warmup_steps}"
            )
        if self.accumulation < 1:
            raise UserError(f"config.train.accumulation={self.accumulation}: expected 1 or more batches")
        if unknown := sorted(set(self.rates) - {name for name, _ in RATE_GROUPS}):
            groups = ", ".join(dict(RATE_GROUPS))
            raise UserError(f"config.train.rates.{unknown[0]}: no such group of parameters; there are {groups}")
        if wrong := [name for name, rate in self.rates.items() if rate < 0]:
            raise UserError(f"config.train.rates.{wrong[0]}={self.rates[wrong[0]]}: expected 0 or more")


def rate_group(path: str) -> str:
    """The group of a parameter by its path, names joined by slashes. Raises `UserError` where it has none."""
    for group, pattern in RATE_GROUPS:
        if re.search(pattern, path):
            return group
    raise UserError(f"{path}: belongs to no rate group; add it to RATE_GROUPS in amt/training/optimizer.py")


def belongs(path: str, component: str) -> bool:
    """Whether a parameter is of a component: all, finder, perception, or a part of it as perception/object_decoder."""
    return component == "all" or path == component or path.startswith(f"{component}/")


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """The rate of a group whose multiplier is 1, by update."""
    peak, warmup = config.learning_rate, config.warmup_steps
    floor = min(config.learning_rate_floor, peak)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(config.steps, warmup + 1), floor)
    cycles, start, length = [], 0, config.restart_steps
    while start < config.steps:
        warm = warmup if not cycles else 0
        first = 0.0 if warm else peak
        cycles.append(
            {"init_value": first, "peak_value": peak, "warmup_steps": warm, "decay_steps": length, "end_value": floor}
        )
        start, length = start + length, length * CYCLE_GROWTH
    return optax.sgdr_schedule(cycles)


def make_optimizer(
    config: OptimizerConfig, component: str = "all", frozen: Callable[[str], bool] | None = None
) -> optax.GradientTransformation:
    """Clip, Adam, decay of matrices only, schedule, rate of the group.

    Parameters outside `component`, those whose path is `frozen` and those whose group has rate 0 get no update and no
    state; the gradient's norm that is clipped is that of the others. Raises `UserError` as `OptimizerConfig.check`.
    """
    config.check()

    def rate(path: str) -> float:
        return config.rates.get(rate_group(path), 1.0)

    def learns(path: str) -> bool:
        return belongs(path, component) and not (frozen and frozen(path)) and rate(path) > 0

    def labels(params):
        return _by_path(lambda path: "train" if learns(path) else "freeze", params)

    def clip(updates):  # by a product: optax's division and choice are more kernels for every array
        factor = config.clip_norm / jnp.maximum(optax.tree.norm(updates), config.clip_norm)
        return jax.tree.map(lambda u: u * factor, updates)

    def scale(updates):
        return jax.tree_util.tree_map_with_path(lambda path, u: u * rate(path_name(path)), updates)

    schedule = learning_rate(config)
    adamw = optax.chain(
        optax.stateless(lambda updates, params: clip(updates)),
        optax.adamw(schedule, b2=0.99, weight_decay=config.weight_decay, mask=_decayed),
        optax.stateless(lambda updates, params: scale(updates)),
    )
    return optax.partition({"train": adamw, "freeze": optax.set_to_zero()}, labels)


def _decayed(params):
    return _by_path(lambda path: path.endswith("/kernel"), params)


def _by_path(function: Callable, tree):
    return jax.tree_util.tree_map_with_path(lambda path, _: function(path_name(path)), tree)


def select(condition: jax.Array, yes, no):
    """Of two trees alike the one or the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
