"""From samples of the reader to the crops and the frames that the network sees; on the host.

Geometry is vectorised over a batch, and each image is decoded and warped at once, while it is in the processor's cache.
Every function takes its randomness as `rng`; None means inference: no jitter at all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from amt.data.images import color_jitter, decode, fit_frame, occlude, read_size, warp, warp_affine
from amt.errors import UserError
from amt.geometry import cameras, mirror

CROPS = ("aligned", "box", "full")
ROUGH_SHIFT, ROUGH_SCALE = 0.18, 0.35  # deviations of centre (box sides) and log size of a finder's box; any roll
OBJECT_REACH = 0.3  # objects count whose centre lies in the crop or this share of its side around it
GEOMETRY = ("K", "joints_3d", "joints_2d", "object_pose", "contact_points", "contact_force")  # in a camera's frame
OTHERS = ("is_left", "joints_valid", "hand_pose", "hand_pose_valid", "betas", "object_ids", "object_valid", "grasped")
OTHERS += ("left_basis", "contact_kind", "contact_valid", "contact_known")


@dataclasses.dataclass(frozen=True)
class TransformConfig:
    """`crop` is aligned, box or full; sizes in pixels; jitters are explained in configs/base.py.

    `component` is what the samples are for: all, finder (no crops are made) or perception (no frames).
    """

    crop: str
    image_size: int
    frame_size: int
    crop_margin: float
    crop_jitter: float
    roll_jitter: float
    rough_share: float
    wrong_side_share: float
    no_hand_share: float
    color_jitter: float
    min_visible_share: float
    component: str = "all"

    def check(self) -> None:
        """Raises `UserError` for an unknown crop."""
        if self.crop not in CROPS:
            raise UserError(f"config.data.crop={self.crop}: expected one of {', '.join(CROPS)}")


class FrameView(NamedTuple):
    """How one whole frame is read: image pixels to frame pixels, OpenCV's border."""

    H_frame_image: Float[np.ndarray, "3 3"]
    border: int = cv2.BORDER_CONSTANT


def network_sample(sample: Mapping[str, Any], rng: np.random.Generator | None, config: TransformConfig) -> dict:
    """As `network_batch`, of one sample and without the batch axis."""
    return {name: values[0] for name, values in network_batch([sample], rng, config).items()}


def network_batch(
    samples: Sequence[Mapping[str, Any]], rng: np.random.Generator | None, config: TransformConfig
) -> dict[str, np.ndarray]:
    """The fields of `structs.Batch` that `config.component` needs, for samples of `DexYCB`.

    Raises: UserError for a colour image that cannot be read.
    """
    labels = stack_labels(samples)
    colors = [sample["color"] for sample in samples]
    image_sizes = np.array([read_size(color) for color in colors])
    n, fields = len(samples), {}
    if config.component != "finder":
        H_crop_image, crop_fields = crop_labels(labels, image_sizes, rng, config)
        fields |= crop_fields | {"image": np.empty((n, config.image_size, config.image_size, 3), np.uint8)}
    if config.component != "perception":
        views, frame_fields = frame_labels(labels, image_sizes, rng, config)
        fields |= frame_fields | {"frame": np.empty((n, config.frame_size, config.frame_size, 3), np.uint8)}
    for k, color in enumerate(colors):
        image = decode(color)
        if "image" in fields:
            pixels = warp(image, H_crop_image[k], config.image_size)
            jittered = pixels if rng is None else color_jitter(occlude(pixels, rng), rng, config.color_jitter)
            fields["image"][k] = jittered
        if "frame" in fields:
            pixels = warp_affine(image, views[k].H_frame_image, config.frame_size, views[k].border)
            fields["frame"][k] = pixels if rng is None else color_jitter(pixels, rng, config.color_jitter)
    return fields


