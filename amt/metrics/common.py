"""What the figures are made of: masked means and distances."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from amt.structs import Array

NEAREST = 0.05  # metres


def mean(values: Float[Array, "*n"], valid: Bool[Array, "*n"]) -> Float[jax.Array, ""]:
    """The mean over what is valid; 0 where nothing is."""
    count = valid.sum().astype(values.dtype)
    return jnp.where(valid, values, 0.0).sum() / jnp.maximum(count, 1.0)


def joint_errors(
    predicted: Float[Array, "*batch n d"], truth: Float[Array, "*batch n d"]
) -> Float[jax.Array, "*batch n"]:
    """Distance of every point to its own label."""
    return jnp.linalg.norm(predicted - truth, axis=-1)


def masked_joint_mean(errors: Float[Array, "*batch n"], valid: Bool[Array, "*batch n"]) -> Float[jax.Array, "*batch"]:
    """The mean of each sample's valid errors; 0 where it has none."""
    count = valid.sum(-1).astype(errors.dtype)
    return jnp.where(valid, errors, 0.0).sum(-1) / jnp.maximum(count, 1.0)


def ahead(points: Float[Array, "*batch n 3"]) -> Float[jax.Array, "*batch n 3"]:
    """Points nearer than 5 cm, or behind the camera, moved along z to 5 cm ahead: their errors count."""
    depth = jnp.maximum(points[..., 2:], NEAREST)
    return jnp.concatenate([points[..., :2], depth], -1)
