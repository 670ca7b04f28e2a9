"""Terms of the contacts: points, kinds and forces matched to labels, and where points should lie at all."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from amt.losses.common import DECIMETRES, distance, masked_mean, smooth_l1
from amt.losses.labels import Labels
from amt.losses.objects import match
from amt.models.contacts import ContactOutput
from amt.structs import Batch

REACH = 0.02  # metres: nearer than this to hand and object a point may be a contact
FORCE_SCALE = 10.0  # newtons, the force that counts as one


def contact_losses(out: ContactOutput, batch: Batch, target: Labels) -> dict[str, Float[Array, ""]]:
    """Points matched to the label's contact points, and which queries are contacts at all.

    Kind is a cross-entropy, force the smooth L1 of its components, in tens of newtons. Both are those of the matched
    label and count where `target` knows them: whether a query is a contact at all is for its confidence to say.
    """
    gap = distance(out.points[:, :, None], target.contacts[:, None]) * DECIMETRES
    chosen = match(gap - 0.1 * jax.nn.log_sigmoid(out.confidence)[..., None], target.contacts_valid)
    b, q = out.confidence.shape
    rows = jnp.arange(b)[:, None]
    real = jnp.zeros((b, q)).at[rows, chosen].set(target.contacts_valid.astype(jnp.float32))
    confidence = optax.sigmoid_binary_cross_entropy(out.confidence, real).mean(-1)
    matched = jnp.take_along_axis(gap, chosen[:, None], axis=1)[:, 0]
    kind_known = target.contacts_valid & (target.contact_kind >= 0)
    log_kind = jax.nn.log_softmax(out.kind, axis=-1)[rows, chosen, jnp.maximum(target.contact_kind, 0)]
    force_known = target.contacts_valid & jnp.isfinite(target.contact_force).all(-1)
    force = jnp.where(force_known[..., None], target.contact_force, 0.0)
    error = smooth_l1((out.force[rows, chosen] - force) / FORCE_SCALE).sum(-1)
    return {
        "contact_point": masked_mean(matched, target.contacts_valid),
        "contact_confidence": masked_mean(confidence, batch.hand_pose_valid),
        "contact_kind": masked_mean(-log_kind, kind_known),
        "contact_force": masked_mean(error, force_known),
    }


def contact_placement(
    confidence: Float[Array, "b q"],
    to_hand: Float[Array, "b q"],
    to_object: Float[Array, "b q"],
    valid: Bool[Array, " b"],
) -> Float[Array, ""]:
    """A sure point should lie on hand and object, an unsure one away from both.

    c (h + o) + c relu(max(h, o) - 2 cm) + (1 - c) exp(-min(h, o) / 2 cm), the sigmoid c of the logit `confidence`,
    distances h and o in metres (`nearest`, `amt.geometry.primitives`), counted in decimetres. Source: DESIGN.md
    section 5.
    """
    c = jax.nn.sigmoid(confidence)
    h, o = to_hand, jnp.abs(to_object)
    touching = (h + o + jax.nn.relu(jnp.maximum(h, o) - REACH)) * DECIMETRES
    value = c * touching + (1.0 - c) * jnp.exp(-jnp.minimum(h, o) / REACH)
    return masked_mean(value.mean(-1), valid)


def nearest(points: Float[Array, "b q 3"], vertices: Float[Array, "b v 3"]) -> Float[Array, "b q"]:
    """Metres from every point to the nearest vertex."""
    index = jax.vmap(_nearest_index)(jax.lax.stop_gradient(points), jax.lax.stop_gradient(vertices))
    return distance(points, jnp.take_along_axis(vertices, index[..., None], axis=1))


def _nearest_index(points, vertices):
    return ((points[:, None] - vertices[None]) ** 2).sum(-1).argmin(-1)
