"""A hand around an object on the table, in poses that were found by inverse kinematics, and the same in MuJoCo C."""

import mujoco
import numpy as np

from amt import physics
from amt.robot import SceneObject, build_scene

# The palm stands upright behind the object, index finger on top, fingers around it; see experiments/gradient_check.
ARM = [3.34997138, -0.46715272, 1.78368835, -4.45812829, 2.93321393, -3.14159265]
ARM_LIFTED = [3.34997138, -0.69799106, 1.86933167, -4.31293326, 2.93321393, -3.14159265]
OPEN = [0.0, 0.5, 0.5, 0.5] * 3 + [1.35, 0.2, 0.1, 0.3]
CLOSED = [0.0, 1.1, 0.9, 0.7] * 3 + [1.35, 0.4, 0.6, 0.9]
OPENED, SQUEEZED, LIFTED = (np.array([*a, *h]) for a, h in ((ARM, OPEN), (ARM, CLOSED), (ARM_LIFTED, CLOSED)))
SIZES = {"box": (0.03, 0.03, 0.05), "cylinder": (0.034, 0.05), "capsule": (0.034, 0.03)}
HEIGHTS = {"box": 0.05, "cylinder": 0.05, "capsule": 0.064}


def scene(shape: str, **kwargs) -> mujoco.MjSpec:
    return build_scene([SceneObject("object", shape, SIZES[shape], pos=(0.5, 0.0, HEIGHTS[shape]), **kwargs)])


def converged(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The chosen contacts in MuJoCo C, solved to the end."""
    model = physics.chosen(spec)
    model.opt.tolerance = 0.0
    model.opt.iterations = model.opt.ls_iterations = 100
    model.opt.ls_tolerance = 1e-10
    return model


def play(model: mujoco.MjModel, start, controls, substeps=5) -> np.ndarray:
    """qpos after every command; `start` is (qpos, qvel, last acceleration)."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = start
    found = []
    for ctrl in controls:
        data.ctrl[:] = ctrl
        for _ in range(substeps):
            mujoco.mj_step(model, data)
        found.append(data.qpos.copy())
    return np.array(found)


def still(model: mujoco.MjModel, robot) -> tuple[np.ndarray, ...]:
    """At rest with the robot at these joint angles."""
    qpos = model.qpos0.copy()
    qpos[:22] = robot
    return qpos, np.zeros(model.nv), np.zeros(model.nv)


def held(model: mujoco.MjModel, steps: int) -> tuple[np.ndarray, ...]:
    """After squeezing for so many timesteps from open."""
    data = mujoco.MjData(model)
    data.qpos[:22] = OPENED
    data.ctrl[:] = SQUEEZED
    mujoco.mj_step(model, data, steps)
    return data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy()
