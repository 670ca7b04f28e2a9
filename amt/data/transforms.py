"""From one sample of the reader to the crop and the frame that the network sees; on the host.

Every function takes its randomness as `rng`; None means inference: no jitter at all.
"""

import dataclasses

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from amt.errors import UserError
from amt.geometry import cameras, mirror

CROPS = ("aligned", "box", "full")
ROUGH_SHIFT, ROUGH_SCALE = 0.18, 0.35  # deviations of centre (box sides) and log size of a finder's box; any roll
OBJECT_REACH = 0.3  # objects count whose centre lies in the crop or this share of its side around it


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


def decode(color: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """A JPEG to RGB."""
    try:
        return simplejpeg.decode_jpeg(color, "RGB", fastdct=True, fastupsample=True)
    except ValueError as error:
        raise UserError(f"a colour image of the data set is not a readable JPEG: {error}") from error


def network_sample(sample: dict, rng: np.random.Generator | None, config: TransformConfig) -> dict:
    """The fields of `structs.Batch` that `config.component` needs, for one sample of `DexYCB`."""
    image = decode(sample["color"])
    if config.component == "finder":
        return frame_sample(image, sample, rng, config)
    wrong_side = rng is not None and rng.random() < config.wrong_side_share
    mirrored = bool(sample["is_left"]) != wrong_side
    crop_image, crop_labels = mirror_sample(image, sample) if mirrored else (image, sample)
    crop = crop_sample(crop_image, crop_labels, rng, config, wrong_side)
    return crop if config.component == "perception" else {**crop, **frame_sample(image, sample, rng, config)}


def mirror_sample(image: UInt8[np.ndarray, "h w 3"], sample: dict) -> tuple[np.ndarray, dict]:
    """A left hand's image and labels as those of a right hand (`amt.geometry.mirror`)."""
    width = image.shape[1]
    changed = {
        "K": mirror.mirror_intrinsics(sample["K"], width),
        "joints_3d": mirror.mirror_points(sample["joints_3d"]),
        "joints_2d": mirror.mirror_pixels(sample["joints_2d"], width),
        "hand_pose": np.concatenate(
            [
                mirror.mirror_hand_pose(sample["hand_pose"][:48]),
                mirror.mirror_points(sample["hand_pose"][48:]),
            ]
        ),
        "object_pose": mirror.mirror_object_pose(sample["object_pose"]),
    }
    return cv2.flip(image, 1), {**sample, **changed}


def visible_share(joints_2d: Float[np.ndarray, "21 2"], width: int, height: int) -> float:
    """The share of joints inside the image."""
    inside = (joints_2d > -0.5) & (joints_2d < np.array([width, height]) - 0.5)
    return float(inside.all(-1).mean())


def label_box(joints_2d: Float[np.ndarray, "21 2"], K, image, config: TransformConfig) -> cameras.Box:
    """The box that the labels say, of the configured kind."""
    if config.crop == "aligned":
        return cameras.hand_box(joints_2d, config.crop_margin)
    if config.crop == "box":
        return cameras.upright_box(joints_2d, config.crop_margin)
    h, w = image.shape[:2]
    center = np.array([(w - 1) / 2, (h - 1) / 2])
    return cameras.Box(center, np.float64(max(h, w)), np.float64(cameras.UPRIGHT))


def jitter_box(box: cameras.Box, rng: np.random.Generator, config: TransformConfig) -> cameras.Box:
    """The box as a tracker gives it, a little shifted, scaled and rolled; now and then as rough as a finder's."""
    shift, scale, roll = config.crop_jitter, 1.5 * config.crop_jitter, rng.normal(0, config.roll_jitter)
    if rng.random() < config.rough_share:
        shift, scale, roll = ROUGH_SHIFT, ROUGH_SCALE, rng.uniform(-np.pi, np.pi)
    center = box.center + rng.normal(0, shift, 2) * box.size
    return cameras.Box(center, box.size * np.exp(rng.normal(0, scale)), box.angle + roll)


def crop_sample(
    image, sample: dict, rng: np.random.Generator | None, config: TransformConfig, wrong_side: bool = False
) -> dict:
    """The crop around the hand, everything rotated into its camera; sometimes a crop of something else.

    With `wrong_side` image and labels are a left hand's: the crop says so and nothing else.
    """
    K = sample["K"].astype(np.float64)
    joints_2d = sample["joints_2d"].astype(np.float64)
    seen = visible_share(joints_2d, image.shape[1], image.shape[0])
    labelled = bool(sample["joints_valid"]) and seen >= config.min_visible_share
    box = label_box(joints_2d, K, image, config) if sample["joints_valid"] else _any_box(image, rng)
    visible = labelled
    if rng is not None and config.crop != "full":
        if rng.random() < config.no_hand_share:
            box, visible = _away(box, image, rng), False
        box = jitter_box(box, rng, config)
    crop = cameras.crop_camera(K, box, config.image_size)
    pixels = warp(image, crop, config.image_size)
    if rng is not None:
        pixels = color_jitter(occlude(pixels, rng), rng, config.color_jitter)
    R = crop.R_crop_camera
    joints_3d = cameras.rotate(R, sample["joints_3d"].astype(np.float64))
    object_pose = np.einsum("ij,njk->nik", R, sample["object_pose"].astype(np.float64))
    f32 = np.float32
    right = visible and not wrong_side
    return {
        "image": pixels,
        "K": crop.K.astype(f32),
        "R_crop_camera": R.astype(f32),
        "joints_3d": joints_3d.astype(f32),
        "joints_2d": cameras.warp_points(crop.H_crop_image, joints_2d).astype(f32),
        "joints_valid": np.bool_(labelled and right),
        "hand_visible": np.bool_(visible),
        "shows_left": np.bool_(labelled and visible and wrong_side),
        "hand_pose": sample["hand_pose"][:48].astype(f32),
        "betas": sample["betas"].astype(f32),
        "hand_pose_valid": np.bool_(sample["hand_pose_valid"] and right),
        "object_pose": object_pose.astype(f32),
        "object_ids": sample["object_ids"].astype(np.int32),
        "object_valid": _objects_in_crop(object_pose, sample["object_valid"], crop.K, config.image_size) & right,
        "grasped": np.int32(sample["grasped"]),
    }


def _objects_in_crop(object_pose, valid, K, size):
    center = object_pose[:, :, 3]
    ahead = center[:, 2] > 0.05
    uv = cameras.project(np.where(ahead[:, None], center, [0.0, 0.0, 1.0]), K) / size
    near = ((uv > -OBJECT_REACH) & (uv < 1 + OBJECT_REACH)).all(-1)
    return valid & ahead & near


def warp(image: UInt8[np.ndarray, "h w 3"], crop: cameras.Crop, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The image as the crop's camera sees it. A crop much smaller than its box is averaged down first."""
    shrink = int(_pixels_per_crop_pixel(crop.H_crop_image, size))
    if shrink >= 2:
        small, to_image = _averaged(image, shrink)
        return cv2.warpPerspective(small, crop.H_crop_image @ to_image, (size, size), flags=cv2.INTER_LINEAR)
    return cv2.warpPerspective(image, crop.H_crop_image, (size, size), flags=cv2.INTER_LINEAR)


def _averaged(image, shrink):
    """Means of blocks of pixels, and the map from the small image's pixels to the image's."""
    shrink = min(shrink, *image.shape[:2])  # of a tiny image one pixel stays
    small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    return small, np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])


