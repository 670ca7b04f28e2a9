"""What `--mode=train` says of held-out samples while it runs: figures and pictures."""

from collections.abc import Callable

import jax
import numpy as np

from amt import metrics
from amt.inference.predictor import Crops
from amt.models.perception import Amt
from amt.structs import Batch
from amt.training.writers import Image
from amt.viz.sheet import contact_sheet

PERCEPTION_SCORES = ("val_mpjpe_mm", "val_spread_ratio", "val_attention_entropy", "val_least_attention_entropy")
FINDER_SCORES = ("val_finder_miss_share",)
PICTURES = 8  # crops on the sheet of each evaluation

Perceive = Callable[[dict, Batch | Crops], tuple[jax.Array, jax.Array]]


def perceiver(model: Amt, hand) -> Perceive:
    """Joints (metres, in the crop's camera) and entropy shares of the attention to a batch or other crops, compiled."""

    @jax.jit
    def perceive(params, b):
        out, stored = model.apply({"params": params}, b.image, b.K, hand, method="perceive", mutable=["entropy"])
        return out.joints, metrics.entropy_shares(stored)

    return perceive


def pictures(perceive: Perceive, batches: list) -> Callable[[dict], Image] | None:
    """Held-out crops, evenly spaced over `eval_batches`, with predicted and labelled skeletons; None without hands."""
    samples = [(k, i) for k, (batch, real) in enumerate(batches) for i in np.flatnonzero(real & batch.hand_visible)]
    chosen = samples[:: max(1, len(samples) // PICTURES)][:PICTURES]
    if not chosen:
        return None
    size = len(batches[0][1])  # of the program that validation compiled
    each = [jax.tree.map(lambda x, i=i: x[i], batches[k][0]) for k, i in chosen]
    shown = jax.tree.map(lambda *x: np.resize(np.stack(x), (size, *x[0].shape)), *each)

    def draw(params) -> Image:
        joints = np.asarray(perceive(params, shown)[0])
        parts = (shown.image, shown.K, joints, shown.joints_3d, shown.joints_valid)
        return contact_sheet(*(x[: len(chosen)] for x in parts))

    return draw


def validation(model: Amt, perceive: Perceive, batches: list) -> Callable[[dict], dict[str, float]]:
    """Figures on held-out `eval_batches`, enough to watch a run: root-relative MPJPE on label crops, what
    shows a collapse (the spread of predictions over that of the labels, the attention's entropy over that of even
    attention, in the mean and of the least head), and, where there is a finder, the share of frames in which its mean
    joint is further than half the hand's extent from the true one.
    """

    find = jax.jit(lambda params, b: model.apply({"params": params}, b.frame, method="find").uv)

    def miss_share(params) -> float:
        uv = np.concatenate([np.asarray(find(params, b)) for b, _ in batches])
        truth = np.concatenate([b.frame_joints for b, _ in batches])
        there = np.concatenate([b.frame_has_hand & real for b, real in batches])
        extent = np.ptp(truth, axis=1).max(-1)
        return float((np.linalg.norm((uv - truth).mean(1), axis=-1) > 0.5 * extent)[there].mean())

    def validate(params) -> dict[str, float]:
        seen = [jax.device_get(perceive(params, b)) for b, _ in batches]
        joints, entropies = np.concatenate([x for x, _ in seen]), np.mean([x for _, x in seen], axis=0)
        truth = np.concatenate([b.joints_3d for b, _ in batches])
        valid = np.concatenate([b.joints_valid & real for b, real in batches])
        error = np.linalg.norm((joints - joints[:, :1]) - (truth - truth[:, :1]), axis=-1)
        scores = {
            "val_mpjpe_mm": float(error[valid].mean()) * 1000,
            "val_spread_ratio": float(metrics.spread_ratio(joints, truth, valid)),
            "val_attention_entropy": float(entropies.mean()),
            "val_least_attention_entropy": float(entropies.min()),
        }
        return scores | ({"val_finder_miss_share": miss_share(params)} if model.finder else {})

    return validate
