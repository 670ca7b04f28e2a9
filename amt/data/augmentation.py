"""Augmentation on the device: pure functions of (key, sample), jitted and vmapped inside the train step.

A picture stays a true picture of its labels only if it is the camera that changes: it turns about its centre of
projection (pixels move by a homography, 3D labels turn) or gets another K (pixels and K change, 3D does not). All
geometric augmentations are such changes, composed into one turn R and one K, and the pixels are read once, through
K_new R K_old^-1 (Hartley and Zisserman 2004, section 8.4.2):

box          the crop's box shifted, scaled and rolled as a tracker's, now and then as a finder's
rotation     about a random axis
translation  the camera turns until the hand appears displaced by so many metres at its distance
scale        zoom
window       random resized crop: side and aspect change, the principal point with the window's place
wrong side   the mirror image, from which only the side is learned

What has no picture (`joint_noise`, `pixel_noise`) moves the points that the refiner starts from, never the labels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from amt.data import pixels
from amt.data.transforms import OBJECT_REACH, ROUGH_SCALE, ROUGH_SHIFT
from amt.errors import UserError
from amt.geometry import mirror, rotations
from amt.structs import Batch

BLUR_SIGMA = (0.1, 2.0)  # pixels
FACTORS = ("scale", "window_scale", "window_ratio", "brightness", "contrast", "saturation")
MOVES = ("box_shift", "box_scale", "box_roll", "rough_share", "rotation", "translation", "scale")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Fields are explained in configs/base.py; a share or a range of 0 switches an augmentation off.

    `image_size` is the side of the crop that the network sees, in pixels; the images given show `context` times its
    side. Without `joint_noise` and `pixel_noise` there is no `point_noise`.
    """

    image_size: int
    context: float
    min_visible_share: float
    wrong_side_share: float
    box_shift: float = 0.0
    box_scale: float = 0.0
    box_roll: float = 0.0
    rough_share: float = 0.0
    rotation: float = 0.0
    rotation_share: float = 0.0
    translation: float = 0.0
    translation_share: float = 0.0
    scale: float = 0.0
    scale_share: float = 0.0
    window_scale: float = 0.0
    window_ratio: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur_size: int = 0
    blur_share: float = 0.0
    joint_noise: float = 0.0
    joint_noise_share: float = 0.0
    pixel_noise: float = 0.0
    frame_mirror_share: float = 0.0

    def check(self) -> None:
        """Raises `UserError` for what is out of range, naming the field."""
        for name, value in vars(self).items():
            highest = 1.0 if name.endswith("_share") else 0.99 if name in FACTORS else float("inf")
            if not 0 <= value <= highest:
                raise UserError(f"config.data.augmentation.{name}={value}: expected 0 to {highest}")
        if self.blur_size and self.blur_size % 2 == 0:
            raise UserError(f"config.data.augmentation.blur_size={self.blur_size}: expected 0 or an odd number")
        if self.context < 1:
            raise UserError(f"config.data.context={self.context}: expected 1 or more, in sides of the crop")

    @property
    def colors(self) -> tuple[float, float, float, float]:
        return self.brightness, self.contrast, self.saturation, self.hue


def augment(key: Key[Array, ""], batch: Batch, config: AugmentConfig) -> Batch:
    """Every sample of a batch with a key of its own."""
    return augment_each(jax.random.split(key, jax.tree.leaves(batch)[0].shape[0]), batch, config)


def augment_each(keys: Key[Array, " batch"], batch: Batch, config: AugmentConfig) -> Batch:
    """As `augment`, with the keys given: on a mesh every device does its own samples.

    A CPU does one after the other: each stays in its cache, and is blurred only where it is drawn to be.
    """

    def each(key_and_sample):
        key, sample = key_and_sample
        if sample.image is not None:
            sample = augment_crop(jax.random.fold_in(key, 0), sample, config)
        if sample.frame is not None:
            sample = augment_frame(jax.random.fold_in(key, 1), sample, config)
        return sample

    def one_by_one(keys, batch):
        return jax.lax.map(each, (keys, batch))

    def at_once(keys, batch):
        return jax.vmap(each)((keys, batch))

    return jax.lax.platform_dependent(keys, batch, cpu=one_by_one, default=at_once)


