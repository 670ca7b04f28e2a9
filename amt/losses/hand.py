"""Terms of the hand: heatmap keypoints, joints of every stage, parameters, reprojection."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from amt.geometry import cameras, rotations
from amt.hand.skeleton import FINGERTIPS_21
from amt.losses.common import DECIMETRES, distance, masked_mean, smooth_l1
from amt.losses.labels import Labels
from amt.models.keypoints import Keypoints, cell_centers
from amt.models.perception import PerceptionOutput
from amt.models.vmt import VmtOutput
from amt.structs import Batch

FINGERTIP_IMPORTANCE = 1.5
CONFIDENT_ERROR = 0.1  # crop sides: a joint nearer than this to its label counts as seen
NEAREST = 0.05  # metres: what lies nearer, or behind the camera, has no place in the image
KNEE = 0.02  # crop sides: smaller errors in the image count squared


def keypoint_losses(keypoints: Keypoints, batch: Batch) -> dict[str, Float[Array, ""]]:
    """Places, depths and scale of the heatmap keypoints, and the cross-entropy of the heatmaps themselves."""
    uv, scale = _places(batch), _scale(batch)
    depth = (batch.joints_3d[..., 2] - batch.joints_3d[:, :1, 2]) / scale[:, None]
    valid = batch.joints_valid
    cross_entropy = heatmap_cross_entropy(keypoints.log_heatmaps, uv).mean(-1)
    return {
        "keypoint_place": masked_mean(jnp.abs(keypoints.uv - uv).sum(-1).mean(-1), valid),
        "keypoint_depth": masked_mean(jnp.abs(keypoints.depth - depth).mean(-1), valid),
        "keypoint_scale": masked_mean(jnp.abs(jnp.log(keypoints.scale) - jnp.log(scale)), valid),
        "keypoint_heatmap": masked_mean(cross_entropy, valid),
    }


def heatmap_cross_entropy(log_heatmaps: Float[Array, "b n h w"], uv: Float[Array, "b n 2"]) -> Float[Array, "b n"]:
    """Against blurred places `uv` in crop sides; one outside the heatmap counts as on its border."""
    h, w = log_heatmaps.shape[2:]

    def soft_target(x, n):
        cells = cell_centers(n)
        width = 0.8 * (cells[1] - cells[0])
        return jax.nn.softmax(-0.5 * ((cells[None, None] - x[..., None]) / width) ** 2, axis=-1)

    ty, tx = soft_target(uv[..., 1], h), soft_target(uv[..., 0], w)
    return -jnp.einsum("bnh,bnw,bnhw->bn", ty, tx, log_heatmaps)


def _places(batch):
    """Of the joints, in crop sides."""
    return (batch.joints_2d + 0.5) / batch.image.shape[1]


def _scale(batch):
    """Metres that the crop covers at the wrist's depth; 1 where that is not known."""
    scale = batch.joints_3d[:, 0, 2] * batch.image.shape[1] / batch.K[:, 0, 0]
    return jnp.where(batch.joints_valid, scale, 1.0)


def joint_weights(logits: Float[Array, " 21"] | None = None) -> Float[Array, " 21"]:
    """Weights of mean 1: 1.5 on fingertips, times learnable ones, 21 softmax(`logits`), where there are any."""
    importance = jnp.ones(21).at[jnp.asarray(FINGERTIPS_21)].set(FINGERTIP_IMPORTANCE)
    weights = importance if logits is None else importance * jax.nn.softmax(logits)
    return weights / weights.mean()


def adaptive_mpjpe(
    predicted: Float[Array, "b 21 3"],
    truth: Float[Array, "b 21 3"],
    valid: Bool[Array, " b"],
    logits: Float[Array, " 21"] | None = None,
) -> Float[Array, ""]:
    """Root-relative joint error in decimetres times `joint_weights`, the mean. Its partner is `weight_evenness`."""
    error = distance(_root_relative(predicted), _root_relative(truth)) * DECIMETRES
    return masked_mean((error * joint_weights(logits)[None]).mean(-1), valid)


def weight_evenness(logits: Float[Array, " 21"]) -> Float[Array, ""]:
    """The mean of -log w of the learnable weights w = 21 softmax(`logits`): 0 where all are 1, else positive.

    A mean of 1 keeps the weights from going to zero together, but not from leaving the joint with the largest error.
    With this term a joint of error e gets about 1 / (1 + e - mean e), as by the uncertainties of Kendall et al.,
    "Multi-task learning using uncertainty to weigh losses", CVPR 2018.
    """
    return -jax.nn.log_softmax(logits).mean() - jnp.log(21.0)


