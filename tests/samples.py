"""Samples as the reader gives them and batches of them, without a data set: a posed hand, two objects."""

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from amt import hand as hand_model
from amt.data.contacts import FIRM, LIGHT, MANIPULATION, NONE, no_contacts
from amt.data.pipeline import stack
from amt.data.transforms import TransformConfig, network_sample
from amt.geometry import cameras
from amt.structs import Batch

WIDTH, HEIGHT = 640, 480
K = np.float32([[615, 0, 318.2], [0, 617, 243.9], [0, 0, 1]])
PLAIN = TransformConfig(
    crop="aligned",
    image_size=96,
    frame_size=128,
    crop_margin=1.35,
    crop_jitter=0.06,
    roll_jitter=0.25,
    rough_share=0.05,
    wrong_side_share=0.0,
    no_hand_share=0.08,
    color_jitter=0.3,
    min_visible_share=0.6,
)
NEVER_AWAY = {"no_hand_share": 0.0, "color_jitter": 0.0}
HAND = hand_model.load()
BLACK = cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()


def changed(**fields):
    return TransformConfig(**{**vars(PLAIN), **fields})


def make_sample(seed, is_left=False, distance=0.6, dot=None, contacts=False):
    """A sample as the reader gives it; black, with a white disc at the joint `dot`; `contacts`: simulated ones."""
    rng = np.random.default_rng(seed)
    hand_pose = np.concatenate([rng.normal(0, 1, 3), rng.normal(0, 0.3, 45), [0, 0, 0]]).astype(np.float32)
    betas = rng.normal(0, 1, 10).astype(np.float32)
    middle = np.asarray(HAND(hand_pose[:48], betas, hand_pose[48:])[0]).mean(0)
    hand_pose[48:] = [rng.uniform(-0.1, 0.1), rng.uniform(-0.06, 0.06), distance] - middle
    joints = np.asarray(HAND(hand_pose[:48], betas, hand_pose[48:])[0], np.float32)
    if is_left:  # any real left hand is the mirror image of some right one
        joints = joints * np.float32([-1, 1, 1])
    joints_2d = cameras.project(joints, K)
    object_pose = np.zeros((10, 3, 4), np.float32)
    object_pose[:2, :, :3] = Rotation.random(2, random_state=seed).as_matrix()
    object_pose[:2, :, 3] = joints[9] + [[0.02, 0.03, 0.02], [3.0, 0, 0]]
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if dot is not None:
        center = tuple(int(x) for x in np.round(joints_2d[dot] * 16))
        cv2.circle(image, center, 7 * 16, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    left_pose = hand_pose * np.float32([1, -1, -1] + [1] * 45 + [-1, 1, 1]) if is_left else hand_pose
    return {
        "color": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes(),
        "K": K,
        "T_world_camera": np.eye(4, dtype=np.float32),
        "betas": betas,
        "is_left": np.bool_(is_left),
        "joints_3d": joints,
        "joints_2d": joints_2d,
        "joints_valid": np.bool_(True),
        "hand_pose": left_pose,
        "hand_pose_valid": np.bool_(True),
        "left_basis": np.bool_(False),
        "object_pose": object_pose,
        "object_ids": np.int32([3, 21] + [0] * 8),
        "object_valid": np.arange(10) < 2,
        "grasped": np.int32(0),
        **(simulated_contacts(joints, seed) if contacts else no_contacts()),
    }


def simulated_contacts(joints, seed):
    """Four contacts at fingertips, of three kinds, with forces of a few newtons."""
    rng, contacts = np.random.default_rng([seed, 1]), no_contacts()
    contacts["contact_points"][:4] = joints[[4, 8, 12, 16]]
    contacts["contact_force"][:4] = rng.normal(0, 3, (4, 3))
    contacts["contact_kind"][:] = [LIGHT, FIRM, MANIPULATION, MANIPULATION] + [NONE] * 6
    contacts["contact_valid"][:4] = True
    return contacts | {"contact_known": np.bool_(True)}


def make_batch(size, seed=0, image_size=32, frame_size=32) -> Batch:
    """Jittered crops with labels; hands of both sides, a few samples without a hand, noise for pictures."""
    rng = np.random.default_rng(seed)
    config = changed(image_size=image_size, frame_size=frame_size, no_hand_share=0.25)
    batch = stack([network_sample(make_sample(1000 * seed + k, is_left=k % 3 == 2), rng, config) for k in range(size)])
    pictures = (rng.integers(0, 256, x.shape, np.uint8) for x in (batch.image, batch.frame))
    return batch.replace(**dict(zip(("image", "frame"), pictures, strict=True)))