def augment_crop(key: Key[Array, ""], sample: Batch, config: AugmentConfig) -> Batch:
    """One sample, without a batch axis: another crop, and all its labels in that crop's camera."""
    flat_key, normal_key, noise_key = jax.random.split(key, 3)
    # Few large draws: each call of the generator is a long program to compile and to run.
    turn, window, color, soft, (wrong,) = jnp.split(jax.random.uniform(flat_key, (20,)), (9, 13, 17, 19))
    side, flip = sample.image.shape[0], jnp.eye(3)
    if config.wrong_side_share:
        flipped = wrong < config.wrong_side_share
        sample = jax.tree.map(lambda a, b: jnp.where(flipped, a, b), _wrong_side(sample), sample)
        flip = jnp.where(flipped, jnp.asarray(mirror.flip_matrix(side), jnp.float32), flip)
    still = config.image_size == side and config.context == 1 and not config.wrong_side_share
    still = still and not any(getattr(config, name) for name in (*MOVES, "window_scale", "window_ratio"))
    if still:
        planes = pixels.to_planes(sample.image)
    else:
        R, zoom = _turn(turn, jax.random.normal(normal_key, (7,)), sample, config)
        K = _matmul(_window(window, side, zoom, config), sample.K)
        H_old_new = _matmul(_matmul(sample.K, R.T), _inverse(K))
        planes = pixels.warp(sample.image, _matmul(flip, H_old_new), config.image_size)
        sample = _labels(sample, R, K, config)
    planes = _appearance(planes, color, soft, config)
    return sample.replace(image=pixels.to_image(planes), point_noise=_point_noise(noise_key, config))


