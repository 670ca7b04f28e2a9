"""Predictions and labels of some frames to rows of `Samples`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from amt import metrics
from amt.data.demonstrations import frame_rate
from amt.data.dexycb import SIMULATED, DexYCB
from amt.data.transforms import inside
from amt.evaluation.baseline import REFERENCE_PX, TrainingMean, reference_box
from amt.evaluation.contacts import CHUNK, ContactLabels, contact_counter, contact_labels, contacts_of
from amt.evaluation.object_columns import object_columns
from amt.evaluation.objects import pick_grasped
from amt.evaluation.samples import Samples, make_samples
from amt.geometry import cameras, procrustes
from amt.inference.batching import Rows
from amt.inference.predictor import FoundHands, Predictor
from amt.metrics.common import NEAREST
from amt.structs import Prediction

HAND_SEG = 255
AUC_LIMITS = {"50mm": (0.0, 0.05), "20_50mm": (0.02, 0.05)}  # DexYCB's; those of Zimmermann and Brox (ICCV 2017)
AUC_2D_PX = 30.0  # the 2D limit of Zimmermann and Brox
PCK_2D_SHARE = 0.1  # of the label box's side
PREDICTED, TOLD, MEAN, ALIGNED_MEAN, SKELETON = range(5)  # what is compared with the labels, in `_compare`'s order
CURVES = (  # prefix of the name, kind of error, of which estimate
    ("", "relative", PREDICTED),
    ("absolute_", "absolute", PREDICTED),
    ("pa_", "aligned", PREDICTED),
    ("mean_", "relative", MEAN),
    ("mean_skeleton_pa_", "aligned", SKELETON),
)


class Frames(NamedTuple):
    """n frames on their way through evaluation: stacked samples of `DexYCB`, whose numbers are `samples` and whose
    videos `clips`, and what was predicted of them.

    `told` is the prediction with the side given, as a data set or a person tells it; `left_odds` are the log odds of a
    left hand that each frame has alone.
    """

    samples: Int[np.ndarray, " n"]
    clips: Int[np.ndarray, " n"]
    image_size: tuple[int, int]
    labels: dict[str, np.ndarray]
    prediction: Prediction
    told: Prediction
    left_odds: Float[np.ndarray, " n"]
    found: FoundHands

    def at(self, rows: Bool[np.ndarray, " n"]) -> "Frames":
        """Some of them."""
        arrays = self._replace(image_size=None)
        return jax.tree.map(lambda x: x[rows], arrays)._replace(image_size=self.image_size)


class Measure:
    """`measure(frames)`: their rows of `Samples`; joints and contacts are compared on the predictor's devices."""

    def __init__(
        self,
        source: DexYCB,
        mean: TrainingMean,
        predictor: Predictor,
        about: dict[str, Any],
    ):
        self.source, self.mean, self.about, mesh = source, mean, about, predictor.mesh
        self.hand, self.margin = predictor.hand, predictor.margin
        self._compare, self._count = Rows(_compare, CHUNK, mesh), contact_counter(predictor.contacts_taught, mesh)
        self._area_2d = Rows(lambda _, errors: _areas(errors, 0.0, AUC_2D_PX), CHUNK, mesh)

    def __call__(self, frames: Frames) -> Samples:
        truth = contact_labels(frames.labels, self.hand, self.source.root)
        compared = self._compare(None, self._joints(frames))
        columns = {
            **self._places(frames.samples),
            **_labels(frames, truth),
            **_predictions(frames),
            "clip": frames.clips,
            "joint_error_mm": compared["absolute"][:, PREDICTED],
            "root_relative_joint_error_mm": compared["relative"][:, PREDICTED],
            "aligned_joint_error_mm": compared["aligned"][:, PREDICTED],
        }
        figures = {
            **_joint_figures(compared),
            **_other_figures(frames, self.margin),
            **object_columns(frames.prediction, frames.labels, self.mean, self.source, frames.image_size[0]),
        }
        pixels = self._errors_2d(frames)
        columns["joint_error_2d_px"] = pixels["error_2d_px"]
        for name, error in pixels.items():
            prefix = name.removesuffix("error_2d_px")
            figures[name] = error.mean(-1)
            figures[f"{prefix}pck_2d_share"] = (error <= PCK_2D_SHARE * REFERENCE_PX).mean(-1)
            figures[f"{prefix}pck_2d_auc_30px"] = self._area_2d(None, error.astype(np.float32))
        wrist, simulated = frames.labels["joints_3d"][:, 0], frames.labels["contact_known"]
        counts = self._count(None, contacts_of(frames.prediction, truth, wrist, simulated, self.mean))
        return make_samples(self.about, columns, figures, counts)

    def _places(self, samples) -> dict[str, np.ndarray]:
        """Where each frame is in the data set."""
        places = [self.source.locate(int(i)) for i in samples]
        return {
            "index": samples,
            "sequence": np.array([sequence.folder.name for sequence, _, _ in places]),
            "subject": np.array([sequence.folder.parent.name for sequence, _, _ in places]),
            "camera": np.array([sequence.meta["serials"][camera] for sequence, camera, _ in places]),
            "frame": np.array([frame for _, _, frame in places]),
            "rate_hz": np.array([frame_rate(sequence.meta) for sequence, _, _ in places]),
            "grasp_kind": np.array([(s.meta.get(SIMULATED) or {}).get("kind", "") for s, _, _ in places]),
        }

    def _joints(self, frames: Frames) -> dict[str, np.ndarray]:
        """What `_compare` takes."""
        labels, mean = frames.labels, self.mean
        R = cameras.crop_camera(labels["K"].astype(np.float64), _true_box(labels, self.margin), REFERENCE_PX)
        estimates = (
            frames.prediction.hand.joints,
            frames.told.hand.joints,
            mean.joints,
            # Turned by the true roll of every crop: what knowing only the crop would give.
            np.einsum("nji,kj->nki", R.R_crop_camera, mean.aligned_joints),
            mean.skeleton,
        )
        shape = labels["joints_3d"].shape
        estimates = np.stack([np.broadcast_to(x, shape) for x in estimates], axis=1)
        return {"estimates": estimates.astype(np.float32), "truth": labels["joints_3d"].astype(np.float32)}

    def _errors_2d(self, frames: Frames) -> dict[str, Float[np.ndarray, "n 21"]]:
        """Pixels in the upright label box, scaled to `REFERENCE_PX`."""
        labels, found, mean = frames.labels, frames.found.box, self.mean
        K, truth = labels["K"].astype(np.float64), labels["joints_2d"].astype(np.float64)
        box = reference_box(truth)
        # The mean in the finder's own box: what knowing only where the hand is would give.
        in_found = (mean.uv - 0.5) * (found.size / self.margin)[:, None, None] + found.center[:, None]
        in_true = (mean.uv - 0.5) * box.size[:, None, None] + box.center[:, None]
        places = {
            "error_2d_px": cameras.project(_ahead(frames.prediction.hand.joints), K),
            "given_side_error_2d_px": cameras.project(_ahead(frames.told.hand.joints), K),
            "mean_error_2d_px": in_found,
            "mean_true_box_error_2d_px": in_true,
        }
        scale = (REFERENCE_PX / box.size)[:, None]
        return {name: np.linalg.norm(x - truth, axis=-1) * scale for name, x in places.items()}


