"""Seconds that scoring a results file takes: made-up labels, models and predictions. See README.md."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

SERIALS = ("836212060125", "839512060362", "840412060917", "841412060263",
           "932122060857", "932122060861", "932122061900", "932122062010")  # fmt: skip
SEQUENCE_FRAMES = 72  # of each of 8 cameras
IDS = [1, 5, 13, 18]  # of every sequence; three of them look the same after any turn about an axis


def write_data(root: Path, num_frames: int) -> int:
    """Labels as DexYCB has them, with a segmentation, and one black image; the number of frames."""
    import cv2

    (root / "calibration/intrinsics").mkdir(parents=True)
    for name in ("extrinsics_a", "mano_a"):
        (root / "calibration" / name).mkdir()
    for serial in SERIALS:
        save(root / f"calibration/intrinsics/{serial}_640x480.yml", {"color": dict(fx=615, fy=615, ppx=320, ppy=240)})
    save(
        root / "calibration/extrinsics_a/extrinsics.yml",
        {"extrinsics": {s: np.eye(4)[:3].ravel().tolist() for s in SERIALS}},
    )
    save(root / "calibration/mano_a/mano.yml", {"betas": [0.0] * 10})
    rng, count, sequence = np.random.default_rng(0), 0, 0
    while count < num_frames:
        folder = root / "20200820-subject-03" / f"20200820_{sequence:06d}"
        meta = dict(serials=list(SERIALS), num_frames=SEQUENCE_FRAMES, extrinsics="a", ycb_ids=IDS, ycb_grasp_ind=0)
        for serial in SERIALS:
            (folder / serial).mkdir(parents=True)
            for frame in range(SEQUENCE_FRAMES):
                np.savez_compressed(folder / serial / f"labels_{frame:06d}.npz", **labels(rng))
        save(folder / "meta.yml", meta | {"mano_sides": ["right"], "mano_calib": ["a"]})
        count += len(SERIALS) * SEQUENCE_FRAMES
        sequence += 1
    black = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes()
    (root / "20200820-subject-03/20200820_000000" / SERIALS[0] / "color_000000.jpg").write_bytes(black)
    return count


def write_models(folder: Path) -> None:
    """Official models: ellipsoids of 5000 points, three of them with an axis of symmetry."""
    folder.mkdir(parents=True)
    axis, info = {"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]}, {}
    for ycb_id in IDS:
        points = np.random.default_rng(ycb_id).normal(size=(5000, 3))
        points *= np.array([40, 40, 70]) / np.linalg.norm(points, axis=-1, keepdims=True)
        info[ycb_id] = {"diameter": 140.0, **(axis if ycb_id != IDS[1] else {})}
        faces = ConvexHull(points).simplices
        properties = "property float x\nproperty float y\nproperty float z\n"
        head = f"ply\nformat ascii 1.0\nelement vertex 5000\n{properties}element face {len(faces)}\n"
        with (folder / f"obj_{ycb_id:06d}.ply").open("w") as file:
            file.write(head + "property list uchar int vertex_indices\nend_header\n")
            np.savetxt(file, points, "%.4f")
            np.savetxt(file, np.insert(faces, 0, 3, 1), "%d")
    (folder / "models_info.json").write_text(json.dumps(info))


def labels(rng) -> dict[str, np.ndarray]:
    """A hand and four objects before the camera, and rectangles of them."""
    seg = np.zeros((480, 640), np.uint8)
    for label in (*IDS, 255):
        x, y = rng.integers(0, 500), rng.integers(0, 380)
        seg[y : y + 80, x : x + 100] = label
    joints = rng.normal(0, 0.05, (1, 21, 3)) + [0, 0, 0.8]
    poses = [
        Rotation.random(len(IDS), random_state=rng).as_matrix(),
        rng.normal(0, 0.1, (len(IDS), 3, 1)) + [[0], [0], [0.8]],
    ]
    return {
        "seg": seg,
        "pose_y": np.concatenate(poses, -1).astype(np.float32),
        "pose_m": np.full((1, 51), 0.1, np.float32),
        "joint_3d": joints.astype(np.float32),
        "joint_2d": (joints[..., :2] / joints[..., 2:] * 615 + [320, 240]).astype(np.float32),
    }


def write_results(source, folder: Path) -> None:
    """Labels with noise in all three formats."""
    from amt.evaluation.official import bop, coco, hpe
    from amt.evaluation.official.ids import bop_ids

    rng, ids = np.random.default_rng(1), bop_ids(source)
    with (folder / "a.txt").open("w") as hands, (folder / "a.csv").open("w") as objects:
        items = []
        for i in range(len(source)):
            sample = source.labels(i)
            hands.write(hpe.lines(np.array([i]), (sample["joints_3d"] + rng.normal(0, 0.02, (21, 3)))[None]))
            uv = sample["joints_2d"] + rng.normal(0, 4, (21, 2))
            items.append(coco.detection(i, coco.HAND, 0.5, uv, (640, 480), uv))
            for k, ycb_id in enumerate(IDS):
                pose = sample["object_pose"][k].astype(float) + np.c_[np.zeros((3, 3)), rng.normal(0, 0.02, 3)]
                target = int(ids.scene[i]), int(ids.image[i]), ycb_id
                if ids.image[i] % 4 == 0:
                    objects.write(bop.line(target, 0.5, pose))
                points = pose[:, 3] + rng.normal(0, 0.05, (8, 3))
                outline = points[:, :2] / np.maximum(points[:, 2:], 0.1) * 615 + [320, 240]
                items.append(coco.detection(i, ycb_id, 0.5, outline, (640, 480)))
    (folder / "a.json").write_text(json.dumps([item for item in items if item]))


def save(path: Path, content) -> None:
    path.write_text(yaml.safe_dump(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    arguments = parser.parse_args()
    from amt.data.dexycb import DexYCB

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write_data(folder / "data", arguments.frames)
        write_models(folder / "data/bop/s0/models_eval")
        write_results(DexYCB(folder / "data", "s0", "all"), folder)
        print(f"{count} frames, {os.cpu_count()} cores")
        for suffix in ("txt", "csv", "json"):
            flags = [f"--input={folder}/a.{suffix}", f"--workdir={folder}/out", f"--config.data.root={folder}/data"]
            command = [sys.executable, "launch.py", "--mode=evaluate", *flags, "--config.eval.part=all"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("evaluate_s"))
            print(f"{suffix}: scoring {seconds} s; processor time of the whole command {processor:.1f} s", flush=True)


if __name__ == "__main__":
    main()