def _turn(
    flat: Float[Array, "9"], normal: Float[Array, "7"], sample: Batch, config
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """R_new_old of the camera, and how much it zooms in."""
    R, zoom = jnp.eye(3), jnp.ones(())
    rough, roll, turned, turned_on, x, y, moved_on, zoomed, zoomed_on = flat
    if config.rough_share or config.box_shift or config.box_scale or config.box_roll:
        rough = rough < config.rough_share
        shift = normal[:2] * jnp.where(rough, ROUGH_SHIFT, config.box_shift)
        grow = normal[2] * jnp.where(rough, ROUGH_SCALE, config.box_scale)
        roll = jnp.where(rough, (2 * roll - 1) * jnp.pi, normal[3] * config.box_roll)
        side = sample.image.shape[0]
        center = (side - 1) / 2 + shift * (side / config.context)
        ray = _matmul(_inverse(sample.K), jnp.append(center, 1.0)[:, None])[:, 0]
        R = _matmul(_about(jnp.asarray([0.0, 0, 1]) * roll), _to_axis(ray))
        zoom = jnp.exp(-grow)
    if config.rotation and config.rotation_share:
        angle = jnp.where(turned_on < config.rotation_share, (2 * turned - 1) * config.rotation, 0.0)
        R = _matmul(_about(normal[4:] / jnp.linalg.norm(normal[4:]) * angle), R)
    if config.translation and config.translation_share:
        distance = jnp.maximum(jnp.linalg.norm(sample.joints_3d.mean(0)), 0.1)  # joints are 0 where not known
        angles = jnp.arctan(jnp.stack([1 - 2 * y, 2 * x - 1, jnp.zeros(())]) * config.translation / distance)
        R = _matmul(_about(jnp.where(moved_on < config.translation_share, angles, 0.0)), R)
    if config.scale and config.scale_share:
        zoom = zoom * jnp.where(zoomed_on < config.scale_share, 1 + config.scale * (2 * zoomed - 1), 1.0)
    return R, zoom


def _window(flat: Float[Array, "4"], side: int, zoom, config) -> Float[Array, "3 3"]:
    """From pixels of the image given to those of the crop: K_new = window K_old."""
    scale, ratio, *place = 2 * flat - 1
    ratio = jnp.sqrt(1 + config.window_ratio * ratio)
    sides = (1 + config.window_scale * scale) * jnp.stack([ratio, 1 / ratio])  # in those of the crop
    place = jnp.stack(place) * jnp.abs(1 - sides) / 2  # smaller windows lie inside the crop, larger ones around it
    unit = side / config.context / zoom
    gain = config.image_size / (unit * sides)
    shift = (config.image_size - 1) / 2 - gain * ((side - 1) / 2 + place * unit)
    return jnp.eye(3).at[0, 0].set(gain[0]).at[1, 1].set(gain[1]).at[:2, 2].set(shift)


def _labels(sample: Batch, R, K, config) -> Batch:
    """All labels in the new camera; joints mostly outside the new crop are not learned from."""
    rays = _matmul(jnp.append(sample.joints_2d, jnp.ones((21, 1)), axis=1), _inverse(sample.K).T)
    seen = _matmul(rays, _matmul(K, R).T)
    joints_2d = seen[:, :2] / seen[:, 2:]
    object_pose = jnp.einsum("ij,njk->nik", R, sample.object_pose, precision="highest")
    inside = ((joints_2d > -0.5) & (joints_2d < config.image_size - 0.5)).all(-1)
    enough = inside.mean() >= config.min_visible_share
    center = object_pose[:, :, 3]
    ahead = center[:, 2] > 0.05
    uv = _matmul(jnp.where(ahead[:, None], center, jnp.asarray([[0.0, 0, 1]])), K.T)
    uv = uv[:, :2] / uv[:, 2:] / config.image_size
    near = ((uv > -OBJECT_REACH) & (uv < 1 + OBJECT_REACH)).all(-1)
    return sample.replace(
        K=K,
        R_crop_camera=_matmul(R, sample.R_crop_camera),
        joints_3d=_matmul(sample.joints_3d, R.T),
        joints_2d=joints_2d,
        object_pose=object_pose,
        joints_valid=sample.joints_valid & enough,
        hand_visible=sample.hand_visible & enough,
        shows_left=sample.shows_left & enough,
        hand_pose_valid=sample.hand_pose_valid & enough,
        object_valid=sample.object_valid & ahead & near & enough,
        contact_points=_matmul(sample.contact_points, R.T),
        contact_force=_matmul(sample.contact_force, R.T),
        contact_valid=sample.contact_valid & enough,
    )


def _wrong_side(sample: Batch) -> Batch:
    """The labels of the mirror image: a left hand where a right one was, of which only that is learned."""
    side = sample.image.shape[0]
    return sample.replace(
        K=mirror.mirror_intrinsics(sample.K, side),
        R_crop_camera=mirror.mirror_rotation(sample.R_crop_camera),
        joints_3d=mirror.mirror_points(sample.joints_3d),
        joints_2d=mirror.mirror_pixels(sample.joints_2d, side),
        hand_pose=mirror.mirror_hand_pose(sample.hand_pose),
        object_pose=mirror.mirror_object_pose(sample.object_pose),
        shows_left=sample.joints_valid,
        joints_valid=jnp.zeros_like(sample.joints_valid),
        hand_pose_valid=jnp.zeros_like(sample.hand_pose_valid),
        object_valid=jnp.zeros_like(sample.object_valid),
        contact_points=mirror.mirror_points(sample.contact_points),
        contact_force=mirror.mirror_points(sample.contact_force),
        contact_valid=jnp.zeros_like(sample.contact_valid),
    )


def _point_noise(key, config) -> Float[Array, "21 5"] | None:
    """What the refiner's first points are off by: metres all ways, and pixels across the view. It sees no label."""
    if not (config.joint_noise and config.joint_noise_share) and not config.pixel_noise:
        return None
    share, points = jax.random.split(key)
    on = jax.random.bernoulli(share, config.joint_noise_share)
    metres = jnp.tile(jnp.where(on, config.joint_noise, 0.0), 3)
    return jax.random.normal(points, (21, 5)) * jnp.append(metres, jnp.full(2, config.pixel_noise))[None]


def augment_frame(key: Key[Array, ""], sample: Batch, config: AugmentConfig) -> Batch:
    """One sample: the whole frame zoomed, turned in its plane, moved and mirrored, and the joints with it."""
    side = sample.frame.shape[0]
    view, color, soft = jnp.split(jax.random.uniform(key, (12,)), (6, 10))
    turn, on, zoom, mirrored, *place = view
    angle = jnp.where(on < config.rotation_share, (2 * turn - 1) * config.rotation, 0.0)
    zoom = 1 + config.window_scale * (2 * zoom - 1)
    place = (2 * jnp.stack(place) - 1) * jnp.abs(1 - zoom) / 2 * side
    mirrored = mirrored < config.frame_mirror_share
    sign = jnp.where(mirrored, -1.0, 1.0)
    c, s = jnp.cos(angle) * zoom, jnp.sin(angle) * zoom  # A maps new to old, about the middle
    A = jnp.stack([jnp.stack([c * sign, -s]), jnp.stack([s * sign, c])])
    middle = jnp.full((2,), (side - 1) / 2)
    H_old_new = jnp.eye(3).at[:2, :2].set(A).at[:2, 2].set(middle + place - _matmul(A, middle[:, None])[:, 0])
    still = not (config.window_scale or config.frame_mirror_share or (config.rotation and config.rotation_share))
    planes = pixels.to_planes(sample.frame) if still else pixels.warp(sample.frame, H_old_new, side)
    sample = sample.replace(frame=pixels.to_image(_appearance(planes, color, soft, config)))
    if still:
        return sample
    old = sample.frame_joints * side - 0.5 - (middle + place)[None]
    det = sign * zoom * zoom
    inverse = jnp.stack([jnp.stack([A[1, 1], -A[0, 1]]), jnp.stack([-A[1, 0], A[0, 0]])]) / det
    joints = (_matmul(old, inverse.T) + middle[None] + 0.5) / side
    inside = sample.frame_joints_valid & ((joints > 0) & (joints < 1)).all(-1)
    share = inside.mean()
    has_hand = sample.frame_has_hand & (share >= 0.5)
    return sample.replace(
        frame_joints=joints,
        frame_joints_valid=inside & has_hand,
        frame_has_hand=has_hand,
        frame_known=sample.frame_known & (has_hand | (share < 0.1)),
        frame_is_left=sample.frame_is_left ^ mirrored,
    )


def _appearance(planes, color: Float[Array, "4"], soft: Float[Array, "2"], config):
    """Colour and blur."""
    if any(config.colors):
        amounts = (2 * color - 1) * jnp.asarray(config.colors)
        planes = pixels.adjust_color(planes, 1 + amounts[0], 1 + amounts[1], 1 + amounts[2], amounts[3])
    if config.blur_size and config.blur_share:
        sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * soft[0]
        blurred = soft[1] < config.blur_share
        planes = jax.lax.cond(blurred, lambda x: pixels.blur(x, sigma, config.blur_size), lambda x: x, planes)
    return planes


def jitter_times(key: Key[Array, ""], num_frames: int, deviation: float) -> Float[Array, " num_frames"]:
    """Times of a sequence's frames, in frames, off by `deviation`; neighbours never change places."""
    off = jnp.clip(jax.random.normal(key, (num_frames,)) * deviation, -0.49, 0.49)
    return jnp.arange(num_frames, dtype=jnp.float32) + off


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")  # bfloat16 or TF32 would be off by pixels


def _about(axis_angle):
    return rotations.from_axis_angle(axis_angle)


def _to_axis(ray):
    """The shortest turn that takes a direction to the camera's axis."""
    x, y, z = ray / jnp.linalg.norm(ray)
    v = jnp.stack([y, -x, jnp.zeros(())])  # ray x (0, 0, 1)
    a, b = v[0], v[1]
    K = jnp.stack([jnp.stack([0 * a, 0 * a, b]), jnp.stack([0 * a, 0 * a, -a]), jnp.stack([-b, a, 0 * a])])
    return jnp.eye(3) + K + _matmul(K, K) / (1 + z)


def _inverse(K):
    """Of an upper triangular K with a last row (0, 0, 1)."""
    fx, s, cx, fy, cy = K[0, 0], K[0, 1], K[0, 2], K[1, 1], K[1, 2]
    one, zero = jnp.ones_like(fx), jnp.zeros_like(fx)
    return jnp.stack(
        [
            jnp.stack([1 / fx, -s / (fx * fy), (s * cy - cx * fy) / (fx * fy)]),
            jnp.stack([zero, 1 / fy, -cy / fy]),
            jnp.stack([zero, zero, one]),
        ]
    )