def joint_visible(labels: dict[str, np.ndarray], image_size: tuple[int, int]) -> Bool[np.ndarray, "n 21"]:
    """Whether the segmentation shows a hand at a joint's pixel or at one beside it; without one: whether the joint lies
    in the image (width, height).
    """
    joints = labels["joints_2d"]
    if "seg" not in labels:
        return inside(joints, np.array(image_size))
    hand = np.pad(labels["seg"] == HAND_SEG, ((0, 0), (1, 1), (1, 1)))
    height, width = labels["seg"].shape[1:]
    x, y = np.moveaxis(np.rint(joints).astype(int), -1, 0)
    rows, ok = np.arange(len(joints))[:, None], (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = np.where(ok, x, 0), np.where(ok, y, 0)
    near = [hand[rows, y + dy, x + dx] for dy in range(3) for dx in range(3)]
    return np.any(near, axis=0) & ok


def _labels(frames: Frames, truth: ContactLabels) -> dict[str, np.ndarray]:
    labels, n = frames.labels, len(frames.samples)
    grasped = pick_grasped(frames.prediction, labels)
    return {
        "is_left": labels["is_left"],
        "object_id": np.where(labels["grasped"] >= 0, grasped.ids, 0),
        "touches": np.where(truth.labelled, truth.valid.any(-1), -1),
        "image_size_px": np.tile(frames.image_size, (n, 1)),
        "K_px": labels["K"],
        "joint_visible": joint_visible(labels, frames.image_size),
        "visible_by_seg": np.full(n, "seg" in labels),
        "true_joints_m": labels["joints_3d"],
        "true_object_pose_m": np.where(grasped.held[:, None, None], grasped.true_pose, 0.0),
        "object_pose_m": np.where(grasped.held[:, None, None], grasped.pose, 0.0),
        "true_contact_points_m": truth.points,
        "true_contact_valid": truth.valid,
        "true_contact_kind": truth.kind,
        "true_contact_force_n": truth.force,
    }


def _predictions(frames: Frames) -> dict[str, np.ndarray]:
    prediction, hand, found = frames.prediction, frames.prediction.hand, frames.found.box
    return {
        "found_center_px": found.center,
        "found_size_px": found.size,
        "found_angle_rad": found.angle,
        "hand_found": hand.valid,
        "predicted_left": hand.is_left,
        "joints_m": hand.joints,
        "joint_confidence": prediction.joint_confidence,
        "global_orient": hand.global_orient,
        "hand_pose": hand.hand_pose,
        "betas": hand.betas,
        "transl_m": hand.transl,
        "contact_points_m": prediction.contacts.points,
        "contact_confidence": prediction.contacts.confidence,
        "contact_kind": prediction.contacts.kind,
        "contact_force_n": prediction.contacts.force,
    }


def _compare(_, arrays):
    """Errors [n,m,21] of m estimates of the joints, millimetres, and areas [n,m] under their PCK curves."""
    ours, truth = arrays["estimates"], arrays["truth"][:, None]
    errors = {
        "absolute": metrics.joint_errors(ours, truth),
        "relative": metrics.joint_errors(ours - ours[..., :1, :], truth - truth[..., :1, :]),
        "aligned": metrics.joint_errors(procrustes.aligned(ours, jnp.broadcast_to(truth, ours.shape)), truth),
    }
    areas = {
        f"{name}_{limits}": _areas(error, low, high)
        for name, error in errors.items()
        for limits, (low, high) in AUC_LIMITS.items()
    }
    return areas | {name: 1000.0 * error for name, error in errors.items()}


def _areas(errors, low, high):
    """Under the PCK curve of every row of joints."""
    area = jnp.vectorize(lambda row: metrics.pck_auc(row, jnp.ones(row.shape, bool), low, high), signature="(j)->()")
    return area(errors)


def _joint_figures(compared: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Means over the joints, in double precision."""
    absolute, relative, aligned = (compared[k].mean(-1, dtype=np.float64) for k in ("absolute", "relative", "aligned"))
    areas = {}
    for name in AUC_LIMITS:
        for prefix, kind, estimate in CURVES:
            areas[f"{prefix}pck_auc_{name}"] = compared[f"{kind}_{name}"][:, estimate]
    return areas | {
        "mpjpe_mm": relative[:, PREDICTED],
        "absolute_mpjpe_mm": absolute[:, PREDICTED],
        "pa_mpjpe_mm": aligned[:, PREDICTED],
        "mean_mpjpe_mm": relative[:, MEAN],
        "mean_aligned_mpjpe_mm": relative[:, ALIGNED_MEAN],
        "mean_skeleton_pa_mpjpe_mm": aligned[:, SKELETON],
        "given_side_mpjpe_mm": relative[:, TOLD],
        "given_side_pa_mpjpe_mm": aligned[:, TOLD],
    }


def _other_figures(frames: Frames, margin: float) -> dict[str, np.ndarray]:
    labels, hand, found = frames.labels, frames.prediction.hand, frames.found.box
    true_box = _true_box(labels, margin)
    return {
        "wrist_depth_mm": np.abs(hand.joints[:, 0, 2] - labels["joints_3d"][:, 0, 2]) * 1000,
        "hand_found_share": hand.valid,
        "side_right_share": hand.is_left == labels["is_left"],
        "still_side_right_share": (frames.left_odds > 0) == labels["is_left"],
        "finder_center_share": np.linalg.norm(found.center - true_box.center, axis=-1) / true_box.size,
        "finder_angle_deg": np.degrees(np.abs((found.angle - true_box.angle + np.pi) % (2 * np.pi) - np.pi)),
    }


def _true_box(labels, margin: float) -> cameras.Box:
    return cameras.hand_box(labels["joints_2d"].astype(np.float64), margin)


def _ahead(joints):
    return np.concatenate([joints[..., :2], np.maximum(joints[..., 2:], NEAREST)], axis=-1).astype(np.float64)
