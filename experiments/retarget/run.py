"""Retargeting from true hand poses: what is left of the error, self-contact, time. On generated sequences.

python experiments/retarget/run.py --root=DATA
"""

import argparse
import time

import numpy as np

from amt.data.dexycb import DexYCB
from amt.robot import load_robot, retarget, retarget_errors, self_depth
from amt.structs import HandPose

FPS = 30.0


def true_hand(source: DexYCB, indices: list[int]) -> HandPose:
    """Only what retargeting reads is true: joints, side, validity."""
    samples = [source[i] for i in indices]
    n = len(samples)
    return HandPose(
        global_orient=np.tile(np.eye(3), (n, 1, 1)),
        hand_pose=np.tile(np.eye(3), (n, 15, 1, 1)),
        betas=np.zeros((n, 10)),
        transl=np.zeros((n, 3)),
        joints=np.stack([s["joints_3d"] for s in samples]),
        vertices=np.zeros((n, 778, 3)),
        is_left=np.zeros(n, bool),
        valid=np.ones(n, bool),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    source = DexYCB(parser.parse_args().root, "s0", "all")
    robot = load_robot()
    start, rows, margins, seconds = 0, [], [], []
    for run in source.runs:
        indices = list(range(start, start + run.num_frames))
        start += run.num_frames
        if run.camera:
            continue
        T_world_camera = source[indices[0]]["T_world_camera"]
        hand = true_hand(source, indices)
        begin = time.process_time()
        trajectory = retarget(hand, fps=FPS, T_world_camera=T_world_camera)
        seconds.append((time.process_time() - begin) / run.num_frames)
        qpos = np.asarray(trajectory.qpos)
        errors = retarget_errors(trajectory, hand, T_world_camera=T_world_camera)
        rows.append(errors | {"self_depth_mm": 1e3 * self_depth(qpos)})
        margins.append(np.minimum(qpos - robot.limits[:, 0], robot.limits[:, 1] - qpos).min())
    print(f"{len(rows)} sequences; closest to a joint limit: {min(margins):.4f} rad")
    print(f"fit, base and commands of a compiled length: {1e3 * min(seconds):.2f} ms a frame of processor time")
    for name in rows[0]:
        values = np.concatenate([row[name] for row in rows])
        print(f"{name:<28} mean {values.mean():7.2f}  p95 {np.percentile(values, 95):7.2f}  max {values.max():7.2f}")
    depth = np.concatenate([row["self_depth_mm"] for row in rows])
    print("links in each other: " + ", ".join(f"> {x} mm {100 * (depth > x).mean():.1f} %" for x in (2, 5)))


if __name__ == "__main__":
    main()
