"""What `predict` does where a policy gives the commands: a robot stands before an object, and is shown the video."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from amt.data.scene_objects import scene_object
from amt.inference.acting import play_chunks
from amt.inference.predictor import Predictor
from amt.inference.streaming import PolicyStream
from amt.inference.video import Source
from amt.models.factory import build_policy
from amt.modes.common import Progress
from amt.robot import Replay, SceneObject, load_robot
from amt.structs import Camera, Prediction, Trajectory
from amt.training import teacher

MARGIN = 1e-4  # radians that commands keep from the joint limits: rounding must not leave them


class Trial(NamedTuple):
    """`T_base_world` says where the robot stands, on a table that is z = 0 of both frames; `home` are its joints there,
    radians; `placed` is the object on the table, in the base frame. The policy is not told of the object.
    """

    T_base_world: Float[np.ndarray, "4 4"]
    home: Float[np.ndarray, " 22"]
    placed: SceneObject

    @classmethod
    def read(cls, path: Path) -> "Trial":
        """As experiments/demo_clip/make.py writes it, beside the clip's camera."""
        said = json.loads(path.read_text())["trial"]
        T = np.array(said["T_base_object"])
        placed = scene_object(said["ycb_id"], T[:3, 3], T[:3, :3])
        return cls(np.array(said["T_base_world"]), np.array(said["home"]), placed)


def act(
    source: Source, predictor: Predictor, camera: Camera, trial: Trial, is_left: bool
) -> tuple[Trajectory, np.ndarray]:
    """Commands at `teacher.RATE` of the policy that the weights have, which is given one frame after the other, to
    `teacher.HOLD` after the last; and the index of the last frame before each.
    """
    policy = build_policy(*(predictor.settings["policy"][name] for name in ("fusion", "actions")))
    stream = PolicyStream(predictor, policy, camera, trial.T_base_world, trial.home, is_left)
    times, made = [], []
    with Progress(source.expected_frames or 0, "frames acted on") as progress:
        for stamp, image in source:
            times.append(stamp)
            made.append(stream(image))
            progress.update()
    times, seen = np.array(times), np.array([one.valid for one in made])
    ticks = np.arange(0, times[-1] + teacher.HOLD, 1 / teacher.RATE)
    chunks = np.stack([one.chunk for one in made])
    commands = play_chunks(chunks, times, seen, trial.home, teacher.RATE, len(ticks))
    robot = load_robot()
    low, high = robot.limits.T
    commands = np.clip(commands, low + MARGIN, high - MARGIN).astype(np.float32)
    frames = np.maximum(np.searchsorted(times, ticks, side="right") - 1, 0)
    T = np.asarray(trial.T_base_world, np.float32)
    return Trajectory(ticks.astype(np.float32), commands, seen[frames], T, robot.joint_names), frames


def at(prediction: Prediction, frames: np.ndarray) -> Prediction:
    """The prediction of some frames."""
    rows = jax.tree.map(lambda x: np.asarray(x)[frames], prediction.replace(camera=None))
    return rows.replace(camera=prediction.camera)


def lift(played: Replay, placed: SceneObject) -> dict[str, float | bool]:
    """Whether the object is up throughout the last half second, and how high it is at the end."""
    raised = float(teacher.height(played, placed)[-1])
    return {"object_lifted": teacher.lifted(played, placed), "object_raised_mm": 1e3 * raised}
