"""The robot: UR5e + Allegro by name, its kinematics, MuJoCo scenes, retargeting from human hands, replay."""

from amt.robot.alignment import fit_hand
from amt.robot.follow import Motion, follow
from amt.robot.human import HandFit
from amt.robot.kinematics import forward
from amt.robot.model import Robot, load_robot
from amt.robot.render import RenderUnavailable, render
from amt.robot.replay import Replay, replay, self_depth
from amt.robot.retarget import human_tips, mirrors, retarget, retarget_errors
from amt.robot.scene import Part, SceneObject, build_scene

__all__ = [
    "HandFit",
    "Motion",
    "Part",
    "RenderUnavailable",
    "Replay",
    "Robot",
    "SceneObject",
    "build_scene",
    "fit_hand",
    "follow",
    "forward",
    "human_tips",
    "load_robot",
    "mirrors",
    "render",
    "replay",
    "retarget",
    "retarget_errors",
    "self_depth",
]
