"""How the weights of the terms change by epoch, and the weighted sum."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]


def falling(epoch: Float[Array, ""]) -> Float[Array, ""]:
    """2 at the start, 1 from epoch 30 on: predictions are kept apart while they are most alike."""
    return jnp.maximum(1.0, 2.0 - epoch / 30.0)


def physics(epoch: Float[Array, ""]) -> Float[Array, ""]:
    """0 at the start, 1 from epoch 50 on: first the hand has to be where it is seen."""
    return jnp.minimum(1.0, epoch / 50.0)


def refined(epoch: Float[Array, ""]) -> Float[Array, ""]:
    """0.3 at the start, 1 from epoch 21 on: what is refined has to be there first."""
    return jnp.minimum(1.0, 0.3 + epoch / 30.0)


# By the name of the term; a term that is not here keeps its weight. Source: DESIGN.md section 5.
SCHEDULES: dict[str, Schedule] = {
    "diversity": falling,
    "hand_refined": refined,
    "physics_force": physics,
    "physics_joint_limits": physics,
    "physics_penetration": physics,
}


def total(
    terms: dict[str, Float[Array, ""]], weights: dict[str, float], epoch: Float[Array, ""] | float = jnp.inf
) -> Float[Array, ""]:
    """The weighted sum at an epoch, which may be traced and broken; the default is where every schedule has ended.

    A term without a weight is an error, so that none is forgotten.
    """
    if missing := sorted(set(terms) ^ set(weights)):
        raise ValueError(f"loss terms and weights differ in {missing}")
    epoch = jnp.asarray(epoch, jnp.float32)
    scheduled = {name: SCHEDULES[name](epoch) if name in SCHEDULES else 1.0 for name in terms}
    return jnp.stack([weights[name] * scheduled[name] * terms[name] for name in sorted(terms)]).sum()
