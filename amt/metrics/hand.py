"""Figures of hands."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from amt.geometry import cameras, procrustes
from amt.metrics.common import ahead, joint_errors, masked_joint_mean
from amt.structs import Array

PCK_LIMIT = 0.05  # metres; DexYCB's area under the curve is over 0 to 50 mm
PCK_THRESHOLDS = 100
WRIST = 0


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
    return masked_joint_mean(joint_errors(predicted, truth), valid)


def pa_mpjpe(
    predicted: Float[Array, "*batch 21 3"],
    truth: Float[Array, "*batch 21 3"],
    valid: Bool[Array, "*batch 21"],
) -> Float[jax.Array, "*batch"]:
    """MPJPE after the best scale, rotation and translation of the prediction (`amt.geometry.procrustes`)."""
    return masked_joint_mean(joint_errors(procrustes.aligned(predicted, truth, valid), truth), valid)


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


def errors_2d_px(
    points: Float[Array, "*batch n 3"], truth: Float[Array, "*batch n 2"], K: Float[Array, "*batch 3 3"]
) -> Float[jax.Array, "*batch n"]:
    """Distances in pixels between projected points and their 2D labels; what `pck` of places in the image takes.

    A point nearer than 5 cm, or behind the camera, is projected as if it were 5 cm ahead: its error counts.
    """
    return joint_errors(cameras.project(ahead(points), K), truth)


def error_2d_px(
    points: Float[Array, "*batch n 3"],
    truth: Float[Array, "*batch n 2"],
    K: Float[Array, "*batch 3 3"],
    valid: Bool[Array, "*batch n"],
) -> Float[jax.Array, "*batch"]:
    """The mean of `errors_2d_px`."""
    return masked_joint_mean(errors_2d_px(points, truth, K), valid)


def _root_relative(joints):
    return joints - joints[..., WRIST : WRIST + 1, :]
