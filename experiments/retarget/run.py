"""How far retargeting leaves the robot from true hand poses, where the truth is known: generated sequences.

python experiments/retarget/run.py --root=DATA
"""

import argparse

import numpy as np

from amt.data.dexycb import DexYCB
from amt.robot import load_robot, retarget, retarget_errors
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
    start, rows, margins = 0, [], []
    for run in source.runs:
        indices = list(range(start, start + run.num_frames))
        start += run.num_frames
        if run.camera:
            continue
        T_world_camera = source[indices[0]]["T_world_camera"]
        hand = true_hand(source, indices)
        trajectory = retarget(hand, fps=FPS, T_world_camera=T_world_camera)
        rows.append(retarget_errors(trajectory, hand, T_world_camera=T_world_camera))
        qpos = np.asarray(trajectory.qpos)
        margins.append(np.minimum(qpos - robot.limits[:, 0], robot.limits[:, 1] - qpos).min())
    print(f"{len(rows)} sequences; closest to a joint limit: {min(margins):.4f} rad")
    for name in rows[0]:
        values = np.concatenate([row[name] for row in rows])
        print(f"{name:<28} mean {values.mean():7.2f}  p95 {np.percentile(values, 95):7.2f}  max {values.max():7.2f}")


if __name__ == "__main__":
    main()
