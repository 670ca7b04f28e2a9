"""Turns one camera's recording of a generated sequence into the embedded clip, its camera and its trial.

python experiments/demo_clip/make.py --root=DATA --sequence=NAME --serial=SERIAL --out=amt/inference/assets

The trial: where the robot stands, how, and where the object lies before it, as in an evaluation (`Lesson`).
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from amt.data.demonstrations import demonstration, recording
from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.inference.video import write_video
from amt.training import teacher

FPS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("root", "sequence", "serial", "out"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    source = DexYCB(args.root, "s0", "all")
    clips = [clip for clip in source.clips() if is_chosen(source.locate(clip[0]), args)]
    if not clips:
        raise SystemExit(f"{args.root}: no sequence {args.sequence} seen by {args.serial}")
    recorded = recording(source, clips[0])
    shown = demonstration(recorded)
    if shown.mirrored or not shown.ycb_id:
        raise SystemExit(f"{args.sequence}: expected a right hand that grasps an object")
    frames = np.stack([decode(s["color"]) for s in recorded.samples])
    write_video(out / "demo_clip.mp4", frames, FPS)
    plain = teacher.propose(shown, teacher.Start("fit"))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = plain.object_rot[0], plain.object_pos[0]
    said = {"T_base_world": plain.T_base_world, "home": plain.commands[0], "T_base_object": T}
    said = {"ycb_id": shown.ycb_id} | {name: x.round(6).tolist() for name, x in said.items()}
    camera = {"K": recorded.samples[0]["K"].tolist(), "T_world_camera": recorded.T_table_camera[0].tolist()}
    (out / "demo_clip.json").write_text(json.dumps(camera | {"trial": said}, indent=2) + "\n")
    cv2.imwrite(str(Path(args.root) / "demo_clip.png"), np.hstack(frames[:: len(frames) // 5])[..., ::-1])


def is_chosen(located, args) -> bool:
    sequence, camera, _ = located
    return sequence.folder.name == args.sequence and sequence.meta["serials"][camera] == args.serial


if __name__ == "__main__":
    main()
