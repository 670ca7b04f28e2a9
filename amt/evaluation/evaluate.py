"""A predictor over a data set: found by the predictor itself, nothing given by labels.

Every frame on its own, but for the side: the frames of one video share their hand, as in `Predictor.__call__`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from amt import metrics
from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.data.quarantine import Quarantine, try_load
from amt.data.transforms import visible_share
from amt.errors import UserError
from amt.evaluation.baseline import REFERENCE_PX, TrainingMean, reference_box, to_reference
from amt.evaluation.contacts import ContactTally, contact_labels
from amt.evaluation.objects import object_columns
from amt.evaluation.official import ResultFiles
from amt.geometry import cameras
from amt.inference.predictor import Predictor, choose


def evaluate(
    predictor: Predictor,
    source: DexYCB,
    mean: TrainingMean,
    batch_size: int,
    max_samples: int,
    min_visible: float,
    quarantine: Quarantine,
    report: Callable[[int], None],
    results: ResultFiles | None = None,
) -> dict[str, float]:
    """Figures over the source, or over whole videos spread evenly over it, about `max_samples` frames (0: all).

    A hand that the finder does not find counts with whatever is seen at its best guess: nothing is left out but the
    samples without a label, with fewer than `min_visible` of their joints in the image, or that cannot be read. Those
    are listed in `quarantine` and counted as `frames_unreadable`. Raises `UserError` where too many cannot be read and
    where nothing is left.

    `results` gets predictions of every frame, those that the figures leave out too; the side of a video's hand is then
    decided on all of its frames. With it an unreadable frame is an error: its file has to be whole.
    """
    rows: list[dict[str, float]] = []
    contacts = ContactTally(predictor.contacts_taught)
    seen = unreadable = 0
    pending: list[tuple[dict, np.ndarray]] = []

    def flush():
        return _score(predictor, pending, mean, contacts, source.root, results) if pending else []

    for clip in chosen_clips(source, max_samples):
        frames = [(i, try_load(source, i, _with_image, quarantine)) for i in clip]
        unread = [i for i, frame in frames if frame is None]
        seen += len(clip)
        unreadable += len(unread)
        quarantine.check(seen)
        if results and unread:
            raise UserError(
                f"{source.color_path(unread[0])}: image or labels cannot be read ({quarantine.path} says why), and "
                "config.eval.official needs every frame"
            )
        frames = [(i, *frame) for i, frame in frames if frame is not None]
        if pending and frames and (len(pending) + len(clip) > batch_size or frames[0][2].shape != pending[0][1].shape):
            rows += flush()
            pending = []
        for i, sample, image in frames:
            counts = sample["joints_valid"] and visible_share(sample["joints_2d"], image.shape[1::-1]) >= min_visible
            if counts or results:
                pending.append((sample | {"sample": i, "clip": clip.start, "counts": bool(counts)}, image))
        report(len(clip))
    rows += flush()
    if not rows:
        raise UserError(
            f"{source}: no sample has a labelled hand in view ({unreadable} of {seen} cannot be read); "
            "nothing to evaluate"
        )
    return _summary(rows) | contacts.figures() | {"frames_unreadable": unreadable}


def chosen_clips(source: DexYCB, max_samples: int) -> list[range]:
    """Whole videos, evenly spaced, of about `max_samples` frames together; 0 takes all."""
    clips = source.clips()
    if not 0 < max_samples < len(source):
        return clips
    count = max(1, round(max_samples * len(clips) / len(source)))
    return [clips[i] for i in np.linspace(0, len(clips) - 1, count).round().astype(int)]


def _with_image(sample: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    return sample, decode(sample["color"])


def _score(
    predictor: Predictor, pending, mean: TrainingMean, contacts: ContactTally, root: Path, results: ResultFiles | None
) -> list[dict[str, float]]:
    """Figures of every frame that counts; contacts are counted in `contacts`, all frames written to `results`."""
    images = np.stack([image for _, image in pending])
    labels = {k: np.stack([s[k] for s, _ in pending]) for k in pending[0][0] if k not in ("color", "seg")}
    K = labels["K"].astype(np.float64)
    right, left, odds = predictor.both_sides(images, K)
    _, clip = np.unique(labels["clip"], return_inverse=True)
    prediction = choose(np.bincount(clip, odds)[clip] > 0, left, right)
    told = choose(labels["is_left"], left, right).hand.joints  # as a data set or a person can tell the side
    found = predictor.find(images)
    if results:
        results.add(labels["sample"], prediction, K, labels["object_ids"])
        counts = labels["counts"]
        if not counts.any():
            return []
        labels, found, K = {k: v[counts] for k, v in labels.items()}, found.at(counts), K[counts]
        prediction, told = jax.tree.map(lambda x: x[counts], (prediction, told))
        odds = odds[counts]
    n = len(K)
    boxes = [reference_box(p) for p in labels["joints_2d"]]

    def in_boxes(pixels):
        return np.stack([to_reference(p, b) for p, b in zip(pixels, boxes, strict=True)])

    truth_uv = in_boxes(labels["joints_2d"])

    def error_2d(uv):
        return np.linalg.norm(uv - truth_uv, axis=-1).mean(-1) * REFERENCE_PX

    true_box = cameras.hand_box(labels["joints_2d"].astype(np.float64), predictor.margin)
    columns = {
        **_hand_errors(prediction.hand.joints, labels["joints_3d"], ""),
        **_hand_errors(np.broadcast_to(mean.joints, (n, 21, 3)), labels["joints_3d"], "mean_"),
        "mean_aligned_mpjpe_mm": _aligned_mean_error(labels, mean, predictor.margin),
        "mean_skeleton_pa_mpjpe_mm": _pa(np.broadcast_to(mean.skeleton, (n, 21, 3)), labels["joints_3d"]),
        "error_2d_px": error_2d(in_boxes(cameras.project(_ahead(prediction.hand.joints), K))),
        "mean_error_2d_px": error_2d(in_boxes(_mean_in_box(mean, found.box, predictor.margin))),
        "mean_true_box_error_2d_px": error_2d(mean.uv),
        **_hand_errors(told, labels["joints_3d"], "given_side_"),
        "given_side_pa_mpjpe_mm": _pa(told, labels["joints_3d"]),
        "given_side_error_2d_px": error_2d(in_boxes(cameras.project(_ahead(told), K))),
        "wrist_depth_mm": np.abs(prediction.hand.joints[:, 0, 2] - labels["joints_3d"][:, 0, 2]) * 1000,
        "hand_found_share": prediction.hand.valid.astype(float),
        "side_right_share": (prediction.hand.is_left == labels["is_left"]).astype(float),
        "still_side_right_share": ((odds > 0) == labels["is_left"]).astype(float),
        "finder_center_share": np.linalg.norm(found.box.center - true_box.center, axis=-1) / true_box.size,
        "finder_angle_deg": np.degrees(np.abs(_wrap(found.box.angle - true_box.angle))),
        **object_columns(prediction, labels, mean, root),
    }
    truth = contact_labels(labels, predictor.hand, root)
    contacts.add(prediction, truth, labels["joints_3d"][:, 0], labels["contact_known"], mean)
    return [{k: float(v[i]) for k, v in columns.items()} for i in range(n)]


def _mean_in_box(mean: TrainingMean, box: cameras.Box, margin: float):
    """Mean joints in the finder's own box, in image pixels: what knowing only where the hand is would give."""
    return (mean.uv - 0.5) * (box.size / margin)[:, None, None] + box.center[:, None]