def stack_labels(samples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The labels of a batch, geometry in double precision."""
    labels = {name: np.stack([sample[name] for sample in samples]) for name in GEOMETRY + OTHERS}
    return labels | {name: labels[name].astype(np.float64) for name in GEOMETRY}


def mirror_labels(labels: Mapping[str, np.ndarray], mirrored: Bool[np.ndarray, " n"], widths: Int[np.ndarray, " n"]):
    """Labels of left hands as those of right hands where `mirrored` (`amt.geometry.mirror`)."""
    widths = widths.astype(np.float64)
    pose = labels["hand_pose"]
    changed = {
        "K": mirror.mirror_intrinsics(labels["K"], widths[:, None, None]),
        "joints_3d": mirror.mirror_points(labels["joints_3d"]),
        "joints_2d": mirror.mirror_pixels(labels["joints_2d"], widths[:, None, None]),
        "hand_pose": np.concatenate([mirror.mirror_hand_pose(pose[:, :48]), mirror.mirror_points(pose[:, 48:])], 1),
        "object_pose": mirror.mirror_object_pose(labels["object_pose"]),
        "contact_points": mirror.mirror_points(labels["contact_points"]),
        "contact_force": mirror.mirror_points(labels["contact_force"]),
    }

    def choose(name):
        return np.where(mirrored.reshape(-1, *(1,) * (labels[name].ndim - 1)), changed[name], labels[name])

    return {**labels, **{name: choose(name) for name in changed}}


def visible_share(joints_2d: Float[np.ndarray, "*n 21 2"], image_size: Int[np.ndarray, "*n 2"]) -> np.ndarray:
    """The share of joints inside the image of so many pixels (width, height)."""
    return inside(joints_2d, np.asarray(image_size)[..., None, :]).mean(-1)


def inside(points: Float[np.ndarray, "*n 2"], image_size: Int[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
    """Whether points lie in an image of so many pixels (width, height)."""
    return ((points > -0.5) & (points < image_size - 0.5)).all(-1)


def label_boxes(joints_2d: Float[np.ndarray, "n 21 2"], image_sizes, config: TransformConfig) -> cameras.Box:
    """The boxes that the labels say, of the configured kind."""
    if config.crop == "aligned":
        return cameras.hand_box(joints_2d, config.crop_margin)
    if config.crop == "box":
        return cameras.upright_box(joints_2d, config.crop_margin)
    size = image_sizes.max(-1).astype(np.float64)
    return cameras.Box((image_sizes - 1) / 2, size, np.full_like(size, cameras.UPRIGHT))


def jitter_box(box: cameras.Box, rng: np.random.Generator, config: TransformConfig) -> cameras.Box:
    """The box as a tracker gives it, a little shifted, scaled and rolled; now and then as rough as a finder's."""
    shift, scale, roll = config.crop_jitter, 1.5 * config.crop_jitter, rng.normal(0, config.roll_jitter)
    if rng.random() < config.rough_share:
        shift, scale, roll = ROUGH_SHIFT, ROUGH_SCALE, rng.uniform(-np.pi, np.pi)
    center = box.center + rng.normal(0, shift, 2) * box.size
    return cameras.Box(center, box.size * np.exp(rng.normal(0, scale)), box.angle + roll)


def crop_labels(
    labels: Mapping[str, np.ndarray], image_sizes, rng: np.random.Generator | None, config: TransformConfig
) -> tuple[Float[np.ndarray, "n 3 3"], dict[str, np.ndarray]]:
    """The crops around the hands: image to crop pixels, and everything rotated into the crops' cameras.

    Now and then a crop of something else, or of a left hand (the wrong side), which says so and nothing more.
    """
    widths, n = image_sizes[:, 0], len(image_sizes)
    wrong_side = np.zeros(n, bool) if rng is None else rng.random(n) < config.wrong_side_share
    mirrored = labels["is_left"] != wrong_side
    labels = mirror_labels(labels, mirrored, widths)
    joints_2d = labels["joints_2d"]
    labelled = labels["joints_valid"] & (visible_share(joints_2d, image_sizes) >= config.min_visible_share)
    boxes, visible = _boxes(labels, image_sizes, labelled, rng, config)
    crop = cameras.crop_camera(labels["K"], boxes, config.image_size)
    flip = np.where(mirrored[:, None, None], mirror.flip_matrix(widths), np.eye(3))
    R = crop.R_crop_camera
    object_pose = R[:, None] @ labels["object_pose"]
    right = visible & ~wrong_side
    f32 = np.float32
    return crop.H_crop_image @ flip, {
        "K": crop.K.astype(f32),
        "R_crop_camera": R.astype(f32),
        "joints_3d": cameras.rotate(R, labels["joints_3d"]).astype(f32),
        "joints_2d": cameras.warp_points(crop.H_crop_image, joints_2d).astype(f32),
        "joints_valid": labelled & right,
        "hand_visible": visible,
        "shows_left": labelled & visible & wrong_side,
        "hand_pose": labels["hand_pose"][:, :48].astype(f32),
        "betas": labels["betas"].astype(f32),
        "hand_pose_valid": labels["hand_pose_valid"] & right,
        "left_basis": labels["left_basis"],
        "object_pose": object_pose.astype(f32),
        "object_ids": labels["object_ids"].astype(np.int32),
        "object_valid": _objects_in_crop(object_pose, labels["object_valid"], crop.K, config.image_size)
        & right[:, None],
        "grasped": labels["grasped"].astype(np.int32),
        "contact_points": cameras.rotate(R, labels["contact_points"]).astype(f32),
        "contact_force": cameras.rotate(R, labels["contact_force"]).astype(f32),
        "contact_kind": labels["contact_kind"].astype(np.int32),
        "contact_valid": labels["contact_valid"] & right[:, None],
        "contact_known": labels["contact_known"],
    }


def _boxes(labels, image_sizes, labelled, rng, config) -> tuple[cameras.Box, Bool[np.ndarray, " n"]]:
    """Where to look, and whether the hand is seen there."""
    boxes, visible = label_boxes(labels["joints_2d"], image_sizes, config), labelled.copy()
    chosen = []
    for k, (image_size, known) in enumerate(zip(image_sizes, labels["joints_valid"], strict=True)):
        box = cameras.Box(*(x[k] for x in boxes)) if known else _any_box(image_size, rng)
        if rng is not None and config.crop != "full":
            if rng.random() < config.no_hand_share:
                box, visible[k] = _away(box, image_size, rng), False
            box = jitter_box(box, rng, config)
        chosen.append(box)
    return cameras.Box(*(np.stack(x) for x in zip(*chosen, strict=True))), visible


def _objects_in_crop(object_pose, valid, K, size):
    center = object_pose[..., 3]
    ahead = center[..., 2] > 0.05
    uv = cameras.project(np.where(ahead[..., None], center, [0.0, 0.0, 1.0]), K) / size
    near = ((uv > -OBJECT_REACH) & (uv < 1 + OBJECT_REACH)).all(-1)
    return valid & ahead & near


def _any_box(image_size, rng):
    position = image_size * (0.5 if rng is None else rng.uniform(0.2, 0.8, 2))
    return cameras.Box(position, np.float64(image_size.min() / 2), np.float64(cameras.UPRIGHT))


def _away(box, image_size, rng):
    """A box of the same size that shows little of the hand; where there is no room, a smaller one near it."""
    for _ in range(10):
        center = rng.uniform(0, 1, 2) * image_size
        if np.hypot(*(center - box.center)) > 1.1 * box.size:
            return cameras.Box(center, box.size, np.float64(rng.uniform(-np.pi, np.pi)))
    center = box.center + rng.choice([-1, 1], 2) * box.size
    return cameras.Box(center, box.size * 0.5, np.float64(rng.uniform(-np.pi, np.pi)))


def frame_labels(
    labels: Mapping[str, np.ndarray], image_sizes, rng: np.random.Generator | None, config: TransformConfig
) -> tuple[list[FrameView], dict[str, np.ndarray]]:
    """Whole frames in a small square and where the hands are; jitter zooms, turns, mirrors and looks away."""
    size, old_joints = config.frame_size, labels["joints_2d"]
    views, mirrored = [], np.zeros(len(image_sizes), bool)
    for k, (width, height) in enumerate(image_sizes):
        view = FrameView(fit_frame(width, height, size))
        if rng is not None and labels["joints_valid"][k]:
            H = _random_view(view.H_frame_image, old_joints[k], rng, config)
            mirrored[k] = rng.random() < 0.5
            H = mirror.flip_matrix(size) @ H if mirrored[k] else H
            view = FrameView(H, cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT)
        views.append(view)
    joints = cameras.warp_points(np.stack([view.H_frame_image for view in views]), old_joints)
    seen = inside(joints, size) & inside(old_joints, image_sizes[:, None])
    share = np.where(labels["joints_valid"], seen.mean(-1), 0.0)
    has_hand = share >= 0.5
    return views, {
        "frame_joints": ((joints + 0.5) / size).astype(np.float32),
        "frame_joints_valid": seen & has_hand[:, None],
        "frame_has_hand": has_hand,
        "frame_known": has_hand | (share < 0.1),
        "frame_is_left": labels["is_left"] != mirrored,
    }


def _random_view(H, joints, rng, config):
    size = config.frame_size
    box = cameras.hand_box(cameras.warp_points(H, joints), config.crop_margin)
    kind = rng.random()
    if kind < config.no_hand_share:
        away = rng.uniform(0, 2 * np.pi)
        zoom = np.exp(rng.uniform(0.3, 1.2))
        target = size / 2 + np.array([np.cos(away), np.sin(away)]) * (0.75 * size + 0.5 * box.size * zoom)
        turn = rng.uniform(-0.4, 0.4)
    elif kind < 0.85:  # about as the camera saw it
        zoom, turn = np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.2)
        target = box.center + rng.normal(0, 0.08, 2) * size
    else:
        zoom = np.exp(rng.uniform(np.log(0.16), np.log(0.6))) * size / max(box.size, 1.0)
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.4)
        target = rng.uniform(0.15, 0.85, 2) * size
    c, s = np.cos(turn) * zoom, np.sin(turn) * zoom
    A = np.array([[c, -s], [s, c]])
    move = np.eye(3)
    move[:2, :2], move[:2, 2] = A, target - A @ box.center
    return move @ H
