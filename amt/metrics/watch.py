"""Figures of motion, and those that show a collapse while it happens."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PyTree

from amt.metrics.common import masked_joint_mean
from amt.structs import Array

_SURE = 1e-12  # a probability below it adds nothing to an entropy


def jitter(
    points: Float[Array, "*batch t n 3"], valid: Bool[Array, "*batch t"], rate: float
) -> Float[jax.Array, "*batch"]:
    """Mean acceleration of the points, |x[t+1] - 2 x[t] + x[t-1]| rate^2 in m/s^2; `rate` in frames/s.

    Counted where three frames in a row are valid; real motion is part of it: compare with the labels' own.
    """
    change = points[..., 2:, :, :] - 2.0 * points[..., 1:-1, :, :] + points[..., :-2, :, :]
    known = valid[..., 2:] & valid[..., 1:-1] & valid[..., :-2]
    return masked_joint_mean(jnp.linalg.norm(change, axis=-1).mean(-1), known) * rate**2


def spread(points: Float[Array, "batch n d"], valid: Bool[Array, " batch"]) -> Float[jax.Array, ""]:
    """Root mean squared distance of a batch's points from their means over the batch; 0 for an empty one."""
    count = jnp.maximum(valid.sum().astype(points.dtype), 1.0)
    kept = jnp.where(valid[:, None, None], points, 0.0)
    away = jnp.where(valid[:, None, None], kept - kept.sum(0, keepdims=True) / count, 0.0)
    return jnp.sqrt((away**2).sum() / (count * points.shape[1]))


def spread_ratio(
    predicted: Float[Array, "batch 21 3"], truth: Float[Array, "batch 21 3"], valid: Bool[Array, " batch"]
) -> Float[jax.Array, ""]:
    """`spread` of predicted root-relative joints over that of the labels: near 0 after a collapse.

    0 where the labels do not differ.
    """
    ours, theirs = (spread(x - x[:, :1], valid) for x in (predicted, truth))
    return jnp.where(theirs > 0, ours / jnp.where(theirs > 0, theirs, 1.0), 0.0)


def entropy_shares(stored: PyTree[Float[Array, "2 heads"]]) -> Float[jax.Array, " all_heads"]:
    """Each head's mean entropy over that of even attention: 1 is even, near 0 has collapsed onto single keys.

    `stored` is what every attention left in the collection `entropy`: the two, in nats. Heads of one key count as 1.
    """
    pairs = jnp.concatenate([jnp.asarray(pair) for pair in jax.tree.leaves(stored)], axis=1)
    return jnp.where(pairs[1] > 0, pairs[0] / jnp.where(pairs[1] > 0, pairs[1], 1.0), 1.0)


def attention_entropy(probabilities: Float[Array, "b h n m"]) -> Float[jax.Array, "b h"]:
    """Entropy in nats of what each query attends to, the mean over queries: 0 is one key, log m all alike."""
    p = probabilities
    return -(p * jnp.log(jnp.maximum(p, _SURE))).sum(-1).mean(-1)
