"""Figures of contacts: are they where they should be, of the right kind, with a plausible force?"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from amt.metrics.common import joint_errors, mean
from amt.structs import Array

CONTACT_DISTANCE = 0.005  # metres
LARGEST_FORCE = 10.0  # newtons


@flax.struct.dataclass
class ContactCounts:
    """Contacts of each sample: predicted, those of them near a true one, true, those of them near a predicted one.

    They add up over samples and batches.
    """

    predicted: Int[Array, "*batch"]
    right: Int[Array, "*batch"]
    true: Int[Array, "*batch"]
    found: Int[Array, "*batch"]


def contact_counts(
    points: Float[Array, "*batch q 3"],
    present: Bool[Array, "*batch q"],
    truth: Float[Array, "*batch c 3"],
    truth_valid: Bool[Array, "*batch c"],
    limit: float = CONTACT_DISTANCE,
) -> ContactCounts:
    """Counts of what is within `limit` metres of anything of the other set; `present` says which queries count.

    For samples that have a label; several points may share a neighbour.
    """
    gap = joint_errors(points[..., :, None, :], truth[..., None, :, :])
    near = (gap <= limit) & present[..., :, None] & truth_valid[..., None, :]
    return ContactCounts(present.sum(-1), near.any(-1).sum(-1), truth_valid.sum(-1), near.any(-2).sum(-1))


def precision_recall_f1(
    counts: ContactCounts,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, ""], Float[jax.Array, ""]]:
    """Of all samples' contacts together; a share of nothing is 0."""
    total = jax.tree.map(lambda x: jnp.asarray(x).sum().astype(jnp.float32), counts)
    precision = total.right / jnp.maximum(total.predicted, 1.0)
    recall = total.found / jnp.maximum(total.true, 1.0)
    both = precision + recall
    return precision, recall, jnp.where(both > 0, 2.0 * precision * recall / jnp.where(both > 0, both, 1.0), 0.0)


def nearest_contact(
    points: Float[Array, "*batch q 3"],
    present: Bool[Array, "*batch q"],
    truth: Float[Array, "*batch c 3"],
    truth_valid: Bool[Array, "*batch c"],
    limit: float = CONTACT_DISTANCE,
) -> tuple[Int[jax.Array, "*batch q"], Bool[jax.Array, "*batch q"]]:
    """The true contact nearest to each predicted one, and whether it lies within `limit` metres."""
    gap = joint_errors(points[..., :, None, :], truth[..., None, :, :])
    gap = jnp.where(truth_valid[..., None, :] & present[..., :, None], gap, jnp.inf)
    return gap.argmin(-1), gap.min(-1) <= limit


def kind_accuracy(
    kind: Int[Array, "*batch q"], truth: Int[Array, "*batch q"], valid: Bool[Array, "*batch q"]
) -> Float[jax.Array, ""]:
    """Share of valid contacts whose kind is the label's; a label of -1 is not known and does not count."""
    return mean((kind == truth).astype(jnp.float32), valid & (truth >= 0))


def force_error(
    force: Float[Array, "*batch q 3"], truth: Float[Array, "*batch q 3"], valid: Bool[Array, "*batch q"]
) -> Float[jax.Array, ""]:
    """Mean length of the difference of forces, newtons; a label of NaN is not known and does not count."""
    return mean(joint_errors(force, truth), valid & jnp.isfinite(truth).all(-1))


def excess_force_share(
    force: Float[Array, "*batch q 3"], present: Bool[Array, "*batch q"], limit: float = LARGEST_FORCE
) -> Float[jax.Array, ""]:
    """Share of predicted contacts with a force above `limit` newtons."""
    return mean((jnp.linalg.norm(force, axis=-1) > limit).astype(force.dtype), present)
