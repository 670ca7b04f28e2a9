"""What the terms compare with: computed from a batch's labels once."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.data.ycb import primitive_table
from amt.geometry import primitives
from amt.hand import HandModel
from amt.losses.common import distance
from amt.structs import Batch

CONTACT_DISTANCE = 0.005  # metres
NUM_CONTACTS = 10


@flax.struct.dataclass
class Labels:
    """The hand in the crop's frame and its contact points.

    Kind (index of none, light, firm, manipulation) and force (newtons) belong to the points; a kind of -1 and a force
    of NaN are not known. What is not valid is of the kind none, where kinds are known at all.
    """

    rotations: Float[Array, "b 16 3 3"]
    vertices: Float[Array, "b 778 3"]
    contacts: Float[Array, "b c 3"]
    contacts_valid: Bool[Array, "b c"]
    contact_kind: Int[Array, "b c"]
    contact_force: Float[Array, "b c 3"]


def labels(batch: Batch, hand: HandModel) -> Labels:
    """Pose the hand model with the labels; contacts are the simulated ones where they are known, else geometry's."""
    R = hand.rotations(batch.hand_pose, batch.left_basis)
    R = R.at[:, 0].set(jnp.einsum("bij,bjk->bik", batch.R_crop_camera, R[:, 0]))
    joints, vertices, _ = hand.from_rotations(R, batch.betas, jnp.zeros((R.shape[0], 3)), batch.left_basis)
    vertices = vertices + (batch.joints_3d[:, 0] - joints[:, 0])[:, None]
    points, valid = contact_labels(vertices, batch)
    known = batch.contact_known[:, None]
    valid = jnp.where(known, batch.contact_valid, valid)
    kind = jnp.where(valid, batch.contact_kind, jnp.minimum(batch.contact_kind, 0))
    return Labels(
        rotations=R,
        vertices=vertices,
        contacts=jnp.where(known[..., None], batch.contact_points, points),
        contacts_valid=valid,
        contact_kind=jnp.where(known, kind, -1),
        contact_force=jnp.where(known[..., None], batch.contact_force, jnp.nan),
    )


def to_grasped(points: Float[Array, "b v 3"], batch: Batch) -> tuple[Float[Array, "b v"], Bool[Array, " b"]]:
    """Metres from points in the crop's frame to the surface of the grasped object, negative inside; and known.

    The object is its primitive (`amt.data.ycb`) at the label's pose.
    """
    half, axis = (jnp.asarray(t) for t in primitive_table())
    index = jnp.maximum(batch.grasped, 0)[:, None]
    ids = jnp.take_along_axis(batch.object_ids, index, axis=1)[:, 0]
    pose = jnp.take_along_axis(batch.object_pose, index[..., None, None], axis=1)[:, 0]
    there = jnp.take_along_axis(batch.object_valid, index, axis=1)[:, 0]
    known = batch.hand_pose_valid & there & (batch.grasped >= 0)
    local = jnp.einsum("bji,bvj->bvi", pose[:, :, :3], points - pose[:, None, :, 3])
    return primitives.signed_distance(local, half[ids], axis[ids]), known


def contact_labels(vertices: Float[Array, "b v 3"], batch: Batch) -> tuple[Float[Array, "b c 3"], Bool[Array, "b c"]]:
    """Up to ten points of the hand within 5 mm of the surface of the grasped object, by farthest-point sampling."""
    clearance, known = to_grasped(vertices, batch)
    candidate = (jnp.abs(clearance) < CONTACT_DISTANCE) & known[:, None]

    def farthest(gap, _):
        pick = jnp.argmax(jnp.where(candidate, gap, -1.0), axis=1)
        point = jnp.take_along_axis(vertices, pick[:, None, None], axis=1)[:, 0]
        near = jnp.take_along_axis(candidate, pick[:, None], axis=1)[:, 0]
        return jnp.minimum(gap, distance(vertices, point[:, None])), (point, near)

    _, (points, valid) = jax.lax.scan(farthest, jnp.full(vertices.shape[:2], 1e3), None, length=NUM_CONTACTS)
    count = candidate.sum(1)
    valid = valid.swapaxes(0, 1) & (jnp.arange(NUM_CONTACTS)[None] < count[:, None])
    return points.swapaxes(0, 1), valid