def _pixels_per_crop_pixel(H, size):
    middle = (size - 1) / 2
    ends = cameras.warp_points(np.linalg.inv(H), np.array([[middle, middle], [middle + 1, middle]]))
    return float(np.hypot(*(ends[1] - ends[0])))


def _any_box(image, rng):
    h, w = image.shape[:2]
    position = np.array([w, h]) * (0.5 if rng is None else rng.uniform(0.2, 0.8, 2))
    return cameras.Box(position, np.float64(min(h, w) / 2), np.float64(cameras.UPRIGHT))


def _away(box, image, rng):
    """A box of the same size that shows little of the hand; where there is no room, a smaller one near it."""
    h, w = image.shape[:2]
    for _ in range(10):
        center = rng.uniform(0, 1, 2) * [w, h]
        if np.hypot(*(center - box.center)) > 1.1 * box.size:
            return cameras.Box(center, box.size, np.float64(rng.uniform(-np.pi, np.pi)))
    center = box.center + rng.choice([-1, 1], 2) * box.size
    return cameras.Box(center, box.size * 0.5, np.float64(rng.uniform(-np.pi, np.pi)))


def fit_frame(width: int, height: int, size: int) -> Float[np.ndarray, "3 3"]:
    """The similarity that fits a whole image, centred, into a square of `size` pixels: image to square."""
    scale = size / max(width, height)
    shift = (size - scale * np.array([width, height])) / 2 + 0.5 * scale - 0.5
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def shrink_frame(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The whole image in a square, bars where it does not reach."""
    h, w = image.shape[:2]
    return _warp_frame(image, fit_frame(w, h, size), size)


def _warp_frame(image, H, size, border=cv2.BORDER_CONSTANT):
    shrink = int(1 / max(np.sqrt(abs(np.linalg.det(H[:2, :2]))), 1e-6))
    if shrink >= 2:
        image, to_image = _averaged(image, shrink)
        H = H @ to_image
    return cv2.warpAffine(image, H[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def frame_sample(image, sample: dict, rng: np.random.Generator | None, config: TransformConfig) -> dict:
    """The whole frame in a small square and the hand's box; jitter zooms, turns, mirrors and looks away."""
    h, w = image.shape[:2]
    size = config.frame_size
    H = fit_frame(w, h, size)
    joints = sample["joints_2d"].astype(np.float64)
    valid = bool(sample["joints_valid"])
    border, mirrored = cv2.BORDER_CONSTANT, False
    if rng is not None and valid:
        H = _random_view(H, joints, (w, h), rng, config)
        mirrored = rng.random() < 0.5
        border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    if mirrored:
        H = np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1.0]]) @ H
    pixels = _warp_frame(image, H, size, border)
    if rng is not None:
        pixels = color_jitter(pixels, rng, config.color_jitter)
    joints = cameras.warp_points(H, joints)
    in_image = ((sample["joints_2d"] > -0.5) & (sample["joints_2d"] < np.array([w, h]) - 0.5)).all(-1)
    inside = ((joints > -0.5) & (joints < size - 0.5)).all(-1) & in_image
    share = float(inside.mean()) if valid else 0.0
    has_hand = share >= 0.5
    return {
        "frame": pixels,
        "frame_joints": ((joints + 0.5) / size).astype(np.float32),
        "frame_joints_valid": inside & has_hand,
        "frame_has_hand": np.bool_(has_hand),
        "frame_known": np.bool_(has_hand or share < 0.1),
        "frame_is_left": np.bool_(bool(sample["is_left"]) != mirrored),
    }