def reprojection(
    points: Float[Array, "b n 3"],
    pixels: Float[Array, "b n 2"],
    K: Float[Array, "b 3 3"],
    valid: Bool[Array, "b n"],
    size: int,
) -> Float[Array, ""]:
    """Smooth L1 of projected points against their 2D labels, in sides of the crop of `size` pixels.

    Its knee is at 2% of the crop. Points nearer than 5 cm or behind the camera are masked: their projection says
    nothing of where to go.
    """
    error, ahead = _image_error(points, pixels, K, size)
    return masked_mean(smooth_l1(error, KNEE).sum(-1), valid & ahead)


def _image_error(points, pixels, K, size):
    """(Differences in crop sides, which points lie ahead)."""
    ahead = points[..., 2] > NEAREST
    depth = jnp.where(ahead, points[..., 2], 1.0)
    places = cameras.project(jnp.concatenate([points[..., :2], depth[..., None]], -1), K)
    return (places - pixels) / size, ahead


def _root_relative(x):
    return x - x[:, :1]


def hand_losses(
    out: PerceptionOutput, batch: Batch, target: Labels, joint_logits: Float[Array, " 21"] | None = None
) -> dict[str, Float[Array, ""]]:
    """Joints of every stage (root-relative), rotations, shape, vertices, reprojection, confidence, side.

    `joint_logits` are the learnable weights of the joints (`adaptive_mpjpe`).
    """
    valid, posed = batch.joints_valid, batch.hand_pose_valid

    def joints(x):
        return adaptive_mpjpe(x, batch.joints_3d, valid, joint_logits)

    angles = rotations.geodesic_angle(out.coarse.rotations, target.rotations).mean(-1)
    coarse = out.coarse.vertices - out.coarse.joints[:, :1]
    vertex_error = distance(coarse, target.vertices - batch.joints_3d[:, :1]) * DECIMETRES
    shape = _shape_error(out.coarse.betas, batch) + _shape_error(out.hand.betas, batch)
    side = optax.sigmoid_binary_cross_entropy(out.right, 1.0 - batch.shows_left.astype(jnp.float32))
    return {
        "hand_keypoints": joints(out.keypoints_3d),
        "hand_coarse": joints(out.coarse.joints),
        "hand_corrected": joints(out.hand.joints),
        "hand_refined": joints(out.joints),
        "hand_rotation": masked_mean(angles, posed),
        "hand_vertices": masked_mean(vertex_error.mean(-1), posed),
        "hand_shape": masked_mean(shape, posed & ~batch.left_basis),
        "hand_side": masked_mean(side, valid | batch.shows_left),
        **_final_losses(out, batch, joint_logits),
    }


def vmt_hand_losses(
    out: VmtOutput, batch: Batch, joint_logits: Float[Array, " 21"] | None = None
) -> dict[str, Float[Array, ""]]:
    """Of VMT, by amt's names: `keypoint_place` is the wrist's alone, `hand_coarse` that of its only joints."""
    valid = batch.joints_valid
    place = jnp.abs(out.hand.place - _places(batch)[:, 0]).sum(-1)
    return {
        "keypoint_place": masked_mean(place, valid),
        "keypoint_scale": masked_mean(jnp.abs(jnp.log(out.hand.scale) - jnp.log(_scale(batch))), valid),
        "hand_coarse": adaptive_mpjpe(out.joints, batch.joints_3d, valid, joint_logits),
        "hand_shape": masked_mean(_shape_error(out.hand.betas, batch), batch.hand_pose_valid & ~batch.left_basis),
        **_final_losses(out, batch, joint_logits),
    }


def _shape_error(betas, batch):
    return ((betas - batch.betas) ** 2).mean(-1)


def _final_losses(out: PerceptionOutput | VmtOutput, batch: Batch, joint_logits) -> dict[str, Float[Array, ""]]:
    """The last joints in the camera's frame and in the image, whether they know that they are right, and the learnable
    weights. `hand_absolute` is the original project's loss: it asks a crop for metres from the camera.
    """
    size, valid = batch.image.shape[1], batch.joints_valid
    everywhere = jnp.broadcast_to(valid[:, None], out.joints.shape[:2])
    error, ahead = _image_error(out.joints, batch.joints_2d, batch.K, size)
    seen = (jax.lax.stop_gradient(jnp.abs(error).sum(-1)) < CONFIDENT_ERROR) & ahead & everywhere
    confidence = optax.sigmoid_binary_cross_entropy(out.hand.confidence, seen.astype(jnp.float32)).mean(-1)
    terms = {
        "hand_absolute": masked_mean(distance(out.joints, batch.joints_3d).mean(-1) * DECIMETRES, valid),
        "reprojection": reprojection(out.joints, batch.joints_2d, batch.K, everywhere, size),
        "hand_confidence": masked_mean(confidence, valid | ~batch.hand_visible),
    }
    return terms if joint_logits is None else terms | {"hand_joint_weights": weight_evenness(joint_logits)}
