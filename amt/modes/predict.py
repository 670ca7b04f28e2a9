"""`--mode=predict`: a video, a folder of images or an image to robot commands, overlay, replay and report.

The order matters: everything that can be wrong with the input is found before a model is loaded, and the work
directory changes only when all files are there.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amt.errors import UserError
from amt.inference.intrinsics import ClipCamera, make_camera
from amt.inference.results import all_or_nothing, write_commands, write_trajectory
from amt.inference.smoothing import smooth_prediction
from amt.inference.video import Source, open_clip
from amt.modes import predict_settings as settings
from amt.modes.common import Progress, check_workdir, write_json
from amt.structs import Prediction, Trajectory
from amt.viz.pages import Picture
from amt.viz.report import Report, write_report

if TYPE_CHECKING:
    from amt.modes.trial import Trial
    from amt.robot import Replay, Robot, SceneObject

FILES = {
    "trajectory.npz": "commands, joint limits and all predictions as arrays",
    "commands.csv": "one row a command: time, validity, 22 joint position targets in radians",
    "overlay.mp4": "what was seen, drawn on the frames",
    "replay.mp4": "the robot following the commands in MuJoCo",
    "report.html": "this page",
    "predict.json": "the figures",
}
CHUNK_BYTES = 256 * 2**20  # frames that are decoded and held at a time
PICTURES = 12  # frames that the report shows
REPLAY_FPS = 15.0  # of the film; the simulation has its own step
KINDS = {-1: "not known", 0: "none", 1: "light", 2: "firm", 3: "manipulation"}
MIN_CONFIDENCE = 0.5  # contacts below are not counted


class Seconds(dict):
    """Wall time by stage; the first run's contain compilation."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self[stage] = self.get(stage, 0.0) + time.monotonic() - start


def run(config, workdir: Path, input: str | None) -> dict:
    """Writes `FILES` into `workdir` and returns the figures. Raises `UserError` on bad input."""
    if not input:
        raise UserError("--input is missing: give a video, an image or a folder of images, --input=PATH")
    workdir = check_workdir(workdir)
    settings.check(config)
    source = open_clip(input, max_frames=config.predict.max_frames or None)
    camera = config.camera
    clip_camera = make_camera(camera.K, camera.T_world_camera, source.width, source.height, camera.horizontal_fov)
    return process(source, clip_camera, config, workdir)


