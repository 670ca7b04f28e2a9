"""The two films of a prediction, and the stills that the report takes from them."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from amt.data import ycb
from amt.inference.video import VideoWriter
from amt.robot import Replay, Robot, SceneObject, build_scene, human_tips, load_robot, mirrors, render
from amt.structs import Prediction, Trajectory
from amt.viz.overlay import draw_overlay
from amt.viz.pages import Picture
from amt.viz.report import contact_sheet

SIZES = {number: tuple(2 * item.primitive.half) for number, item in ycb.OBJECTS.items()}
NAMES = {number: item.name for number, item in ycb.OBJECTS.items()}


def overlay_film(
    path: str | Path,
    frames: Iterable[tuple[float, np.ndarray]],
    prediction: Prediction,
    faces: Int[np.ndarray, "f 3"],
    fps: float,
    *,
    stills: int = 12,
    update: Callable[[], None] = lambda: None,
) -> list[Picture]:
    """Draws what was seen on `frames` (seconds, RGB image) into an mp4; returns `stills` of its frames.

    `faces` are those of the hand model that was seen.
    """
    total = len(prediction.hand.valid)
    kept, pictures = set(contact_sheet(stills, total)), []
    with VideoWriter(path, fps) as writer:
        for index, (time, frame) in zip(range(total), frames, strict=False):
            text = f"frame {index}  {time:.2f} s"
            image = draw_overlay(
                frame, prediction, index, faces=faces, object_sizes=SIZES, object_names=NAMES, text=text
            )
            writer.write(image, time)
            if index in kept:
                found = "" if prediction.hand.valid[index] else ", no hand found"
                pictures.append(Picture(image, f"frame {index}, {time:.2f} s{found}"))
            update()
    return pictures


def ghost_objects(prediction: Prediction) -> list[SceneObject]:
    """The YCB objects that were seen, as translucent boxes for a replay's scene."""
    seen = np.unique(prediction.objects.ycb_ids[prediction.objects.valid])
    halves = {number: ycb.OBJECTS[number].primitive.half for number in seen.tolist() if number in ycb.OBJECTS}
    return [SceneObject(NAMES[i], "box", tuple(half.tolist()), ghost=True) for i, half in halves.items()]


def ghost_poses(prediction: Prediction, T_base_world: np.ndarray, robot: Robot | None = None) -> dict[str, np.ndarray]:
    """T_base_object [T,4,4] of `ghost_objects`; where an object is not seen it stays where it was seen last.

    Where the motion is mirrored for the robot (`retarget`), objects are mirrored with it.
    """
    hand, objects = prediction.hand, prediction.objects
    mirror = np.diag([-1.0, 1, 1, 1]) if mirrors(robot or load_robot(), hand) else np.eye(4)
    T_base_camera = T_base_world @ np.asarray(prediction.camera.T_world_camera, np.float64)
    poses = {}
    for item in ghost_objects(prediction):
        here = objects.valid & np.isin(objects.ycb_ids, [i for i, name in NAMES.items() if name == item.name])
        frames = np.flatnonzero(here.any(-1))
        slots = here[frames].argmax(-1)
        T_camera_object = np.tile(np.eye(4), (len(frames), 1, 1))
        T_camera_object[:, :3] = objects.pose[frames, slots]
        last = np.maximum(np.searchsorted(frames, np.arange(len(here)), side="right") - 1, 0)
        # Mirroring on both sides keeps a rotation a rotation; a box looks the same from its own mirror image.
        poses[item.name] = T_base_camera @ (mirror @ T_camera_object @ mirror)[last]
    return poses


def replay_film(
    path: str | Path,
    played: Replay,
    trajectory: Trajectory,
    prediction: Prediction,
    *,
    width: int,
    height: int,
    fps: float,
    robot: Robot | None = None,
    meshes: str = "",
    objects: Iterable[SceneObject] = (),
    stills: int = 8,
    update: Callable[[], None] = lambda: None,
) -> list[Picture]:
    """Renders what MuJoCo simulated; the human's fingertips and objects are seen as translucent ghosts.

    `objects` are those of the replay: where it has any, those that were seen are left out. `prediction` is of the times
    of `trajectory`. `meshes` as in `build_scene`.
    Raises `RenderUnavailable` where the machine cannot render.
    """
    T_base_world = np.asarray(trajectory.T_base_world, np.float64)
    tips = human_tips(prediction.hand, T_base_world, prediction.camera.T_world_camera, robot)
    there = list(objects)
    images = render(
        played,
        build_scene(there or ghost_objects(prediction), robot, meshes=meshes),
        width,
        height,
        fps,
        ghosts=None if there else ghost_poses(prediction, T_base_world, robot),
        points=tips,
        valid=np.asarray(trajectory.valid),
    )
    total = replay_frames(played, fps)
    kept, pictures = set(contact_sheet(stills, total)), []
    with VideoWriter(path, fps) as writer:
        for index, image in enumerate(images):
            writer.write(image)
            if index in kept:
                pictures.append(Picture(image, f"{index / fps:.2f} s"))
            update()
    return pictures


def trial_film(
    path: str | Path,
    times: Float[np.ndarray, " t"],
    images: UInt8[np.ndarray, "t h w 3"],
    played: Replay,
    placed: SceneObject,
    T_base_object: Float[np.ndarray, "T 4 4"],
    fps: float,
) -> None:
    """The human's video and, beside it at the same time, the robot's replay; the human's object is a ghost in it.

    `T_base_object` has a row for each command of the replay. After the video's end its last frame stays. Raises
    `RenderUnavailable` where the machine cannot render.
    """
    ghost = dataclasses.replace(placed, name="ghost", ghost=True)
    height, width = images.shape[1:3]
    pictures = render(played, build_scene([placed, ghost]), width, height, fps, ghosts={"ghost": T_base_object})
    with VideoWriter(path, fps) as writer:
        for index, picture in enumerate(pictures):
            shown = max(int(np.searchsorted(times, index / fps, side="right")) - 1, 0)
            writer.write(np.concatenate([images[shown], picture], axis=1))


def replay_frames(played: Replay, fps: float) -> int:
    """How many frames a film of a replay has."""
    return int((played.time[-1] - played.time[0] + 0.5 / fps) * fps) + 1
