"""Terms that need no label of their own: physics of a still hand, spread of predictions, gains, attention, motion."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from amt.geometry import rotations
from amt.hand import HandModel
from amt.losses.common import DECIMETRES, distance, masked_mean

LARGEST_FLEXION = 0.8 * jnp.pi  # radians
LARGEST_FORCE = 10.0  # newtons
LEAST_SPREAD = 0.01  # metres
TINY = 1e-8


def flexion_angles(R: Float[Array, "*b 16 3 3"], hand: HandModel) -> Float[Array, "*b 15"]:
    """Radians in -pi..pi that the 15 joints bend to the palm: the twist of each rotation about its flexion axis.

    Each rotation is relative to its parent; the wrist's has no flexion. A rotation by pi about an axis across the
    flexion axis has no twist: it counts as 0. Source: Dobrowolski, "Swing-twist decomposition in Clifford algebra",
    2015.
    """
    q = rotations.to_quaternion(R[..., 1:, :, :])
    axes = jnp.asarray(hand.flexion_axes[1:], q.dtype)
    sine, cosine = jnp.einsum("...ji,ji->...j", q[..., 1:], axes), q[..., 0]
    undefined = sine**2 + cosine**2 < TINY
    twist = jnp.arctan2(jnp.where(undefined, 0.0, sine), jnp.where(undefined, 1.0, cosine))
    return 2.0 * twist


def joint_limits(flexions: Float[Array, "b 15"], valid: Bool[Array, " b"]) -> Float[Array, ""]:
    """Radians beyond the range: relu(a - 0.8 pi) + relu(-a), the mean over joints.

    A knuckle may bend back by 20 degrees (`amt.hand.poses`); DESIGN's range starts at 0, so this also pulls gently
    on such hands.
    """
    beyond = jax.nn.relu(flexions - LARGEST_FLEXION) + jax.nn.relu(-flexions)
    return masked_mean(beyond.mean(-1), valid)


def penetration(to_object: Float[Array, "b v"], valid: Bool[Array, " b"], allowance: float = 0.0) -> Float[Array, ""]:
    """Decimetres that vertices lie deeper than `allowance` metres inside the object: relu(-d - allowance), the mean.

    `to_object` are signed distances, negative inside. DESIGN's relu(5 mm - d) is least for a hand that stays 5 mm
    away, where the contact terms want 0: touching costs nothing here.
    """
    depth = jax.nn.relu(-to_object - allowance) * DECIMETRES
    return masked_mean(depth.mean(-1), valid)


def excess_force(force: Float[Array, "b q 3"], valid: Bool[Array, "b q"]) -> Float[Array, ""]:
    """Newtons above 10 N: relu(|force| - 10), the mean over contacts."""
    return masked_mean(jax.nn.relu(distance(force, jnp.zeros_like(force)) - LARGEST_FORCE), valid)


def diversity(joints: Float[Array, "b 21 3"], valid: Bool[Array, " b"]) -> Float[Array, ""]:
    """Grows where the predictions of a batch become one: 0.5 log(m^2 / var) + 0.5 log(m / pairwise), each if positive.

    `var` is the variance of root-relative coordinates over the batch, metres squared; `pairwise` the mean over pairs
    of samples of the root mean squared distance of their joints; the margin m is 1 cm, from which on the term is 0.
    These are DESIGN's logarithms plus constants that let them end at the margin without a step. Where all are exactly
    equal no direction leads apart and the gradient is zero; fewer than two samples cost nothing.
    """
    count = valid.sum().astype(joints.dtype)
    keep = valid[:, None, None]
    relative = jnp.where(keep, joints - joints[:, :1], 0.0)
    middle = relative.sum(0, keepdims=True) / jnp.maximum(count, 1.0)
    away = jnp.where(keep, relative - middle, 0.0).reshape(joints.shape[0], -1)
    variance = (away**2).sum() / (jnp.maximum(count, 1.0) * away.shape[1])
    # Squares of differences by products: no array of batch x batch x joints.
    square = (away**2).sum(-1)
    gap = square[:, None] + square[None] - 2.0 * jnp.matmul(away, away.T, precision="highest")
    gap = jnp.sqrt(jnp.maximum(gap, 0.0) / joints.shape[1] + 1e-12)
    pairs = valid[:, None] & valid[None] & ~jnp.eye(len(joints), dtype=bool)
    apart = jax.nn.relu(_log_ratio(LEAST_SPREAD**2, variance)) + jax.nn.relu(
        _log_ratio(LEAST_SPREAD, masked_mean(gap, pairs))
    )
    return jnp.where(count > 1, 0.5 * apart, 0.0)


def kl_gains(gains: PyTree[Float[Array, "..."]]) -> Float[Array, ""]:
    """Mean KL(N(0, g^2) || N(0, 1)) = (g^2 - 1 - ln g^2) / 2 of the gains g of sigma-reparam.

    Each is relative to its value at the start, where the term is least. Source: DESIGN.md section 5.
    """
    ratios = [g.reshape(-1) for g in jax.tree.leaves(gains)]
    if not ratios:
        return jnp.zeros(())
    square = jnp.concatenate(ratios) ** 2
    return 0.5 * (square - 1.0 - jnp.log(jnp.maximum(square, TINY))).mean()


def attention_entropy(stored: PyTree[Float[Array, "2 heads"]]) -> Float[Array, ""]:
    """(H - 0.5 log m)^2, the mean over heads; H is a head's mean entropy in nats over samples and queries, m its keys.

    `stored` is what every attention left in the collection `entropy`: H and log m. Collapse of attention, H near 0, is
    described by Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse", ICML 2023.
    """
    gaps = [entropy - 0.5 * even for entropy, even in jax.tree.leaves(stored)]
    return (jnp.concatenate(gaps) ** 2).mean()


def velocity(points: Float[Array, "b t *n 3"], valid: Bool[Array, "b t"]) -> Float[Array, ""]:
    """Change of velocity, |x[t+1] - 2 x[t] + x[t-1]| in decimetres per frame squared, the mean over points.

    It counts where all three frames are valid; a sequence of fewer than three frames costs nothing.
    """
    before, middle, after = points[:, :-2], points[:, 1:-1], points[:, 2:]
    known = valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]
    change = distance(after + before, 2.0 * middle) * DECIMETRES
    return masked_mean(change.reshape(*known.shape, -1).mean(-1), known)


def _log_ratio(margin, x):
    return jnp.log((margin + TINY) / (x + TINY))