def process(source: Source, clip_camera: ClipCamera, config, workdir: Path, trial: "Trial | None" = None) -> dict:
    """The way from an opened clip to the files, as `run`, with checked settings; also for the demo's clip.

    Commands come from retargeting; given a `trial` from the policy of the weights, and the replay has its object.
    """
    smoother, is_left = settings.smoother(config.predict), settings.is_left(config.predict)
    scale = settings.scale(config.retarget)
    notes = (*source.notes, *clip_camera.assumptions)
    print(*notes, clip_camera.understood, sep="\n", file=sys.stderr)
    seconds = Seconds()
    with all_or_nothing(workdir, FILES) as folder:
        with seconds("load"):
            from amt.inference.predictor import load_predictor
            from amt.models import weights
            from amt.modes.hands import load_hand
            from amt.robot import build_scene, load_robot, replay, retarget

            robot = load_robot(config.retarget.side)
            hand = load_hand(config.hand)
            predictor = load_predictor(config.predict.checkpoint, hand)
            expected = weights.architecture(config.to_dict())
            weights.check_architecture(predictor.settings, expected, str(weights.resolve(config.predict.checkpoint)))
        with seconds("see"):
            stamps, prediction = see(source, predictor, clip_camera.camera, is_left)
        with seconds("smooth"):
            prediction = smooth_prediction(prediction, stamps, smoother)
        with seconds("retarget"):
            trajectory = retarget(
                prediction.hand,
                robot,
                scale,
                fps=rate(stamps, source.fps),
                T_world_camera=clip_camera.camera.T_world_camera,
                smoothness=config.retarget.smoothness,
                steps=config.retarget.iterations,
            ).replace(time=stamps)
        shown, objects = prediction, []  # what is seen at the time of each command, what stands before the robot
        if trial:
            from amt.modes.trial import act, at, lift

            with seconds("act"):
                side = float(prediction.hand.is_left[prediction.hand.valid].mean()) > 0.5
                trajectory, frames = act(source, predictor, clip_camera.camera, trial, side)
            shown, objects = at(prediction, frames), [trial.placed]
        with seconds("replay"):
            scene = build_scene(objects, robot, timestep=config.replay.substep, meshes=config.replay.meshes)
            played = replay(trajectory, scene)
        figures = measure(source, stamps, prediction, shown, trajectory, played, robot, config)
        figures |= {"camera": clip_camera.understood, "notes": list(notes)}
        figures |= {"commands_by": "policy", **lift(played, trial.placed)} if trial else {"commands_by": "retargeting"}
        write_trajectory(folder / "trajectory.npz", trajectory, stamps, prediction, robot.limits)
        write_commands(folder / "commands.csv", trajectory)
        with seconds("overlay"):
            overlay = film_overlay(folder, source, prediction, hand.faces, figures["frames_per_s"])
        with seconds("render"):
            stills, note = film_replay(folder, played, trajectory, shown, robot, config.replay, objects)
        figures["replay_film"] = bool(stills)
        figures |= {f"{stage}_s": value for stage, value in seconds.items()}
        figures["total_s"] = sum(seconds.values())
        write_report(
            folder / "report.html",
            Report(
                title=f"Robot commands from {source.path.name}",
                summary=summary(figures),
                warnings=warnings(figures),
                overlay=overlay,
                replay=stills,
                replay_note=note,
                trajectory=trajectory,
                limits=robot.limits,
                objects=object_rows(prediction),
                contacts=contact_rows(prediction),
                files={name: text for name, text in FILES.items() if stills or name != "replay.mp4"},
                configuration=str(config),
            ),
        )
        write_json(folder / "predict.json", figures)
    return figures


def rate(stamps: np.ndarray, fps: float) -> float:
    """Frames per second by the time stamps (a variable rate has a mean), else by the header."""
    return float((len(stamps) - 1) / stamps[-1]) if stamps[-1] > 0 else fps


