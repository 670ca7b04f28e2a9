"""Turns one camera's recording of a generated sequence into the embedded clip and its camera.

python experiments/demo_clip/make.py --root=DATA --sequence=NAME --serial=SERIAL --out=amt/inference/assets
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.inference.video import write_video

FPS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("root", "sequence", "serial", "out"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        source = DexYCB(args.root, "s0", part)
        samples = [source[i] for i in range(len(source)) if is_chosen(source.locate(i), args)]
        if samples:
            break
    else:
        raise SystemExit(f"{args.root}: no sequence {args.sequence} seen by {args.serial}")
    frames = np.stack([decode(s["color"]) for s in samples])
    write_video(out / "demo_clip.mp4", frames, FPS)
    camera = {"K": samples[0]["K"].tolist(), "T_world_camera": samples[0]["T_world_camera"].tolist()}
    (out / "demo_clip.json").write_text(json.dumps(camera, indent=2) + "\n")
    cv2.imwrite(str(Path(args.root) / "demo_clip.png"), np.hstack(frames[:: len(frames) // 5])[..., ::-1])


def is_chosen(located, args) -> bool:
    sequence, camera, _ = located
    return sequence.folder.name == args.sequence and sequence.meta["serials"][camera] == args.serial


if __name__ == "__main__":
    main()