def _random_view(H, joints, image_size, rng, config):
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


def occlude(image: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Now and then one or two flat patches before the hand."""
    if rng.random() >= 0.2:
        return image
    image = image.copy()
    for _ in range(int(rng.integers(1, 3))):
        h, w = (rng.uniform(0.08, 0.32, 2) * len(image)).astype(int)
        y, x = rng.integers(0, len(image) - h), rng.integers(0, len(image) - w)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


_NOISE = np.random.default_rng(3).normal(0, 1, (8, 256, 256, 3)).astype(np.float32)


def color_jitter(image, rng: np.random.Generator, strength: float) -> UInt8[np.ndarray, "s s 3"]:
    """Gain, tint, offset, sometimes grey, blur and sensor noise."""
    gain = (1 + rng.uniform(-1.3, 1.3) * strength) * (1 + rng.uniform(-0.5, 0.5, 3) * strength)
    offset = rng.uniform(-70, 70) * strength + rng.normal(0, 20, 3) * strength
    levels = np.arange(256)[:, None]
    table = np.clip((levels - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])
    if rng.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.4))
    if rng.random() < 0.5:
        s = len(image)
        y, x = rng.integers(0, 256 - s + 1, 2) if s <= 256 else (0, 0)
        field = _NOISE[rng.integers(8)]
        field = field[y : y + s, x : x + s] if s <= 256 else cv2.resize(field, (s, s))
        image = cv2.add(image, field * np.float32(rng.uniform(0, 30 * strength)), dtype=cv2.CV_8U)
    return image