def see(source: Source, predictor, camera, is_left: bool | None = None) -> tuple[np.ndarray, Prediction]:
    """Runs the predictor chunk by chunk: time stamps [T], one prediction over T. `UserError` if no hand."""
    import jax

    size = max(1, CHUNK_BYTES // (source.width * source.height * 3))
    stamps, parts = [], []
    with Progress(source.expected_frames or 0, "frames seen") as progress:
        for chunk in source.iter_chunks(size):
            part = predictor(chunk.frames, camera, progress=progress, is_left=is_left)
            if is_left is None and part.hand.valid.any():
                is_left = bool(part.hand.is_left[part.hand.valid].mean() > 0.5)
            parts.append(jax.tree.map(np.asarray, part.replace(camera=None)))
            stamps.append(chunk.time)
    prediction = jax.tree.map(lambda *x: np.concatenate(x), *parts).replace(camera=camera)
    if not prediction.hand.valid.any():
        raise UserError(
            f"{source.path}: no hand was found in any of {len(prediction.hand.valid)} frames; "
            "expected a hand that is in view, in focus and not much smaller than a tenth of the frame"
        )
    return np.concatenate(stamps), prediction


def measure(
    source: Source,
    stamps: np.ndarray,
    prediction: Prediction,
    shown: Prediction,
    trajectory: Trajectory,
    played: "Replay",
    robot: "Robot",
    config,
) -> dict[str, Any]:
    """Figures of sight, commands and replay; commands outside the limits are never written.

    `prediction` is of the frames at `stamps`, `shown` what is seen at the time of each command.
    """
    from amt.robot import mirrors, retarget_errors

    hand, valid = prediction.hand, np.asarray(prediction.hand.valid)
    limits, qpos = robot.limits, np.asarray(trajectory.qpos)
    margin = np.minimum(qpos - limits[:, 0], limits[:, 1] - qpos).min()
    if not (np.isfinite(qpos).all() and margin >= 0):
        raise RuntimeError(f"commands leave the joint limits by {-margin:.3g} rad")
    T_world_camera = prediction.camera.T_world_camera
    scale = settings.scale(config.retarget)
    errors = retarget_errors(trajectory, shown.hand, robot, scale, T_world_camera=T_world_camera)
    seen = prediction.objects.valid & valid[:, None]
    return {
        "input": str(source.path),
        "frames": len(valid),
        "duration_s": float(stamps[-1]),
        "frames_per_s": rate(stamps, source.fps),
        "width_px": source.width,
        "height_px": source.height,
        "hand_found_share": float(valid.mean()),
        "left_hand_share": float(hand.is_left[valid].mean()),
        "mirrored": mirrors(robot, hand),
        "hand_distance_m": float(np.median(hand.joints[valid, 0, 2])),
        "joint_confidence": float(prediction.joint_confidence[valid].mean()),
        "objects_per_frame": float(seen.sum(-1).mean()),
        "contacts_per_frame": float(touching(prediction).sum() / valid.sum()),
        **{f"retarget_{name}": float(np.nanmean(value)) for name, value in errors.items()},
        "closest_to_limit_rad": float(margin),
        "commands_inside_limits": True,
        "replay_tracking_error_rad": float(np.abs(played.tracking_error).mean()),
        "replay_max_tracking_error_rad": float(np.abs(played.tracking_error).max()),
        "replay_self_contact_share": float((played.self_contacts > 0).mean()),
    }


def touching(prediction: Prediction) -> np.ndarray:
    """Which contacts count [T, c]: confident ones that are not of kind none, in frames with a hand."""
    contacts, valid = prediction.contacts, np.asarray(prediction.hand.valid)
    return (contacts.confidence >= MIN_CONFIDENCE) & (contacts.kind != 0) & valid[:, None]


def film_overlay(folder: Path, source: Source, prediction: Prediction, faces: np.ndarray, fps: float) -> list[Picture]:
    from amt.viz.films import overlay_film

    with Progress(len(prediction.hand.valid), "frames drawn") as progress:
        path = folder / "overlay.mp4"
        return overlay_film(path, source, prediction, faces, fps, stills=PICTURES, update=progress.update)


def film_replay(
    folder: Path,
    played: "Replay",
    trajectory: Trajectory,
    prediction: Prediction,
    robot: "Robot",
    look,
    objects: Sequence["SceneObject"],
) -> tuple[list[Picture], str]:
    """The film's stills, or none and the line that says why."""
    from amt.robot import RenderUnavailable
    from amt.viz.films import replay_film, replay_frames

    if not look.enabled:
        return [], "The film is switched off (replay.enabled)."
    fps = min(REPLAY_FPS, rate(played.time, REPLAY_FPS))
    try:
        with Progress(replay_frames(played, fps), "replay frames") as progress:
            scene = {"width": look.width, "height": look.height, "robot": robot, "meshes": look.meshes}
            scene["objects"] = objects
            path = folder / "replay.mp4"
            pictures = replay_film(path, played, trajectory, prediction, fps=fps, update=progress.update, **scene)
    except RenderUnavailable as error:
        print(f"replay.mp4 is left out: {error}", file=sys.stderr)
        return [], f"replay.mp4 is left out: {error}"
    if objects:
        return pictures, "Green: the human's fingertips as they were seen. The object is the clip's, where it stood."
    return (
        pictures,
        "Green: the human's fingertips, and the objects that were seen, where the robot should have them.",
    )


def summary(figures: dict[str, Any]) -> dict[str, str]:
    """The figures in words, for the top of the report."""
    share = figures["hand_found_share"]
    return {
        "Frames": f"{figures['frames']} in {figures['duration_s']:.1f} s, "
        f"{figures['width_px']}x{figures['height_px']} pixels",
        "Camera": figures["camera"].removeprefix("camera "),
        "Hand found": f"{share:.1%} of the frames" + (", a left hand" if figures["left_hand_share"] > 0.5 else ""),
        "Distance of the hand (median)": f"{figures['hand_distance_m']:.2f} m",
        "Wrist: robot to human (mean)": f"{figures['retarget_wrist_position_mm']:.1f} mm, "
        f"{figures['retarget_wrist_rotation_deg']:.1f} degrees",
        "Direction of fingertips (mean)": f"{figures['retarget_fingertip_direction_deg']:.1f} degrees off",
        "Commands": f"by {figures['commands_by']}, inside the joint limits; "
        f"closest {figures['closest_to_limit_rad']:.3f} rad",
        "Tracking in MuJoCo": f"{figures['replay_tracking_error_rad']:.4f} rad mean, "
        f"{figures['replay_max_tracking_error_rad']:.3f} rad at most",
        "The robot touches itself": f"in {figures['replay_self_contact_share']:.1%} of the frames",
        "Time taken": f"{figures['total_s']:.0f} s, {figures['see_s']:.0f} s of them to see",
    } | _object(figures)


def _object(figures: dict[str, Any]) -> dict[str, str]:
    """What became of the object before the robot, if one was there."""
    if "object_lifted" not in figures:
        return {}
    word = "lifted" if figures["object_lifted"] else "not lifted"
    return {"The object before the robot": f"{word}; {figures['object_raised_mm']:.0f} mm up at the end"}


def warnings(figures: dict[str, Any]) -> list[str]:
    """What a reader has to know before trusting the figures."""
    notes = list(figures["notes"])
    if figures["hand_found_share"] < 1:
        lost = 1 - figures["hand_found_share"]
        notes.append(f"No hand was found in {lost:.1%} of the frames: there the robot holds its last command.")
    if figures["mirrored"]:
        notes.append("The robot's hand is of the other side (retarget.side): it does the mirror image.")
    if figures["commands_by"] == "policy":
        notes.append(
            "A policy gives the commands: it corrects what was seen, and need not follow the hand that is drawn."
        )
    elif figures["retarget_wrist_position_mm"] > 20:
        notes.append("The robot does not reach the human's wrist: the motion is large, or its distance is wrong.")
    if figures["replay_self_contact_share"] > 0:
        notes.append("The robot touches itself in the replay; check the motion before it runs on a machine.")
    if figures["frames"] == 1:
        notes.append("The input is a single image: the commands are one pose, not a motion.")
    notes.append(
        "The embedded weights were trained on generated images only, and one hand at a time is followed. "
        "Compare the skeleton with the frames before using the commands."
    )
    return notes


def object_rows(prediction: Prediction) -> list[dict[str, str]]:
    """One row for each object: in how many frames it was seen, and how surely."""
    from amt.viz.films import NAMES

    objects = prediction.objects
    rows = []
    for number in np.unique(objects.ycb_ids[objects.valid]).tolist():
        here = objects.valid & (objects.ycb_ids == number)
        rows.append(
            {
                "object": NAMES.get(number, f"object {number}"),
                "frames": f"{here.any(-1).mean():.0%}",
                "confidence (mean)": f"{objects.confidence[here].mean():.2f}",
            }
        )
    return rows


def contact_rows(prediction: Prediction) -> list[dict[str, str]]:
    """One row for each kind of contact: how many, in how many frames, with what force."""
    contacts, counted = prediction.contacts, touching(prediction)
    force = np.linalg.norm(contacts.force, axis=-1)
    rows = []
    for kind, name in KINDS.items():
        here = counted & (contacts.kind == kind)
        if here.any():
            mean = f"{force[here].mean():.1f} N" if np.isfinite(force[here]).all() else "not known"
            frames = f"{here.any(-1).mean():.0%}"
            rows.append({"kind": name, "contacts": str(here.sum()), "frames": frames, "force (mean)": mean})
    return rows
