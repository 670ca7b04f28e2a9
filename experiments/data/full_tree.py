"""Writes the folders, meta.yml and calibration of a data set of DexYCB's full size, without frames; times start-up.

The reader opens no frame at start-up, so the 582,000 images and labels would change nothing.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import yaml

from amt.data.dexycb import DexYCB
from amt.data.index import index_path
from amt.data.layout import SERIALS, SUBJECTS

SEQUENCES = 100  # of every subject


def write(root: Path, calibrations: str) -> None:
    """`calibrations`: few, as in DexYCB, or many, one of every sequence as the generator writes them."""
    calibration = root / "calibration"
    (calibration / "intrinsics").mkdir(parents=True)
    for serial in SERIALS:
        color = {"fx": 615.1, "fy": 615.2, "ppx": 320.3, "ppy": 240.4}
        save(calibration / "intrinsics" / f"{serial}_640x480.yml", {"color": color, "depth": color})
    for subject in SUBJECTS:
        for i in range(SEQUENCES):
            name = f"{subject[:8]}_{i:06d}"
            shared = name if calibrations == "many" else subject[:8]
            # 588 of s0 train's sequences have 73 frames, all others 72: 465,504 samples in s0 train
            number = SUBJECTS.index(subject) * 80 + i - i // 5
            meta = {
                "extrinsics": shared,
                "mano_calib": [f"{shared}_right"],
                "mano_sides": ["right"],
                "num_frames": 73 if i % 5 != 4 and number < 588 else 72,
                "serials": list(SERIALS),
                "ycb_grasp_ind": 0,
                "ycb_ids": [1, 5, 10, 15],
            }
            folder = root / subject / name
            for serial in SERIALS:
                (folder / serial).mkdir(parents=True)
            save(folder / "meta.yml", meta)
            if not (calibration / f"extrinsics_{shared}").exists():
                (calibration / f"extrinsics_{shared}").mkdir()
                (calibration / f"mano_{shared}_right").mkdir()
                rows = {serial: [0.123456789012 * k for k in range(12)] for serial in (*SERIALS, "apriltag")}
                extrinsics = {"extrinsics": rows, "master": SERIALS[0]}
                save(calibration / f"extrinsics_{shared}" / "extrinsics.yml", extrinsics)
                save(calibration / f"mano_{shared}_right" / "mano.yml", {"betas": [0.1] * 10})


def save(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content))


def start(root: Path) -> None:
    """One start in this process; prints samples, seconds and memory."""
    before = memory_mb()
    begin = time.perf_counter()
    source = DexYCB(root, "s0", "train")
    seconds = time.perf_counter() - begin
    print(
        f"{len(source)} samples, {seconds:.2f} s, {memory_mb():.0f} MB, of which {memory_mb() - before:.0f} MB data set"
    )


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--calibrations", choices=("few", "many"), default="few")
    parser.add_argument("--start", action="store_true", help="only start, in this process")
    args = parser.parse_args()
    if args.start:
        start(args.root)
    else:
        if not args.root.exists():
            write(args.root, args.calibrations)
        index_path(args.root).unlink(missing_ok=True)
        for name in ("cold", "warm", "warm"):
            print(name, end=": ", flush=True)
            subprocess.run([sys.executable, __file__, "--start", f"--root={args.root}"], check=True, env=os.environ)
        print(f"index: {index_path(args.root).stat().st_size / 1e6:.1f} MB")
