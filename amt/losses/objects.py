"""Terms of the objects, after set matching."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from amt.geometry import cameras, rotations
from amt.losses.common import DECIMETRES, distance, masked_mean, smooth_l1
from amt.losses.hand import NEAREST, heatmap_cross_entropy, reprojection
from amt.models.keypoints import REACH
from amt.models.objects import ObjectOutput
from amt.structs import Batch

HELD = 1e3  # cost of giving the first query to another object than the grasped one, or that one to another query
BATCH_AXES = ("data", "fsdp")  # of the mesh, over which samples are split


def match(cost: Float[Array, "b q n"], valid: Bool[Array, "b n"]) -> Int[Array, "b n"]:
    """The query that each label is given to, one to one and cheapest; masked labels get what is left.

    Below `jax.sharding.use_abstract_mesh` every device matches its own samples: the loops of the algorithm run as long
    as a sample needs, and would make all devices of the mesh ask each other in every turn.
    """
    cost = jnp.where(valid[:, None], cost, 0.0)

    def assign(c):
        rows, columns = optax.assignment.hungarian_algorithm(c)
        return jnp.zeros(c.shape[1], rows.dtype).at[columns].set(rows)

    matching, mesh = jax.vmap(assign), jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        split = PartitionSpec(tuple(axis for axis in mesh.axis_names if axis in BATCH_AXES))
        matching = jax.shard_map(matching, in_specs=split, out_specs=split, check_vma=False)
    return matching(jax.lax.stop_gradient(cost))


def object_losses(
    out: ObjectOutput, wrist: Float[Array, "b 3"], batch: Batch, symmetries: Float[Array, "22 24 3 3"]
) -> dict[str, Float[Array, ""]]:
    """Position, place in the image and its heatmap, rotation up to the primitive's symmetries, class and confidence of
    matched queries.

    Positions are compared from the wrist, the predicted `wrist` and the label's: how far the hand is from the camera
    is the keypoints' to learn. Places are compared as those of joints (`reprojection`): a line of sight is worth more
    than a depth, which is a guess. Objects whose middle lies beside the heatmaps are not in the crop: no query is asked
    for them, as what cannot be seen would teach to guess. The first query is the grasped object's (`Batch.grasped`),
    the others are given to the rest by `match`: what the hand holds is then learned as one thing, as a joint is, and
    known as such. `symmetries` [id, 24, 3, 3]: rotations that leave an object's shape as it is.
    """
    n = min(out.position.shape[1], batch.object_valid.shape[1])
    ids, pose = batch.object_ids[:, :n], batch.object_pose[:, :n]
    ahead = batch.object_valid[:, :n] & (pose[..., 2, 3] > NEAREST)
    pixels = cameras.project(jnp.where(ahead[..., None], pose[..., 3], jnp.asarray([[[0.0, 0, 1]]])), batch.K)
    uv = (pixels + 0.5) / batch.image.shape[1]
    valid = ahead & ((uv > -REACH) & (uv < 1 + REACH)).all(-1)
    predicted = out.position - jax.lax.stop_gradient(wrist)[:, None]
    offset = pose[..., 3] - batch.joints_3d[:, :1]
    gap = jnp.abs(predicted[:, :, None] - offset[:, None]).sum(-1) * DECIMETRES
    log_classes = jax.nn.log_softmax(out.classes, axis=-1)
    b, q = out.position.shape[:2]
    rows = jnp.arange(b)[:, None]
    # Places decide: queries that specialise in places learn sooner than queries that specialise in classes.
    named = log_classes[rows[:, :, None], jnp.arange(q)[None, :, None], ids[:, None]]
    cost = gap - 0.1 * (named + jax.nn.log_sigmoid(out.confidence)[..., None])
    held = jnp.arange(n)[None] == batch.grasped[:, None]
    cost += jnp.where((jnp.arange(q) == 0)[None, :, None] != held[:, None], HELD, 0.0)
    chosen = match(cost, valid)

    error = distance(predicted[rows, chosen], offset) * DECIMETRES
    # Half the distance beside its smooth L1: the square alone hardly pulls on the last centimetre.
    smooth = smooth_l1(error) + 0.5 * error
    same = jnp.einsum("bnij,bnsjk->bnsik", pose[..., :3], symmetries[ids])
    candidates = rotations.geodesic_angle(out.rotation[rows, chosen][:, :, None], same)
    classes = -log_classes[rows, chosen, ids]
    real = jnp.zeros((b, q)).at[rows, chosen].set(valid.astype(jnp.float32))
    confidence = optax.sigmoid_binary_cross_entropy(out.confidence, real).mean(-1)
    labelled = batch.hand_visible & ~batch.shows_left
    terms = {
        "object_position": masked_mean(smooth, valid),
        "object_place": reprojection(out.position[rows, chosen], pixels, batch.K, valid, batch.image.shape[1]),
        "object_rotation": masked_mean(candidates.min(-1), valid),
        "object_class": masked_mean(classes, valid),
        "object_confidence": masked_mean(confidence, labelled),
    }
    if out.log_heatmaps is None:
        return terms
    return terms | {"object_heatmap": masked_mean(heatmap_cross_entropy(out.log_heatmaps[rows, chosen], uv), valid)}
