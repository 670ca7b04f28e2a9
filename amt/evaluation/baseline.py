"""What anyone can predict without looking: the means of the training set. Every figure stands beside them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from amt.data.dexycb import DexYCB
from amt.data.images import read_size
from amt.data.transforms import visible_share
from amt.errors import UserError
from amt.geometry import cameras, procrustes

REFERENCE_PX = 224  # side of the upright label box in which 2D errors are counted


@dataclasses.dataclass(frozen=True)
class TrainingMean:
    """Means over the training samples, camera frame, metres.

    `joints` root-relative; `aligned_joints` likewise in the aligned crop's camera; `skeleton` after removing scale,
    rotation and place from each (generalised Procrustes, Gower 1975); `uv` in the upright label box, in its sides;
    `object_offset` from the wrist to the grasped object's centre.
    """

    joints: Float[np.ndarray, "21 3"]
    aligned_joints: Float[np.ndarray, "21 3"]
    skeleton: Float[np.ndarray, "21 3"]
    uv: Float[np.ndarray, "21 2"]
    object_offset: Float[np.ndarray, " 3"]
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for a weights file."""
        return {k: np.asarray(v).tolist() for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingMean":
        """The inverse of `to_json`."""
        arrays = {k: np.asarray(v) for k, v in values.items() if k != "samples"}
        return cls(**arrays, samples=int(values["samples"]))


def reference_box(joints_2d: Float[np.ndarray, "21 2"]) -> cameras.Box:
    """The upright square around the labels: the scale of 2D errors."""
    return cameras.upright_box(joints_2d.astype(np.float64))


def to_reference(points: Float[np.ndarray, "n 2"], box: cameras.Box) -> Float[np.ndarray, "n 2"]:
    """Image pixels in sides of the reference box, 0..1 inside."""
    return (points - box.center) / box.size + 0.5


def measure(source: DexYCB, max_samples: int, margin: float, min_visible: float) -> TrainingMean:
    """Means over up to `max_samples` samples spread over the source, of those that training learns from.

    Raises `UserError` where none of them has joints in view: there is nothing to learn from.
    """
    relative, aligned, uv, offsets = [], [], [], []
    chosen = np.unique(np.linspace(0, len(source) - 1, max_samples).round().astype(int))
    for i in chosen:
        sample = source[int(i)]
        image_size = read_size(sample["color"])
        if not sample["joints_valid"] or visible_share(sample["joints_2d"], image_size) < min_visible:
            continue
        joints, pixels = sample["joints_3d"].astype(np.float64), sample["joints_2d"].astype(np.float64)
        crop = cameras.crop_camera(sample["K"].astype(np.float64), cameras.hand_box(pixels, margin), REFERENCE_PX)
        relative.append(joints - joints[0])
        aligned.append(relative[-1] @ crop.R_crop_camera.T)
        uv.append(to_reference(pixels, reference_box(pixels)))
        if sample["grasped"] >= 0 and sample["object_valid"][sample["grasped"]]:
            offsets.append(sample["object_pose"][sample["grasped"]][:, 3] - joints[0])
    if not relative:
        raise UserError(
            f"{source}: none of {len(chosen)} samples spread over it has joint_3d and joint_2d, {min_visible:.0%} of "
            "them in the image (config.data.min_visible_share); expected labels to learn from"
        )
    return TrainingMean(
        joints=np.mean(relative, 0),
        aligned_joints=np.mean(aligned, 0),
        skeleton=_procrustes_mean(np.stack(aligned)),
        uv=np.mean(uv, 0),
        object_offset=np.mean(offsets, 0) if offsets else np.zeros(3),
        samples=len(relative),
    )


def _procrustes_mean(shapes, rounds=4):
    mean = shapes[0]
    for _ in range(rounds):
        target = np.broadcast_to(mean, shapes.shape).astype(np.float32)
        mean = np.asarray(procrustes.aligned(shapes.astype(np.float32), target)).mean(0)
    return mean
