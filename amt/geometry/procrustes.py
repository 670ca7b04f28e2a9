"""Similarity alignment of point sets (Procrustes), for PA-MPJPE and for placing one skeleton on another.

Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from amt.structs import Array


def align(
    source: Float[Array, "*batch n 3"],
    target: Float[Array, "*batch n 3"],
    weights: Float[Array, "*batch n"] | Bool[Array, "*batch n"] | None = None,
) -> tuple[Float[jax.Array, "*batch"], Float[jax.Array, "*batch 3 3"], Float[jax.Array, "*batch 3"]]:
    """(scale, R, t) with the least weighted squares of target - (scale R source + t); R is no reflection.

    `weights` may be a mask. A source without extent (or without weight) gets scale 0 and lands on the
    target's mean.
    """
    weights = jnp.ones(source.shape[:-1], source.dtype) if weights is None else weights.astype(source.dtype)
    total = jnp.sum(weights, -1, keepdims=True)
    share = (weights / jnp.where(total > 0, total, 1))[..., None]
    source_mean = jnp.sum(share * source, -2, keepdims=True)
    target_mean = jnp.sum(share * target, -2, keepdims=True)
    source, target = source - source_mean, target - target_mean
    variance = jnp.sum(share * source**2, (-2, -1))
    covariance = jnp.einsum("...na,...nb->...ab", share * target, source, precision="highest")
    U, singular, Vt = jnp.linalg.svd(covariance)
    proper = jnp.where(jnp.linalg.det(U) * jnp.linalg.det(Vt) < 0, -1, 1).astype(source.dtype)
    signs = jnp.stack([jnp.ones_like(proper), jnp.ones_like(proper), proper], -1)
    R = jnp.matmul(U * signs[..., None, :], Vt, precision="highest")
    extended = variance > 0
    scale = jnp.where(extended, jnp.sum(singular * signs, -1) / jnp.where(extended, variance, 1), 0)
    moved_mean = jnp.einsum("...ab,...nb->...na", R, source_mean, precision="highest")
    return scale, R, (target_mean - scale[..., None, None] * moved_mean)[..., 0, :]


def aligned(
    source: Float[Array, "*batch n 3"],
    target: Float[Array, "*batch n 3"],
    weights: Float[Array, "*batch n"] | Bool[Array, "*batch n"] | None = None,
) -> Float[jax.Array, "*batch n 3"]:
    """The source moved, turned and scaled onto the target."""
    scale, R, t = align(source, target, weights)
    turned = jnp.einsum("...ab,...nb->...na", R, source, precision="highest")
    return scale[..., None, None] * turned + t[..., None, :]
