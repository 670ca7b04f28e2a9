"""What the robot should do where a hand lifts an object: retargeting, tried in several ways, judged by MuJoCo C.

A human's hand closes on what it holds without showing how hard, and the robot's is another hand. So retargeting is
tried with the hand brought to the object in several ways and closed further by several angles from the moment of the
grasp on; what lifts, and still lifts where the object lies elsewhere by a little, is what a policy learns from.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.data.demonstrations import Demonstration
from amt.data.scene_objects import scene_object
from amt.data.ycb import OBJECTS
from amt.robot import SceneObject, build_scene, forward, load_robot, replay, retarget
from amt.robot.human import TIPS, palm_rotation
from amt.robot.model import FINGERS, NUM_ARM_JOINTS
from amt.robot.replay import Replay
from amt.structs import HandPose, Trajectory

RATE = 50.0  # commands per second
HOLD = 0.5  # seconds that the last command is held, and that an object has to stay up
RAISED = 0.05  # metres above where it stood
LIMIT_MARGIN = 0.005  # radians that commands keep from the joint limits
MOVED = 0.005  # metres that an object rises before it counts as lifted by the human
CLOSING = 0.45  # seconds before that in which the fingers close
OPEN = np.array([0.0, 0.5, 0.5, 0.5] * 3 + [1.35, 0.2, 0.1, 0.3])  # the robot's own grasp, 16 joint angles
CLOSED = np.array([0.0, 1.1, 0.9, 0.7] * 3 + [1.35, 0.4, 0.6, 0.9])
ABOVE = 0.12  # metres that it starts above the object
LOWEST = 0.018  # metres above the table where its fingers meet
FLEXION = np.array([0, 1, 1, 1] * 3 + [0, 0.6, 1, 1])  # share of the closing angle, by finger joint


class Start(NamedTuple):
    """A way to retarget. `scale` is that of `retarget`. The robot's thumb and fingers meet elsewhere in its hand than a
    human's: `forward` moves the hand from where the human's wrist was (0) to where they meet at the place where the
    human's do (1), `centred` moves that place to the object's middle (1). `closing` and `opening` are radians by which
    the fingers bend further after the moment of the grasp and stretch before it.

    With `own` the hand comes from above and grasps as suits it, about the object's middle: fingers and thumb close
    across the object's narrower horizontal side, turned by `own` radians; `closing` 1 is `CLOSED`.
    """

    scale: str | float
    closing: float = 0.0
    opening: float = 0.0
    forward: float = 0.0
    centred: float = 0.0
    own: float | None = None


# Those of 96 that lift most of 16 demonstrations (experiments/lift), the best first.
STARTS = (
    Start(1.0, 0.2),
    Start("fit", 0.35),
    Start("fit", 0.5, 0.3, forward=1.0),
    Start("fit", 0.2),
    Start(1.0, 0.1),
    Start("fit", 1.7, own=0.0),
    Start("fit", 1.4, 0.3, own=0.5),
    Start("fit", 0.35, 0.3, forward=1.0, centred=1.0),
    Start("fit", 1.4, 0.3, own=np.pi / 2),
    Start("fit", 0.1),
    Start(1.0, 0.35),
    Start("fit", 1.4, own=np.pi),
    Start("fit", 1.4, own=-0.5),
    Start("fit", 0.5),
    Start(1.0, 0.1, 0.3),
    Start("fit", 1.1, 0.3, own=np.pi / 2),
)

# Of these a policy learns: what the robot does about as the human does. Whether the robot's own grasp would be chosen
# instead cannot be told from what is seen.
LIKE_HUMAN = tuple(
    sorted((s for s in STARTS if s.own is None and not s.centred), key=lambda s: (s.scale == "fit", s.forward))
)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """`commands` at `RATE`, with the object's path beside them, in the base frame; and the object where it starts, if
    there is one.
    """

    commands: Float[np.ndarray, "n 22"]
    object_pos: Float[np.ndarray, "n 3"]
    object_rot: Float[np.ndarray, "n 3 3"]
    placed: SceneObject | None
    T_base_world: Float[np.ndarray, "4 4"]


def propose(shown: Demonstration, start: Start, T_base_world: Float[np.ndarray, "4 4"] | None = None) -> Proposal:
    """Commands for a demonstration. Without `T_base_world` the robot's place is searched."""
    own = start.own is not None
    joints, meeting = _from_above(shown, start.own) if own else (shown.joints, _human_meeting(shown))
    posture = OPEN + start.closing * (CLOSED - OPEN) if own else start.closing * FLEXION
    if start.forward or own or T_base_world is None:
        made = _retarget(shown, joints, start.scale, T_base_world)
        T_base_world = np.asarray(made.T_base_world, np.float64)
        k = _grasp_frame(shown)
        q = np.asarray(made.qpos[k], np.float64)
        q[NUM_ARM_JOINTS:] = posture if own else q[NUM_ARM_JOINTS:] + posture
        ours = meeting if own else start.centred * shown.object_pos[k] + (1 - start.centred) * meeting
        off = ours - _robot_meeting(q, T_base_world)
        palm = palm_rotation(joints, "right")
        joints = joints + (1.0 if own else start.forward) * (palm @ palm[k].T @ off)[:, None]
    made = _retarget(shown, joints, start.scale, T_base_world)
    times = np.arange(0, shown.time[-1] + HOLD, 1 / RATE)
    q = np.stack([np.interp(times, shown.time, column) for column in np.asarray(made.qpos, np.float64).T], axis=-1)
    closed = np.clip((times - grasp_time(shown)) / CLOSING + 1, 0, 1)[:, None]
    if own:
        q[:, NUM_ARM_JOINTS:] = OPEN + closed * (posture - OPEN) - start.opening * (1 - closed) * FLEXION
    else:
        q[:, NUM_ARM_JOINTS:] += (start.closing * closed - start.opening * (1 - closed)) * FLEXION
    limits = load_robot().limits
    T = np.asarray(made.T_base_world, np.float64)
    position, rotation = shown.at(times)
    position, rotation = position @ T[:3, :3].T + T[:3, 3], T[:3, :3] @ rotation
    return Proposal(
        np.clip(q, limits[:, 0] + LIMIT_MARGIN, limits[:, 1] - LIMIT_MARGIN),
        position,
        rotation,
        scene_object(shown.ycb_id, position[0], rotation[0]) if shown.ycb_id else None,
        T,
    )


