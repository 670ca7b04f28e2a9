"""Losses of perception and finder: every term is masked, has a name, and is finite on an empty mask.

Definitions follow DESIGN.md section 5. Places in the crop are compared in crop sides, lengths in decimetres,
angles in radians, so that every term is of order one at the start.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from amt.data.ycb import primitive_table
from amt.geometry import cameras, primitives, rotations
from amt.hand import HandModel
from amt.models.contacts import ContactOutput
from amt.models.finder import Found
from amt.models.keypoints import Keypoints, cell_centers
from amt.models.objects import ObjectOutput
from amt.models.perception import PerceptionOutput
from amt.structs import Batch

DECIMETRES = 10.0
FINGERTIP_IMPORTANCE = 1.5
CONFIDENT_ERROR = 0.1  # crop sides: a joint nearer than this to its label counts as seen
CONTACT_DISTANCE = 0.005  # metres
NUM_CONTACTS = 10


@flax.struct.dataclass
class Labels:
    """What is computed from a batch's labels once: the hand in the crop's frame and its contact points."""

    rotations: Float[Array, "b 16 3 3"]
    vertices: Float[Array, "b 778 3"]
    contacts: Float[Array, "b c 3"]
    contacts_valid: Bool[Array, "b c"]


def masked_mean(x: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, ""]:
    """Mean over the mask; 0 where it is empty.

    Masked entries may be non-finite only if their gradient is not used.
    """
    mask = mask.astype(x.dtype)
    return jnp.where(mask > 0, x, 0.0).sum() / jnp.maximum(mask.sum(), 1.0)


def distance(a: Float[Array, "*b 3"], b: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
    """Euclidean distance with a finite gradient at zero."""
    d = a - b
    return jnp.sqrt((d * d).sum(-1) + 1e-12)


def labels(batch: Batch, hand: HandModel) -> Labels:
    """Pose the hand model with the labels and find where it touches the grasped object."""
    R = hand.rotations(batch.hand_pose)
    R = R.at[:, 0].set(jnp.einsum("bij,bjk->bik", batch.R_crop_camera, R[:, 0]))
    joints, vertices, _ = hand.from_rotations(R, batch.betas, jnp.zeros((R.shape[0], 3)))
    vertices = vertices + (batch.joints_3d[:, 0] - joints[:, 0])[:, None]
    return Labels(R, vertices, *contact_labels(vertices, batch))


def contact_labels(vertices: Float[Array, "b v 3"], batch: Batch) -> tuple[Float[Array, "b c 3"], Bool[Array, "b c"]]:
    """Up to ten points of the hand within 5 mm of the surface of the grasped object, by farthest-point sampling."""
    half, axis = (jnp.asarray(t) for t in primitive_table())
    b = vertices.shape[0]
    index = jnp.maximum(batch.grasped, 0)
    rows = jnp.arange(b)
    ids = batch.object_ids[rows, index]
    pose = batch.object_pose[rows, index]
    known = batch.hand_pose_valid & batch.object_valid[rows, index] & (batch.grasped >= 0)
    local = jnp.einsum("bji,bvj->bvi", pose[:, :, :3], vertices - pose[:, None, :, 3])
    near = jnp.abs(primitives.signed_distance(local, half[ids], axis[ids])) < CONTACT_DISTANCE
    candidate = near & known[:, None]

    def farthest(gap, _):
        pick = jnp.argmax(jnp.where(candidate, gap, -1.0), axis=1)
        point = vertices[rows, pick]
        return jnp.minimum(gap, distance(vertices, point[:, None])), (point, candidate[rows, pick])

    _, (points, valid) = jax.lax.scan(farthest, jnp.full(vertices.shape[:2], 1e3), None, length=NUM_CONTACTS)
    count = candidate.sum(1)
    valid = valid.swapaxes(0, 1) & (jnp.arange(NUM_CONTACTS)[None] < count[:, None])
    return points.swapaxes(0, 1), valid


def keypoint_losses(keypoints: Keypoints, batch: Batch) -> dict[str, Float[Array, ""]]:
    """Places, depths and scale of the heatmap keypoints, and the cross-entropy of the heatmaps themselves."""
    size = batch.image.shape[1]
    uv = (batch.joints_2d + 0.5) / size
    scale = batch.joints_3d[:, 0, 2] * size / batch.K[:, 0, 0]
    safe = jnp.where(batch.joints_valid, scale, 1.0)
    depth = (batch.joints_3d[..., 2] - batch.joints_3d[:, :1, 2]) / safe[:, None]
    valid = batch.joints_valid
    h, w = keypoints.log_heatmaps.shape[2:]

    def soft_target(x, n):
        cells = cell_centers(n)
        width = 0.8 * (cells[1] - cells[0])
        return jax.nn.softmax(-0.5 * ((cells[None, None] - x[..., None]) / width) ** 2, axis=-1)

    ty, tx = soft_target(uv[..., 1], h), soft_target(uv[..., 0], w)
    cross_entropy = -jnp.einsum("bjh,bjw,bjhw->bj", ty, tx, keypoints.log_heatmaps).mean(-1)
    log_scale = jnp.abs(jnp.log(keypoints.scale) - jnp.log(safe))
    return {
        "keypoint_place": masked_mean(jnp.abs(keypoints.uv - uv).sum(-1).mean(-1), valid),
        "keypoint_depth": masked_mean(jnp.abs(keypoints.depth - depth).mean(-1), valid),
        "keypoint_scale": masked_mean(log_scale, valid),
        "keypoint_heatmap": masked_mean(cross_entropy, valid),
    }


def _joint_weights() -> Float[Array, " 21"]:
    weights = jnp.ones(21).at[jnp.asarray((4, 8, 12, 16, 20))].set(FINGERTIP_IMPORTANCE)
    return weights / weights.mean()


def _root_relative(x):
    return x - x[:, :1]


def hand_losses(out: PerceptionOutput, batch: Batch, target: Labels) -> dict[str, Float[Array, ""]]:
    """Joints of every stage (root-relative), rotations, shape, vertices, reprojection, confidence, side."""
    valid, posed = batch.joints_valid, batch.hand_pose_valid
    truth = _root_relative(batch.joints_3d)

    def joints(x):
        error = distance(_root_relative(x), truth) * DECIMETRES
        return masked_mean((error * _joint_weights()[None]).mean(-1), valid)

    angles = rotations.geodesic_angle(out.coarse.rotations, target.rotations).mean(-1)
    coarse = out.coarse.vertices - out.coarse.joints[:, :1]
    vertex_error = distance(coarse, target.vertices - batch.joints_3d[:, :1]) * DECIMETRES
    shape = ((out.coarse.betas - batch.betas) ** 2).mean(-1) + ((out.hand.betas - batch.betas) ** 2).mean(-1)
    size = batch.image.shape[1]
    ahead = jnp.maximum(out.joints[..., 2:], 0.05)
    pixels = cameras.project(jnp.concatenate([out.joints[..., :2], ahead], -1), batch.K)
    pixel_error = jnp.abs(pixels - batch.joints_2d).sum(-1) / size
    seen = (jax.lax.stop_gradient(pixel_error) < CONFIDENT_ERROR) & valid[:, None]
    confidence = optax.sigmoid_binary_cross_entropy(out.hand.confidence, seen.astype(jnp.float32)).mean(-1)
    side = optax.sigmoid_binary_cross_entropy(out.right, 1.0 - batch.shows_left.astype(jnp.float32))
    return {
        "hand_keypoints": joints(out.keypoints_3d),
        "hand_coarse": joints(out.coarse.joints),
        "hand_corrected": joints(out.hand.joints),
        "hand_refined": joints(out.joints),
        "hand_rotation": masked_mean(angles, posed),
        "hand_vertices": masked_mean(vertex_error.mean(-1), posed),
        "hand_shape": masked_mean(shape, posed),
        "reprojection": masked_mean(jnp.minimum(pixel_error, 1.0).mean(-1), valid),
        "hand_confidence": masked_mean(confidence, valid | ~batch.hand_visible),
        "hand_side": masked_mean(side, valid | batch.shows_left),
    }


def match(cost: Float[Array, "b q n"], valid: Bool[Array, "b n"]) -> Int[Array, "b n"]:
    """The query that each label is given to, one to one and cheapest; masked labels get what is left."""
    cost = jnp.where(valid[:, None], cost, 0.0)

    def assign(c):
        rows, columns = optax.assignment.hungarian_algorithm(c)
        return jnp.zeros(c.shape[1], rows.dtype).at[columns].set(rows)

    return jax.vmap(assign)(jax.lax.stop_gradient(cost))


def object_losses(
    out: ObjectOutput, wrist: Float[Array, "b 3"], batch: Batch, symmetries: Float[Array, "22 24 3 3"]
) -> dict[str, Float[Array, ""]]:
    """Position, rotation up to the primitive's symmetries, class and confidence of matched queries.

    Positions are compared from the wrist, the predicted `wrist` and the label's: how far the hand is from the camera
    is the keypoints' to learn. `symmetries` [id, 24, 3, 3]: rotations that leave an object's shape as it is.
    """
    n = min(out.position.shape[1], batch.object_valid.shape[1])
    ids, valid, pose = batch.object_ids[:, :n], batch.object_valid[:, :n], batch.object_pose[:, :n]
    predicted = out.position - jax.lax.stop_gradient(wrist)[:, None]
    offset = pose[..., 3] - batch.joints_3d[:, :1]
    gap = jnp.abs(predicted[:, :, None] - offset[:, None]).sum(-1) * DECIMETRES
    log_classes = jax.nn.log_softmax(out.classes, axis=-1)
    b, q = out.position.shape[:2]
    rows = jnp.arange(b)[:, None]
    # Places decide: queries that specialise in places learn sooner than queries that specialise in classes.
    named = log_classes[rows[:, :, None], jnp.arange(q)[None, :, None], ids[:, None]]
    cost = gap - 0.1 * (named + jax.nn.log_sigmoid(out.confidence)[..., None])
    chosen = match(cost, valid)

    error = distance(predicted[rows, chosen], offset) * DECIMETRES
    smooth = jnp.where(error < 1.0, 0.5 * error**2, error - 0.5) + 0.5 * error
    same = jnp.einsum("bnij,bnsjk->bnsik", pose[..., :3], symmetries[ids])
    candidates = rotations.geodesic_angle(out.rotation[rows, chosen][:, :, None], same)
    classes = -log_classes[rows, chosen, ids]
    real = jnp.zeros((b, q)).at[rows, chosen].set(valid.astype(jnp.float32))
    confidence = optax.sigmoid_binary_cross_entropy(out.confidence, real).mean(-1)
    labelled = batch.hand_visible & ~batch.shows_left
    return {
        "object_position": masked_mean(smooth, valid),
        "object_rotation": masked_mean(candidates.min(-1), valid),
        "object_class": masked_mean(classes, valid),
        "object_confidence": masked_mean(confidence, labelled),
    }


def contact_losses(out: ContactOutput, batch: Batch, target: Labels) -> dict[str, Float[Array, ""]]:
    """Points matched to the label's contact points, and which queries are contacts at all."""
    gap = distance(out.points[:, :, None], target.contacts[:, None]) * DECIMETRES
    chosen = match(gap - 0.1 * jax.nn.log_sigmoid(out.confidence)[..., None], target.contacts_valid)
    b, q = out.confidence.shape
    rows = jnp.arange(b)[:, None]
    real = jnp.zeros((b, q)).at[rows, chosen].set(target.contacts_valid.astype(jnp.float32))
    confidence = optax.sigmoid_binary_cross_entropy(out.confidence, real).mean(-1)
    matched = jnp.take_along_axis(gap, chosen[:, None], axis=1)[:, 0]
    return {
        "contact_point": masked_mean(matched, target.contacts_valid),
        "contact_confidence": masked_mean(confidence, batch.hand_pose_valid),
    }


