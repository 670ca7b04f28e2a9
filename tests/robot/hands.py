"""Hands for the tests: from the robot's own motion, and a plain parametric one."""

import jax.numpy as jnp
import numpy as np

from amt.robot import forward, load_robot
from amt.structs import HandPose

TIPS = {"th_tip": 4, "ff_tip": 8, "mf_tip": 12, "rf_tip": 16}
REST = np.array([np.pi, -1.3, 1.8, -2.0, 1.4, 0.3] + [0.0, 0.5, 0.5, 0.5] * 3 + [0.9, 0.4, 0.5, 0.5])


def hand_pose(joints, valid=None, is_left=False) -> HandPose:
    joints = np.asarray(joints, np.float32)
    T = len(joints)
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (T, 3, 3))
    return HandPose(
        global_orient=eye,
        hand_pose=np.broadcast_to(eye[:, None], (T, 15, 3, 3)),
        betas=np.zeros((T, 10), np.float32),
        transl=np.zeros((T, 3), np.float32),
        joints=joints,
        vertices=np.zeros((T, 778, 3), np.float32),
        is_left=np.full(T, is_left),
        valid=np.ones(T, bool) if valid is None else np.asarray(valid),
    )


def smooth_motion(T: int, seed: int = 0) -> np.ndarray:
    """A robot motion [T,22] around a comfortable pose, well inside limits and velocities."""
    rng = np.random.default_rng(seed)
    phase, turns = rng.uniform(0, 2 * np.pi, 22), rng.uniform(0.5, 1.2, 22)
    angle = phase + turns * np.linspace(0, 1, T)[:, None] * 2 * np.pi
    amplitude = np.array([0.25] * 6 + [0.1, 0.3, 0.3, 0.3] * 3 + [0.2, 0.2, 0.3, 0.3])
    return REST + amplitude * np.sin(angle)


def joints_of_robot(qpos: np.ndarray) -> np.ndarray:
    """Human joints [T,21,3] in the base frame whose wrist, palm and tips are the robot's own."""
    frames = {k: np.asarray(v) for k, v in forward(load_robot(), jnp.asarray(qpos, jnp.float32)).items()}
    wrist = frames["wrist"]
    at = lambda offset: (wrist @ np.array([*offset, 1.0], np.float32))[:, :3]  # noqa: E731
    joints = np.repeat(at((0, 0, 0))[:, None], 21, axis=1)
    joints[:, 9], joints[:, 5], joints[:, 17] = at((0, 0, 0.09)), at((0, 0.025, 0.088)), at((0, -0.04, 0.075))
    for name, tip in TIPS.items():
        joints[:, tip] = frames[name][:, :3, 3]
        joints[:, tip - 1] = joints[:, tip] - 0.025 * frames[name][:, :3, 2]
    return joints


def parametric_joints(curl: float, size: float = 1.0) -> np.ndarray:
    """A right hand [21,3] in front of a camera, fingers up, palm to the camera; `curl` in radians a joint.

    In camera coordinates the fingers point to -y, the palm to -z and the thumb to +x.
    """
    joints = np.zeros((21, 3))
    for finger, (first, side) in enumerate([(5, 0.025), (9, 0.003), (13, -0.018), (17, -0.038)]):
        point, angle = np.array([side, -0.09 + 0.006 * abs(finger - 1), 0.0]), 0.0
        for joint, length in enumerate((0.0, 0.042, 0.026, 0.022)):
            angle += curl if joint else 0.0
            point = point + length * np.array([0.0, -np.cos(angle), -np.sin(angle)])
            joints[first + joint] = point
    joints[1:5] = [[0.03, -0.02, -0.01], [0.055, -0.045, -0.02], [0.07, -0.07, -0.03], [0.075, -0.09, -0.045]]
    return size * joints + np.array([0.0, 0.1, 0.6])