def grasp_time(shown: Demonstration) -> float:
    """When the object leaves the table, seconds; the end where it never does."""
    raised = shown.object_pos[:, 2] - shown.object_pos[0, 2] > MOVED
    return float(shown.time[raised.argmax() if raised.any() else -1])


def play(commands: Float[np.ndarray, "n 22"], placed: SceneObject | None) -> Replay:
    """Commands at `RATE` in MuJoCo C, with all contacts."""
    n = len(commands)
    names = load_robot().joint_names
    eye = np.eye(4, dtype=np.float32)
    time = (np.arange(n) / RATE).astype(np.float32)
    told = Trajectory(time, np.asarray(commands, np.float32), np.ones(n, bool), eye, names)
    return replay(told, build_scene([placed] if placed else []))


def height(played: Replay, placed: SceneObject) -> Float[np.ndarray, " n"]:
    """Metres of the first object above where it stood."""
    return played.state[:, played.qpos.shape[1] + 2] - placed.pos[2]


def frame_errors(
    commands: Float[np.ndarray, "n 22"], wanted: Float[np.ndarray, "n 22"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Metres between where two command sequences put the wrist, and the fingertips in the mean."""
    names = ("wrist", *(f"{finger}_tip" for finger in FINGERS))
    made, right = (forward(load_robot(), np.asarray(q, np.float32), names) for q in (commands, wanted))
    off = {n: np.linalg.norm(np.asarray(made[n])[:, :3, 3] - np.asarray(right[n])[:, :3, 3], axis=-1) for n in names}
    return {"wrist": off["wrist"], "tips": np.mean([off[name] for name in names[1:]], axis=0)}


def lifted(played: Replay, placed: SceneObject) -> bool:
    """Whether the object is `RAISED` for the whole of the last `HOLD`."""
    return bool((height(played, placed)[-round(HOLD * RATE) :] > RAISED).all())


def _retarget(shown: Demonstration, joints: np.ndarray, scale: str | float, T_base_world) -> Trajectory:
    nothing = dict.fromkeys(HandPose.__dataclass_fields__)
    right = np.zeros(len(joints), bool)
    return retarget(
        HandPose(**nothing | {"joints": joints.astype(np.float32), "valid": shown.valid, "is_left": right}),
        scale=scale,
        fps=1 / np.median(np.diff(shown.time)),
        T_world_camera=np.eye(4),
        T_base_world=T_base_world,
        base_height=0.0 if T_base_world is None else None,
    )


def _grasp_frame(shown: Demonstration) -> int:
    return int(np.argmin(np.abs(shown.time - grasp_time(shown))))


def _robot_meeting(q: Float[np.ndarray, " 22"], T_base_world: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 3"]:
    """Where the robot's fingers and thumb meet, in the world."""
    tips = forward(load_robot(), q[None].astype(np.float32), tuple(f"{f}_tip" for f in FINGERS))
    place = _meeting(*(np.asarray(tips[f"{f}_tip"][0, :3, 3], np.float64) for f in FINGERS))
    return T_base_world[:3, :3].T @ (place - T_base_world[:3, 3])


def _from_above(shown: Demonstration, turn: float) -> tuple[Float[np.ndarray, "T 21 3"], Float[np.ndarray, " 3"]]:
    """The hand's joints where it points straight down and comes from above, and where its fingers meet at the grasp."""
    palm, k = palm_rotation(shown.joints, "right"), _grasp_frame(shown)
    half = OBJECTS[shown.ycb_id].primitive.half
    sides = shown.object_rot[0] * half  # columns: half sides in the world
    narrow = min((side for side in sides.T if abs(side[2]) < 0.7 * np.linalg.norm(side)), key=np.linalg.norm)
    across = np.array([narrow[0], narrow[1], 0.0]) / np.hypot(narrow[0], narrow[1])
    across = across if across @ palm[k, :, 0] > 0 else -across
    across = Rotation.from_euler("z", turn).as_matrix() @ across
    wanted = np.stack([across, np.cross([0.0, 0.0, -1.0], across), [0.0, 0.0, -1.0]], axis=-1)
    meeting = np.maximum(shown.object_pos[0], [-np.inf, -np.inf, LOWEST])
    come = np.clip(shown.time / max(grasp_time(shown) - CLOSING, 1e-3), 0, 1)
    path = meeting + (shown.object_pos - shown.object_pos[0])
    path[:, 2] += ABOVE * (1 - come**2 * (3 - 2 * come))
    local = (shown.joints - shown.joints[:, :1]) @ palm
    return local @ wanted.T + path[:, None], meeting


def _meeting(index, middle, ring, thumb):
    """Where the fingers meet the thumb."""
    return ((index + middle) / 2 + thumb) / 2


def _human_meeting(shown: Demonstration) -> Float[np.ndarray, " 3"]:
    """Where the human's fingers and thumb meet at the grasp, in the world."""
    return _meeting(*shown.joints[_grasp_frame(shown), TIPS])
