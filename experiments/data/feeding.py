"""Compares ways to feed the train step: the tree, packed shards, the device cache, and torch's DataLoader with cv2."""

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import jax
import numpy as np

from amt.data.dexycb import DexYCB
from amt.data.images import fit_frame
from amt.data.packed import make_plan, open_source, pack
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.evaluation.throughput import contenders, shares, streamed, take_turns
from amt.geometry import cameras, mirror
from amt.modes.train import augment_config
from amt.training.sharding import make_mesh
from configs import demo


def torch_turn(source, read, augmentation, batch_size: int, batches: int):
    """A DataLoader in this process that decodes, warps once with jitter, and changes colour and blur with cv2."""
    try:
        import torch
    except ImportError as error:
        raise UserError("torch is not installed: pip install -e '.[parity]', or --without_torch") from error
    torch.set_num_threads(1)

    class Dataset(torch.utils.data.Dataset):
        def __len__(self):
            return len(source)

        def __getitem__(self, i):
            return torch_sample(source[i], np.random.default_rng(i), read, augmentation)

    def turn():
        loader = torch.utils.data.DataLoader(Dataset(), batch_size, shuffle=True, num_workers=0)
        for _, batch in zip(range(batches), loader, strict=False):
            assert len(batch["image"]) == batch_size

    return turn


def torch_sample(sample, rng, read, augmentation) -> dict:
    """The same augmentations as on the device, the usual way: numpy for the labels, OpenCV for the pixels."""
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(sample["color"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    original, pixels_2d = image, sample["joints_2d"].astype(np.float64)
    if sample["is_left"]:
        image, sample = cv2.flip(image, 1), mirror_one(sample, image.shape[1])
    K, size, a = sample["K"].astype(np.float64), augmentation.image_size, augmentation
    box = cameras.hand_box(sample["joints_2d"].astype(np.float64), read.crop_margin)
    box = cameras.Box(
        box.center + rng.normal(0, a.box_shift, 2) * box.size,
        box.size / a.context * np.exp(rng.normal(0, a.box_scale)) * (1 + rng.uniform(-1, 1) * a.window_scale),
        box.angle + rng.normal(0, a.box_roll),
    )
    crop = cameras.crop_camera(K, box, size)
    axis = rng.normal(size=3)
    turn = cv2.Rodrigues(axis / np.linalg.norm(axis) * rng.uniform(-1, 1) * a.rotation)[0]
    H = crop.K @ turn @ np.linalg.inv(crop.K) @ crop.H_crop_image
    R = turn @ crop.R_crop_camera
    pixels = appearance(cv2.warpPerspective(image, H, (size, size), flags=cv2.INTER_LINEAR), rng, a)
    H_frame = fit_frame(original.shape[1], original.shape[0], read.frame_size)
    side = (read.frame_size, read.frame_size)
    small = cv2.resize(original, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    frame = cv2.warpAffine(small, (H_frame @ np.diag([2.0, 2, 1]))[:2], side, flags=cv2.INTER_LINEAR)
    return {
        "image": pixels,
        "frame": appearance(frame, rng, a),
        "frame_joints": np.float32(cameras.warp_points(H_frame, pixels_2d)),
        "K": np.float32(crop.K),
        "R_crop_camera": np.float32(R),
        "joints_3d": np.float32(cameras.rotate(R, sample["joints_3d"].astype(np.float64))),
        "joints_2d": np.float32(cameras.warp_points(H, sample["joints_2d"].astype(np.float64))),
        "object_pose": np.float32(np.einsum("ij,njk->nik", R, sample["object_pose"].astype(np.float64))),
        "hand_pose": sample["hand_pose"][:48],
        **{k: sample[k] for k in ("betas", "object_ids", "object_valid", "joints_valid", "grasped")},
    }


def mirror_one(sample, width: int) -> dict:
    return sample | {
        "K": mirror.mirror_intrinsics(sample["K"], width),
        "joints_3d": mirror.mirror_points(sample["joints_3d"]),
        "joints_2d": mirror.mirror_pixels(sample["joints_2d"], width),
        "hand_pose": mirror.mirror_hand_pose(sample["hand_pose"][:48]),
        "object_pose": mirror.mirror_object_pose(sample["object_pose"]),
    }


def appearance(image, rng, a):
    """Brightness, contrast, saturation, hue and blur in OpenCV."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * (a.brightness, a.contrast, a.saturation)
    image = cv2.convertScaleAbs(image, alpha=brightness)
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    image = cv2.convertScaleAbs(image, alpha=contrast, beta=(1 - contrast) * mean)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(rng.uniform(-a.hue, a.hue) * 180)) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=saturation)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < a.blur_share:
        image = cv2.GaussianBlur(image, (a.blur_size, a.blur_size), rng.uniform(0.1, 2))
    return image


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True, help="a data set in the DexYCB layout")
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--batches", type=int, default=4, help="in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without_torch", action="store_true")
    args = parser.parse_args()
    config = demo.get_config()
    config.data.image_size = args.image_size
    read, augmentation = augment_config(config)
    mesh, size = make_mesh(-1, 1, 1), config.train.batch_size
    tree = DexYCB(args.root, part="all")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in pack(tree, make_plan(tree, 4096), folder):
            pass
        packed = open_source(folder, "s0", "all")
        quarantine = Quarantine(folder)
        turns = contenders(packed, read, augmentation, mesh, size, args.batches, quarantine)
        from_tree = streamed(tree, read, augmentation, mesh, size, args.batches)
        turns |= {f"tree_{name}": turn for name, turn in from_tree.items()}
        if not args.without_torch:
            turns["torch"] = torch_turn(tree, read, augmentation, size, args.batches)
        rates = take_turns(turns, args.batches * size, args.rounds)
    print(f"{len(tree)} samples, crops of {args.image_size} px, batches of {size}, {jax.devices()[0].device_kind}")
    for of in ("decode_warp", "torch", "host"):
        print(
            "".join(f"{name} / {of} {share:.2f}  " for name, share in shares(rates, of).items()) if of in rates else ""
        )
    for name, values in rates.items():
        print(
            f"{name:<15} {np.median(values):8.0f} samples per processor second ({min(values):.0f} to {max(values):.0f})"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
