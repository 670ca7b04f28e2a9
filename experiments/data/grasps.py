"""What simulated sequences are worth, by their files alone: lift, hold, penetration, labels; and the generator's speed.

python experiments/data/grasps.py --root=DATA
python experiments/data/grasps.py --speed
"""

import argparse
import collections
import dataclasses
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import yaml

from amt import hand as hand_model
from amt.data.contacts import signed_distance
from amt.data.files import Calibration, read_meta
from amt.data.objects import object_surface
from amt.data.synthetic.generator import GeneratorConfig, generate
from amt.data.synthetic.simulation import DURATION
from amt.data.ycb import OBJECTS
from amt.geometry import cameras, mirror

LIFT, HELD = 0.05, 0.5  # metres, seconds
HAND = 255


def vertices_of(hand, pose, betas, side):
    """Joints and vertices of labels, in the camera frame."""
    pose, transl = pose[:48], pose[48:]
    if side == "left":
        pose, transl = mirror.mirror_hand_pose(pose), mirror.mirror_points(transl)
    out = [np.asarray(x) for x in hand(pose, betas, transl)]
    return [mirror.mirror_points(x) for x in out] if side == "left" else out


def lifted_and_held(folder: Path, meta: dict) -> bool:
    """Whether the object is 5 cm above where it stood for the last half second, in contact with the hand."""
    height = np.load(folder / "pose.npz")["pose_y"][:, meta["ycb_grasp_ind"], 6]
    step = DURATION / meta["num_frames"]
    last = int(np.ceil(HELD / step)) + 1  # so many moments span it
    first = meta["num_frames"] - last
    held = height[first:] - height[0] >= LIFT
    for n in range(first, meta["num_frames"]):
        contacts = np.load(folder / meta["serials"][0] / f"contacts_{n:06d}.npz")
        held[n - first] &= (contacts["object"] == meta["ycb_ids"][meta["ycb_grasp_ind"]]).any()
    return bool(held.all())


def filled(pixels, faces, shape):
    """Pixels whose centres lie in a projected triangle."""
    mask = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    for triangle in np.round(((pixels + 0.5) * 4 - 0.5)[faces] * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1, shift=4)
    return mask[2::4, 2::4].astype(bool)


def measure(root: Path, every: int) -> None:
    hand, calibration = hand_model.load(), Calibration(root)
    kinds, reasons, objects = collections.Counter(), collections.Counter(), collections.Counter()
    held, depths, errors, drawn_inside, mesh_drawn, forces = [], [], [], [], [], []
    for path in sorted(root.glob("*-subject-*/*/meta.yml")):
        folder, meta, facts = path.parent, read_meta(path), yaml.safe_load(path.read_text())
        if facts.get("bare_hand"):
            continue
        k, side = meta["ycb_grasp_ind"], meta["mano_sides"][0]
        kinds.update([facts["grasp"]["kind"], facts["grasp"]["from"], side])
        reasons.update(facts["grasp"]["reasons"])
        objects[OBJECTS[meta["ycb_ids"][k]].name] += 1
        held.append(lifted_and_held(folder, meta))
        betas, surface = calibration.betas(meta), object_surface(root, meta["ycb_ids"][k])
        deepest = 0.0
        for n in range(meta["num_frames"]):
            for serial in meta["serials"][: None if n % every == 0 else 1]:
                labels = np.load(folder / serial / f"labels_{n:06d}.npz")
                joints, vertices = vertices_of(hand, labels["pose_m"][0], betas, side)
                if serial == meta["serials"][0]:
                    contacts = np.load(folder / serial / f"contacts_{n:06d}.npz")
                    forces += np.linalg.norm(contacts["forces"], axis=1).tolist()
                    pose = labels["pose_y"][k]
                    local = (vertices - pose[:, 3]) @ pose[:, :3]
                    deepest = max(deepest, -float(signed_distance(local, surface).min()))
                if n % every:
                    continue
                K = calibration.intrinsics(serial).astype(np.float64)
                projected = cameras.project(joints.astype(np.float64), K)
                errors.append(np.abs(projected - labels["joint_2d"][0]).max())
                seg = labels["seg"]
                mask = filled(cameras.project(vertices.astype(np.float64), K), hand.faces, seg.shape)
                drawn = seg == HAND
                if drawn.sum() > 50:
                    drawn_inside.append((drawn & mask).sum() / drawn.sum())
                    mesh_drawn.append((drawn & mask).sum() / max((mask & ((seg == 0) | drawn)).sum(), 1))
        depths.append(deepest)
    depths, inside = np.array(depths) * 1000, np.array(drawn_inside)
    median, most, largest = np.median(depths), np.percentile(depths, 90), depths.max()
    for what, figure in {
        "sequences": f"{len(held)}, of {len(objects)} objects",
        "kinds": dict(sorted(kinds.items())),
        "grasps discarded": f"{sum(reasons.values())} {dict(sorted(reasons.items()))}",
        "lifted 5 cm and held 0.5 s": f"{np.mean(held):.1%}",
        "deepest penetration": f"median {median:.2f} mm, 90% {most:.2f} mm, largest {largest:.2f} mm",
        "forces of contacts": "median {:.1f} N, 90% {:.1f} N, largest {:.1f} N".format(
            *np.percentile(forces, [50, 90, 100])
        ),
        "pose_m through the hand and K to joint_2d": f"largest {max(errors):.4f} px, {len(errors)} views",
        "hand pixels in the projected mesh": f"median {np.median(inside):.2%}, 5% {np.percentile(inside, 5):.2%}",
        "unhidden pixels of the mesh drawn as hand": f"median {np.median(mesh_drawn):.2%}",
    }.items():
        print(f"{what:42} {figure}")


def speed() -> None:
    """Frames per second of one core's time, all files: a whole simulated sequence, and some of single views."""
    physical = GeneratorConfig(
        num_sequences=1, num_subjects=1, num_frames=72, num_cameras=8, width=640, height=480, seed=5, gesture_share=0.0,
        photographs="", grasps="physical",
    )  # fmt: skip
    views = {"num_sequences": 4, "num_frames": 64, "width": 320, "height": 240, "gesture_share": 0.4}
    for config in (physical, dataclasses.replace(physical, grasps="crops", **views)):
        with tempfile.TemporaryDirectory() as root:
            list(generate(dataclasses.replace(config, num_sequences=1, num_frames=2), Path(root) / "warm", 0))
            cpu, wall = time.process_time(), time.monotonic()
            list(generate(config, Path(root) / "timed", 0))
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        frames = config.num_sequences * config.num_frames * config.cameras_each
        rates = f"{frames / cpu:.1f} frames/s of CPU time, {frames / wall:.1f} frames/s by the clock"
        print(f"{config.grasps}, {frames} frames: {rates}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--every", type=int, default=4, help="views of every n-th frame are compared")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    if args.root:
        measure(args.root, args.every)
    if args.speed:
        speed()


if __name__ == "__main__":
    main()