def _ahead(joints):
    return np.concatenate([joints[..., :2], np.maximum(joints[..., 2:], 0.05)], axis=-1).astype(np.float64)


def _wrap(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _pa(joints, truth):
    everywhere = np.ones(truth.shape[:2], bool)
    return np.asarray(metrics.pa_mpjpe(joints.astype(np.float32), truth.astype(np.float32), everywhere)) * 1000


def _hand_errors(joints, truth, prefix: str) -> dict[str, Float[np.ndarray, " n"]]:
    everywhere: Bool[np.ndarray, "n 21"] = np.ones(truth.shape[:2], bool)
    error = metrics.mpjpe(joints.astype(np.float32), truth.astype(np.float32), everywhere)
    columns = {f"{prefix}mpjpe_mm": np.asarray(error) * 1000}
    return columns if prefix else {**columns, "pa_mpjpe_mm": _pa(joints, truth)}


def _aligned_mean_error(labels, mean, margin):
    """The mean pose turned by the true roll of every crop: what knowing only the crop would give."""
    box = cameras.hand_box(labels["joints_2d"].astype(np.float64), margin)
    R = cameras.crop_camera(labels["K"].astype(np.float64), box, REFERENCE_PX).R_crop_camera
    return _hand_errors(np.einsum("nji,kj->nki", R, mean.aligned_joints), labels["joints_3d"], "x")["xmpjpe_mm"]


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    columns = {k: np.array([row[k] for row in rows]) for k in rows[0]}
    figures = {k: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for k, v in columns.items()}
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "error_2d_px", "finder_angle_deg"):
        figures[f"median_{name}"] = float(np.median(columns[name]))
    figures["mpjpe_share_of_mean"] = figures["mpjpe_mm"] / figures["mean_mpjpe_mm"]
    figures["error_2d_share_of_mean"] = figures["error_2d_px"] / figures["mean_error_2d_px"]
    figures["error_2d_share_of_mean_true_box"] = figures["error_2d_px"] / figures["mean_true_box_error_2d_px"]
    figures["pa_share_of_mean_skeleton"] = figures["pa_mpjpe_mm"] / figures["mean_skeleton_pa_mpjpe_mm"]
    figures["given_side_mpjpe_share_of_mean"] = figures["given_side_mpjpe_mm"] / figures["mean_mpjpe_mm"]
    figures["given_side_error_2d_share_of_mean"] = figures["given_side_error_2d_px"] / figures["mean_error_2d_px"]
    figures["samples"] = len(rows)
    return figures
