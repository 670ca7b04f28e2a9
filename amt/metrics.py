"""Figures of hands and objects: batched, masked, one per sample, so that a caller can pool a whole data set.

Metres in, metres out (pixels where the name says `_px`). The figure of a sample whose mask is empty is 0;
`mean` with a mask of samples leaves it out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from amt.geometry import cameras, procrustes
from amt.geometry.primitives import BOX
from amt.structs import Array

PCK_LIMIT = 0.05  # metres; DexYCB's area under the curve is over 0 to 50 mm
PCK_THRESHOLDS = 100
NEAREST = 0.05  # metres
WRIST = 0


def mean(values: Float[Array, "*n"], valid: Bool[Array, "*n"]) -> Float[jax.Array, ""]:
    """The mean over what is valid; 0 where nothing is."""
    count = valid.sum().astype(values.dtype)
    return jnp.where(valid, values, 0.0).sum() / jnp.maximum(count, 1.0)


def joint_errors(
    predicted: Float[Array, "*batch n d"], truth: Float[Array, "*batch n d"]
) -> Float[jax.Array, "*batch n"]:
    """Distance of every point to its own label."""
    return jnp.linalg.norm(predicted - truth, axis=-1)


def mpjpe(
    predicted: Float[Array, "*batch 21 3"],
    truth: Float[Array, "*batch 21 3"],
    valid: Bool[Array, "*batch 21"],
    root_relative: bool = True,
) -> Float[jax.Array, "*batch"]:
    """Mean per joint position error; `root_relative` moves both wrists to the origin first.

    Source: Ionescu et al., Human3.6M, PAMI 2014; DexYCB reports both kinds (Chao et al., CVPR 2021).
    """
    if root_relative:
        predicted, truth = _root_relative(predicted), _root_relative(truth)
    return _masked_joint_mean(joint_errors(predicted, truth), valid)


def pa_mpjpe(
    predicted: Float[Array, "*batch 21 3"],
    truth: Float[Array, "*batch 21 3"],
    valid: Bool[Array, "*batch 21"],
) -> Float[jax.Array, "*batch"]:
    """MPJPE after the best scale, rotation and translation of the prediction (`amt.geometry.procrustes`)."""
    return _masked_joint_mean(joint_errors(procrustes.aligned(predicted, truth, valid), truth), valid)


def per_joint(
    predicted: Float[Array, "batch 21 3"],
    truth: Float[Array, "batch 21 3"],
    valid: Bool[Array, "batch 21"],
    root_relative: bool = True,
) -> Float[jax.Array, " 21"]:
    """The mean error of each joint over the batch; 0 for a joint that is never valid."""
    if root_relative:
        predicted, truth = _root_relative(predicted), _root_relative(truth)
    errors = jnp.where(valid, joint_errors(predicted, truth), 0.0)
    return errors.sum(0) / jnp.maximum(valid.sum(0).astype(errors.dtype), 1.0)


def pck(errors: Float[Array, "*n"], valid: Bool[Array, "*n"], thresholds: Float[Array, " k"]) -> Float[jax.Array, " k"]:
    """Share of valid errors at or below each threshold, all samples and joints together."""
    errors, valid = errors.reshape(-1), valid.reshape(-1)
    # Sorted once instead of compared with every threshold: a data set has millions of errors.
    below = jnp.searchsorted(jnp.sort(jnp.where(valid, errors, jnp.inf)), thresholds, side="right")
    return below.astype(errors.dtype) / jnp.maximum(valid.sum().astype(errors.dtype), 1.0)


def pck_auc(
    errors: Float[Array, "*n"],
    valid: Bool[Array, "*n"],
    low: float = 0.0,
    high: float = PCK_LIMIT,
) -> Float[jax.Array, ""]:
    """Area under the PCK curve between two thresholds in metres, 1 at best: 100 thresholds, trapezoid rule.

    Source: dex-ycb-toolkit, hpe_eval.py (0 to 50 mm); Zimmermann and Brox, ICCV 2017, use 20 to 50 mm.
    """
    thresholds = jnp.linspace(low, high, PCK_THRESHOLDS, dtype=errors.dtype)
    return jnp.trapezoid(pck(errors, valid, thresholds), thresholds) / (high - low)


def error_2d_px(
    points: Float[Array, "*batch n 3"],
    truth: Float[Array, "*batch n 2"],
    K: Float[Array, "*batch 3 3"],
    valid: Bool[Array, "*batch n"],
) -> Float[jax.Array, "*batch"]:
    """Mean distance in pixels between projected points and their 2D labels.

    A point nearer than 5 cm, or behind the camera, is projected as if it were 5 cm ahead: its error counts.
    """
    depth = jnp.maximum(points[..., 2:], NEAREST)
    pixels = cameras.project(jnp.concatenate([points[..., :2], depth], -1), K)
    return _masked_joint_mean(joint_errors(pixels, truth), valid)


def position_error(
    predicted: Float[Array, "*batch 3 4"], truth: Float[Array, "*batch 3 4"]
) -> Float[jax.Array, "*batch"]:
    """Distance between the origins of two object poses."""
    return jnp.linalg.norm(predicted[..., 3] - truth[..., 3], axis=-1)


def add(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
) -> Float[jax.Array, "*batch"]:
    """ADD: mean distance of the model's points under both poses, for objects without symmetry.

    Source: Hinterstoisser et al., "Model based training, detection and pose estimation", ACCV 2012.
    """
    return joint_errors(_posed(predicted, points), _posed(truth, points)).mean(-1)


def add_s(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
) -> Float[jax.Array, "*batch"]:
    """ADD-S: mean distance from each true point to the nearest predicted one, for symmetric objects.

    Source: Xiang et al., PoseCNN, RSS 2018; the idea is Hinterstoisser's, as in `add`.
    """
    ours, theirs = _posed(predicted, points), _posed(truth, points)
    gaps = jnp.linalg.norm(theirs[..., :, None, :] - ours[..., None, :, :], axis=-1)
    return gaps.min(-1).mean(-1)


def surface_points(half: Float[np.ndarray, " 3"], axis: int, count: int, seed: int = 0) -> Float[np.ndarray, "count 3"]:
    """Random points on the surface of a box or cylinder (`amt.data.ycb.Primitive`), in its own frame."""
    rng = np.random.default_rng(seed)
    half = np.asarray(half, np.float64)
    if axis == BOX:
        areas = np.array([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
        side = rng.choice(3, count, p=areas / areas.sum())
        points = rng.uniform(-1, 1, (count, 3))
        points[np.arange(count), side] = rng.choice([-1, 1], count)
        return (points * half).astype(np.float32)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    radius, height = (half[u] + half[v]) / 2, half[axis]
    on_cap = rng.random(count) < radius / (radius + 2 * height)  # 2 pi r^2 of 2 pi r^2 + 4 pi r h
    angle = rng.uniform(0, 2 * np.pi, count)
    distance = radius * np.where(on_cap, np.sqrt(rng.random(count)), 1.0)
    points = np.empty((count, 3))
    points[:, u], points[:, v] = distance * np.cos(angle), distance * np.sin(angle)
    points[:, axis] = height * np.where(on_cap, rng.choice([-1, 1], count), rng.uniform(-1, 1, count))
    return points.astype(np.float32)


def _root_relative(joints):
    return joints - joints[..., WRIST : WRIST + 1, :]


def _masked_joint_mean(errors, valid):
    count = valid.sum(-1).astype(errors.dtype)
    return jnp.where(valid, errors, 0.0).sum(-1) / jnp.maximum(count, 1.0)


def _posed(pose, points):
    """Points of the model under [R|t]; products at full precision, else accelerators lose millimetres."""
    turned = jnp.einsum("...ij,...nj->...ni", pose[..., :3], points, precision="highest")
    return turned + pose[..., None, :, 3]
