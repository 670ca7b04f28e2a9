"""Commands that make an object follow its demonstration, by gradient descent through the simulation."""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from amt.errors import UserError
from amt.physics import objective
from amt.physics.model import Model, State
from amt.physics.objective import Goal
from amt.physics.simulation import Guide, Reach, rollout

KNOT_EVERY = 5  # commands between knots, 0.1 s; changes of commands are linear between them
MOMENTUM, ARM_SHARE = 0.8, 0.2  # arm joints move this share of what finger joints do
LIMIT_MARGIN = 0.005  # radians
MEMORY = 0.9  # of `rollout`: 0.2 s
EASY_SHARE = 0.6  # of the iterations in which the guide leads, less and less


@struct.dataclass
class Progress:
    """After an iteration, by scene: the best commands so far, their loss without a guide (infinite: none seen yet),
    the current loss and how much the guide does.
    """

    controls: Float[Array, "b T 22"]
    best: Float[Array, " b"]
    loss: Float[Array, " b"]
    gain: Float[Array, ""]


class _Problem(NamedTuple):
    models: Model
    states: State
    controls: Array
    goals: Goal
    reach: Reach


class _Carry(NamedTuple):
    change: Array
    momentum: Array
    controls: Array
    best: Array


def optimise(
    models: Model,
    states: State,
    controls: Float[Array, "b T 22"],
    goals: Goal,
    *,
    iterations: int = 60,
    rate: float = 0.02,
    weights: Mapping[str, float] = objective.WEIGHTS,
    reach: Reach | None = None,
) -> Iterator[Progress]:
    """Improves a batch of command sequences from where they are, each for its scenes, start states and goals.

    Of those there are as many for every command sequence, one after the other: the mean of their losses counts, so that
    what is found does not hang on where exactly the object lay. A pair of scenes is `models` of 2 b.
    At first a guide leads the object along its goal, so that fingers learn to stay at it; it fades, and what it did the
    hand has to do. A step goes along the gradient, smoothed over iterations, as far as `rate` radians for the joint
    that it moves most. The best commands are those with the smallest loss without a guide, the given ones included.
    """
    problem = _problem(models, states, controls, goals, reach)
    weighted = tuple(sorted(weights.items()))
    change = jnp.zeros((len(controls), _hats(controls.shape[1]).shape[1], controls.shape[2]), controls.dtype)
    carry = _Carry(change, change, controls, jnp.full(len(controls), jnp.inf, controls.dtype))
    easy = round(EASY_SHARE * iterations)
    for iteration in range(-1, iterations):
        gain = 0.0 if iteration < 0 else max(1 - iteration / max(easy, 1), 0.0) ** 2
        left = (iterations - iteration) / max(iterations - easy, 1)
        step = 0.0 if iteration < 0 else rate * min(left, 1.0)
        gain, step = (jnp.asarray(x, controls.dtype) for x in (gain, step))
        carry, value = _iterate(problem, carry, gain, step, weighted)
        if iteration < 0:  # a look at the start, without a step
            carry = carry._replace(momentum=jnp.zeros_like(carry.momentum))
        yield Progress(carry.controls, carry.best, value, gain)


def judge(
    models: Model,
    states: State,
    controls: Float[Array, "b T 22"],
    goals: Goal,
    *,
    weights: Mapping[str, float] = objective.WEIGHTS,
) -> Float[Array, " b"]:
    """The loss of command sequences that `optimise` starts from, without a gradient."""
    return _judge(_problem(models, states, controls, goals, None), tuple(sorted(weights.items())))


def _problem(models: Model, states: State, controls: Array, goals: Goal, reach: Reach | None) -> _Problem:
    """Scenes by the command sequence that they belong to."""
    count, each = len(controls), len(states.qpos) // max(len(controls), 1)
    if not count or len(states.qpos) != count * each:
        raise UserError(f"optimise: {len(states.qpos)} scenes for {count} command sequences; expected as many for each")

    def grouped(tree):
        return jax.tree.map(lambda x: x.reshape(count, each, *x.shape[1:]), tree)

    return _Problem(grouped(models), grouped(states), controls, grouped(goals), reach or Reach())


@functools.partial(jax.jit, static_argnames="weights")
def _judge(problem: _Problem, weights: tuple) -> Array:
    def one(model, state, controls, goal):
        change = jnp.zeros((_hats(len(controls)).shape[1], controls.shape[1]), controls.dtype)
        return _loss(change, model, state, controls, goal, problem.reach, 0.0, dict(weights))[0]

    return jax.vmap(one)(*problem[:-1])


@functools.partial(jax.jit, static_argnames="weights")
def _iterate(problem: _Problem, carry: _Carry, gain: Array, step: Array, weights: tuple) -> tuple[_Carry, Array]:
    graded = jax.vmap(jax.value_and_grad(_loss, has_aux=True), in_axes=(0, 0, 0, 0, 0, None, None, None))
    reach, weights = problem.reach, dict(weights)
    (value, u), gradient = graded(carry.change, *problem[:-1], reach, gain, weights)
    share = jnp.asarray([ARM_SHARE] * 6 + [1.0] * 16, u.dtype)[None, None]
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0) * share
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2), keepdims=True)
    direction = gradient / jnp.maximum(largest, 1e-6)
    momentum = MOMENTUM * carry.momentum + (1 - MOMENTUM) * direction
    better = (value < carry.best) & (gain == 0)
    kept = jnp.where(better[:, None, None], u, carry.controls)
    change = carry.change - step * momentum * share
    return _Carry(change, momentum, kept, jnp.where(better, value, carry.best)), value


def _loss(change, model, state, start, goal, reach, gain, weights):
    """The objective with as much guide as the gain says, the mean over scenes, and the commands."""
    low, high = (jnp.asarray(x, start.dtype) for x in model.tree.limits.T)
    u = start + jnp.asarray(_hats(len(start)), start.dtype) @ change
    u = jnp.clip(u, low[None] + LIMIT_MARGIN, high[None] - LIMIT_MARGIN)

    def judged(model, state, goal):
        guide = Guide(goal.object_pos[:, None], goal.object_rot[:, None], gain)
        played = rollout(model, state, u, follow=True, reach=reach, memory=MEMORY, guide=guide)
        return objective.total(objective.terms(model, played, u, goal), weights)

    return jnp.mean(jax.vmap(judged)(model, state, goal)), u


def _hats(length: int) -> np.ndarray:
    """Linear interpolation from knots to commands, [length, knots]."""
    count = -(-(length - 1) // KNOT_EVERY) + 1
    place = np.arange(length)[:, None] / KNOT_EVERY
    return np.maximum(1 - np.abs(place - np.arange(count)[None]), 0.0)
