"""A contact sheet of generated data with its labels drawn: skeleton, contacts with their forces, object axes.

python experiments/data/sheet.py --root=DATA --out=docs/generated.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import yaml

from amt.data.files import Calibration, read_meta
from amt.data.ycb import OBJECTS
from amt.geometry import cameras
from amt.hand.skeleton import BONES_21

COLORS = ((90, 120, 255), (60, 205, 255), (110, 220, 90), (255, 170, 70), (255, 120, 205))  # thumb to little, BGR
PIXELS_PER_NEWTON = 5


def draw(folder: Path, serial: str, frame: int, meta: dict, K: np.ndarray) -> np.ndarray:
    """A frame with its labels."""
    image = cv2.imread(str(folder / serial / f"color_{frame:06d}.jpg"))
    labels = np.load(folder / serial / f"labels_{frame:06d}.npz")
    for value in np.unique(labels["seg"]):
        if value:
            outlines, _ = cv2.findContours((labels["seg"] == value).astype(np.uint8), cv2.RETR_EXTERNAL, 2)
            cv2.drawContours(image, outlines, -1, (255, 255, 255) if value == 255 else (0, 230, 230), 1)
    joints = labels["joint_2d"][0]
    for a, b in BONES_21:
        ends = [tuple(int(x) for x in joints[k] * 16) for k in (a, b)]
        cv2.line(image, *ends, COLORS[(b - 1) // 4], 3, cv2.LINE_AA, 4)
    pose = labels["pose_y"][meta["ycb_ids"].index(meta["ycb_ids"][meta["ycb_grasp_ind"]])]
    for axis, color in zip(np.eye(3), ((60, 60, 255), (60, 220, 60), (255, 120, 80)), strict=True):
        points = np.stack([pose[:, 3], pose[:, :3] @ axis * 0.05 + pose[:, 3]]).astype(np.float64)
        start, end = cameras.project(points, K)
        cv2.line(image, start.astype(int).tolist(), end.astype(int).tolist(), color, 2, cv2.LINE_AA)
    simulated = folder / serial / f"contacts_{frame:06d}.npz"
    contacts = np.load(simulated) if simulated.exists() else {"points": (), "forces": ()}
    for point, force in zip(contacts["points"], contacts["forces"], strict=True):
        ends = np.stack([point, point + force * (PIXELS_PER_NEWTON * point[2] / K[0, 0])]).astype(np.float64)
        start, end = cameras.project(ends, K)
        cv2.circle(image, start.astype(int).tolist(), 3, (130, 50, 255), -1, cv2.LINE_AA)
        cv2.arrowedLine(image, start.astype(int).tolist(), end.astype(int).tolist(), (130, 50, 255), 2, cv2.LINE_AA)
    return image


def tile(root: Path, folder: Path, meta: dict, size: tuple[int, int]) -> np.ndarray:
    """The grasp from the camera and at the moment of the second half at which most of hand and object is seen."""
    calibration, grasped = Calibration(root), meta["ycb_ids"][meta["ycb_grasp_ind"]]

    def seen(view):
        serial, frame = view
        labels = np.load(folder / serial / f"labels_{frame:06d}.npz")
        joints, (height, width) = labels["joint_2d"][0], labels["seg"].shape
        inside = ((joints > 10) & (joints < [width - 10, height - 10])).all(1).mean()
        extent = np.ptp(joints, axis=0).max() ** 2 + 1
        hand, held = (labels["seg"] == 255).sum() / extent, (labels["seg"] == grasped).sum() / extent
        return inside * (min(hand, 0.25) + min(held, 0.25))

    frames = range(round(0.5 * meta["num_frames"]), meta["num_frames"], 2)
    serial, frame = max(((s, n) for s in meta["serials"] for n in frames), key=seen)
    K = calibration.intrinsics(serial).astype(np.float64)
    image = draw(folder, serial, frame, meta, K)
    center = np.load(folder / serial / f"labels_{frame:06d}.npz")["joint_2d"][0].mean(0)
    extent = np.ptp(np.load(folder / serial / f"labels_{frame:06d}.npz")["joint_2d"][0], axis=0).max()
    half = int(np.clip(1.1 * extent, 60, min(230, *(n // 2 for n in image.shape[:2]))))
    x, y = (int(np.clip(c, half, n - half)) for c, n in zip(center, image.shape[1::-1], strict=True))
    image = cv2.resize(image[y - half : y + half, x - half : x + half], size, interpolation=cv2.INTER_AREA)
    name = OBJECTS[meta["ycb_ids"][meta["ycb_grasp_ind"]]].name[4:]
    cv2.putText(image, f"{name} {meta['mano_sides'][0]}", (4, 12), 0, 0.36, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, f"{name} {meta['mano_sides'][0]}", (4, 12), 0, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=190, help="pixels, a tile's side")
    parser.add_argument("--quality", type=int, default=80)
    args = parser.parse_args()
    tiles = {}
    for path in sorted(args.root.glob("*-subject-*/*/meta.yml")):
        meta = read_meta(path)
        if yaml.safe_load(path.read_text()).get("bare_hand"):
            continue
        key = (meta["mano_sides"][0], meta["ycb_ids"][meta["ycb_grasp_ind"]])
        if key not in tiles:
            tiles[key] = tile(args.root, path.parent, meta, (args.size, args.size))
    missing = [(side, i) for side in ("right", "left") for i in OBJECTS if i != 19 and (side, i) not in tiles]
    print(f"{len(tiles)} tiles; without: {missing}")
    blank = np.zeros((args.size, args.size, 3), np.uint8)
    order = [(side, i) for i in OBJECTS if i != 19 for side in ("right", "left")]
    shown = [tiles.get(key, blank) for key in order]
    rows = [np.concatenate(shown[k : k + 8], 1) for k in range(0, len(shown), 8)]
    cv2.imwrite(str(args.out), np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, args.quality])


if __name__ == "__main__":
    main()