def finder_losses(found: Found, batch: Batch) -> dict[str, Float[Array, ""]]:
    """Joints, side and presence of the hand in the whole frame; places are compared in sides of the hand's extent."""
    n = found.log_heatmaps.shape[2]
    cells = (jnp.arange(n, dtype=jnp.float32) + 0.5) / n
    valid, uv = batch.frame_joints_valid, batch.frame_joints

    def soft_target(x):
        return jax.nn.softmax(-0.5 * ((cells[None, None] - x[..., None]) * n) ** 2, axis=-1)

    ty, tx = soft_target(uv[..., 1]), soft_target(uv[..., 0])
    heatmap = -jnp.einsum("bjh,bjw,bjhw->bj", ty, tx, found.log_heatmaps)
    extent = jnp.maximum((uv.max(1) - uv.min(1)).max(-1), 0.1)
    place = jnp.abs(found.uv - uv).sum(-1) / extent[:, None]
    left = optax.sigmoid_binary_cross_entropy(found.left, batch.frame_is_left.astype(jnp.float32))
    presence = optax.sigmoid_binary_cross_entropy(found.presence, batch.frame_has_hand.astype(jnp.float32))
    return {
        "finder_heatmap": masked_mean(heatmap, valid),
        "finder_place": masked_mean(place, valid),
        "finder_side": masked_mean(left, batch.frame_has_hand),
        "finder_presence": masked_mean(presence, batch.frame_known),
    }


def total(terms: dict[str, Float[Array, ""]], weights: dict[str, float]) -> Float[Array, ""]:
    """The weighted sum; a term without a weight is an error, so that none is forgotten."""
    if missing := sorted(set(terms) ^ set(weights)):
        raise ValueError(f"loss terms and weights differ in {missing}")
    return jnp.stack([weights[name] * terms[name] for name in sorted(terms)]).sum()


def perception_losses(
    out: PerceptionOutput, batch: Batch, hand: HandModel, symmetries: Float[Array, "22 24 3 3"]
) -> dict[str, Float[Array, ""]]:
    """All terms of the perception model by name."""
    target = labels(batch, hand)
    return {
        **keypoint_losses(out.keypoints, batch),
        **hand_losses(out, batch, target),
        **object_losses(out.objects, out.keypoints_3d[:, 0], batch, symmetries),
        **contact_losses(out.contacts, batch, target),
    }
