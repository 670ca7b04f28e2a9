"""Commands in MuJoCo C: does the robot follow them, and does it touch itself?"""

import dataclasses

import mujoco
import numpy as np
from jaxtyping import Float, Int

from amt.errors import UserError
from amt.robot.model import FINGERS, NUM_JOINTS, Robot
from amt.robot.scene import build_scene
from amt.structs import Trajectory

MAX_TIMESTEP = 0.002  # seconds; the fingers' actuators need it
SETTLE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Replay:
    """What happened, one row per command: the state at the end of the command's interval.

    `state` is the scene's whole qpos (robot first); `tracking_error` is command minus joint angle in radians;
    contacts are counted between robot and robot, and between robot and anything else. `touch` are the normal forces on
    free objects of index, middle, ring, thumb and of the rest of the robot, newtons; `peak_force` is that of the
    strongest single contact.
    """

    time: Float[np.ndarray, " T"]
    state: Float[np.ndarray, "T nq"]
    tracking_error: Float[np.ndarray, "T 22"]
    self_contacts: Int[np.ndarray, " T"]
    other_contacts: Int[np.ndarray, " T"]
    touch: Float[np.ndarray, "T 5"]
    peak_force: Float[np.ndarray, " T"]

    @property
    def qpos(self) -> Float[np.ndarray, "T 22"]:
        """The robot's joint angles, in robot order."""
        return self.state[:, :NUM_JOINTS]


def replay(trajectory: Trajectory, scene: mujoco.MjSpec | None = None, *, feedforward: bool = True) -> Replay:
    """Play the position targets in a scene of `build_scene` at the trajectory's own rate.

    The robot starts in the first pose and holds it for half a second. Within a command's interval the target
    moves linearly to the command. `feedforward` adds velocity times damping over stiffness of each actuator
    to its target, as robot controllers do: the actuators' damping acts against the motion itself, and would
    make the robot lag. Raises UserError if the simulation diverges.
    """
    spec = scene or build_scene()
    model = spec.compile()
    time, targets = np.asarray(trajectory.time, np.float64), np.asarray(trajectory.qpos, np.float64)
    interval = float(np.median(np.diff(time))) if len(time) > 1 else 1 / 30
    substeps = int(np.ceil(interval / min(model.opt.timestep, MAX_TIMESTEP) - 1e-9))
    model.opt.timestep = interval / substeps

    data = mujoco.MjData(model)
    data.qpos[:NUM_JOINTS] = targets[0]
    lead = -model.actuator_biasprm[:NUM_JOINTS, 2] / model.actuator_gainprm[:NUM_JOINTS, 0]
    low, high = model.actuator_ctrlrange[:NUM_JOINTS].T
    robot_body = model.body_rootid == model.body("base").id
    part = np.array([_part(model.body(b).name) for b in range(model.nbody)])

    data.ctrl[:NUM_JOINTS] = targets[0]
    for _ in range(round(SETTLE_SECONDS / model.opt.timestep)):
        mujoco.mj_step(model, data)

    last, states, contacts, touch = targets[0], [], [], []
    for frame, target in enumerate(targets):
        velocity = (target - last) / interval
        for step in range(substeps):
            wanted = last + (target - last) * ((step + 1) / substeps)
            data.ctrl[:NUM_JOINTS] = np.clip(wanted + lead * velocity * feedforward, low, high)
            mujoco.mj_step(model, data)
        if data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number:
            raise UserError(
                f"replay: the simulation diverged at command {frame}; check the scene's objects and timestep"
            )
        last = target
        states.append(data.qpos.copy())
        is_robot = robot_body[model.geom_bodyid[data.contact.geom]]
        contacts.append((is_robot.all(1).sum(), (is_robot.sum(1) == 1).sum()) if data.ncon else (0, 0))
        touch.append(_touch(model, data, robot_body, part))
    state, counts, forces = np.array(states), np.array(contacts), np.array(touch)
    error = targets - state[:, :NUM_JOINTS]
    return Replay(time, state, error, counts[:, 0], counts[:, 1], forces[:, :5], forces[:, 5])


def _part(body: str) -> int:
    """Index of the finger that a body belongs to, in robot order, or 4."""
    return FINGERS.index(body[:2]) if body[:2] in FINGERS else len(FINGERS)


def _touch(model, data, robot_body, part) -> np.ndarray:
    """Normal forces of the robot on free objects by part, and the strongest."""
    found, force = np.zeros(6), np.zeros(6)
    for i in range(data.ncon):
        first, second = model.geom_bodyid[data.contact.geom[i]]
        robot, other = (first, second) if robot_body[first] else (second, first)
        if robot_body[robot] and not robot_body[other] and model.body_dofnum[other] == 6:
            mujoco.mj_contactForce(model, data, i, force)
            found[part[robot]] += force[0]
            found[5] = max(found[5], force[0])
    return found


def self_depth(qpos: Float[np.ndarray, "T 22"], robot: Robot | None = None) -> Float[np.ndarray, " T"]:
    """How deep links of the robot are in each other in these poses, metres; 0 where they are not."""
    model = build_scene(robot=robot, table=False).compile()
    data, depth = mujoco.MjData(model), np.zeros(len(qpos))
    for t, pose in enumerate(qpos):
        data.qpos[:] = pose
        mujoco.mj_fwdPosition(model, data)
        depth[t] = (-data.contact.dist).max(initial=0.0)
    return depth
