"""Quality and speed of retargeting on what a tracker sees of a real hand: fingertips, jitter, lag, pinches, velocity.

taskset -c 1 python experiments/retarget/keypoints.py --keypoints=FILE.npz [--scale=1.2 | fit]

The file has `joints_3d` [T,21,3] in metres, of a right hand, 30 frames per second.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"  # one core

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from amt.robot import Motion, fit_hand, follow, load_robot, self_depth
from amt.robot.human import TIPS, hand_targets
from amt.robot.residuals import REST_HAND, TIP_RADIUS, palm_tips
from amt.robot.streaming import start, step

FPS, MAX_VELOCITY = 30.0, 3.14
ARM = np.array([np.pi, -1.6, 1.7, -1.57, 1.57, 0.0])  # the hand hangs still in front of the base
MAX_LAG, PINCH, CLOSED = 8, 0.03, 0.005
DEPTHS = (0.002, 0.005)  # metres that links are in each other


def motion_of(joints: np.ndarray) -> Motion:
    """One trajectory, padded to a multiple of 64 frames."""
    padded = np.minimum(np.arange(-(-len(joints) // 64) * 64), len(joints) - 1)
    weight = jnp.asarray(np.arange(len(padded)) < len(joints), jnp.float32)
    rate = jnp.full(22, 0.999 * MAX_VELOCITY / FPS, jnp.float32)
    nothing = jnp.zeros((len(padded), 4, 3), jnp.float32)
    return Motion(jnp.asarray(joints[padded]), weight, weight, rate, nothing, nothing[..., 0])


def lag(followed: np.ndarray, wanted: np.ndarray) -> int:
    """Frames by which velocities of `followed` come after those of `wanted`: the largest cross-correlation."""
    a, b = (np.diff(x.reshape(len(x), -1), axis=0) for x in (wanted, followed))
    middle = slice(MAX_LAG, len(a) - MAX_LAG)
    shifts = range(-MAX_LAG, MAX_LAG + 1)
    return max(shifts, key=lambda k: np.sum(a[middle] * b[middle.start + k : middle.stop + k]))


def report(name: str, robot, joints: np.ndarray, fit, q: np.ndarray) -> None:
    """One row of the table; joints and errors of the hand only, since the file has no path of the wrist."""
    hand = q[:, 6:]
    wanted = hand_targets(robot, joints, fit).tips
    tips = np.asarray(palm_tips(robot, jnp.asarray(hand))[0])
    error = 1e3 * np.linalg.norm(tips - wanted, axis=-1)
    closed = []
    for finger in range(3):
        pinched = np.linalg.norm(joints[:, TIPS[3]] - joints[:, TIPS[finger]], axis=-1) < PINCH
        gap = np.linalg.norm(tips[pinched, 3] - tips[pinched, finger], axis=-1) - 2 * TIP_RADIUS
        closed.append(f"{(gap < CLOSED).sum()}/{len(gap)}")
    jitter = np.abs(np.diff(hand, n=2, axis=0)).mean()
    fastest = np.abs(np.diff(q, axis=0)).max() * FPS
    margin = np.minimum(q - robot.limits[:, 0], robot.limits[:, 1] - q).min()
    depth = self_depth(q, robot)
    inside = " / ".join(f"{100 * (depth > limit).mean():.1f} %" for limit in DEPTHS)
    print(
        f"| {name} | {error.mean():.2f} | {jitter:.4f} | {lag(tips, wanted)} | {', '.join(closed)} | {fastest:.3f} "
        f"| {margin:.4f} | {inside} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keypoints", required=True)
    parser.add_argument("--scale", default="1.2")
    parser.add_argument("--unfitted", action="store_true", help="wrist on wrist, palm on palm")
    args = parser.parse_args()
    robot = load_robot()
    joints = np.load(args.keypoints)["joints_3d"].astype(np.float32)
    fit = fit_hand(robot, joints, args.scale if args.scale == "fit" else float(args.scale))
    if args.unfitted:
        fit = fit.replace(rotation=np.eye(3, dtype=np.float32), offset=np.zeros(3, np.float32))
    print(f"scale {fit.scale:.3f}, shift {1e3 * fit.offset} mm, tilt\n{fit.rotation}")
    joints = joints + np.array([0.5, 0.0, 0.3], np.float32)

    motion, arm = motion_of(joints), jnp.asarray(ARM, jnp.float32)
    seconds = []
    for _ in range(6):
        begin = time.process_time()
        q = np.asarray(follow(robot, motion, fit, arm))[: len(joints)]
        seconds.append(time.process_time() - begin)
    report("offline", robot, joints, fit, q)
    each = min(seconds[1:])
    print(f"offline: {len(joints) / each:.0f} frames per second of one core's time, all 22 joints")

    fit = jax.tree.map(jnp.asarray, fit)
    first = jnp.asarray(np.concatenate([ARM, REST_HAND]), jnp.float32)
    stream = start(robot, joints[0], fit, first)
    step(robot, stream, joints[0], fit, motion.rate)
    commands, seconds = [], []
    for frame in joints:
        begin = time.process_time()
        stream, command = step(robot, stream, frame, fit, motion.rate)
        commands.append(np.asarray(command))
        seconds.append(time.process_time() - begin)
    report("streaming", robot, joints, jax.tree.map(np.asarray, fit), np.stack(commands))
    median, slow = np.percentile(seconds, [50, 95])
    print(f"streaming: {1e3 * median:.2f} ms a frame (median; 95th percentile {1e3 * slow:.2f}) of one core's time")


if __name__ == "__main__":
    main()
