"""Videos of a data set as a policy sees them, with the lessons that go with them; kept on disk."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from amt.data.demonstrations import recording
from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.errors import UserError
from amt.inference.observing import Observer, nearest
from amt.models.temporal import Observation
from amt.storage import replacing
from amt.structs import Camera, HandClip
from amt.training.lessons import Lesson

VERSION = 5  # of what is kept


class Video(NamedTuple):
    """`number` is that of `DexYCB.clips()`; `joints` [t,21,3] are as predicted, in the camera's frame; `seen` [t,...],
    rescaled by `scale` [t] (`HandClip`); `times` in seconds.
    """

    number: int
    lesson: Lesson
    times: np.ndarray
    joints: np.ndarray
    scale: np.ndarray
    seen: Observation


def videos(
    observer: Observer,
    source: DexYCB,
    lessons: dict[int, Lesson],
    folder: Path,
    report: Callable[[int], None],
) -> Iterator[Video]:
    """Every clip of the source as the observer sees it; what is kept in `folder` is named by a hash of its parameters.

    The hand's side is given by the data set, as a person gives it for a video (`config.predict.side`). A clip in which
    no hand is found is left out.
    """
    looks = hashlib.sha256(repr((VERSION, str(source.root.resolve()))).encode())
    looks.update(_digest(observer.predictor.params))
    folder.mkdir(parents=True, exist_ok=True)
    for number, (clip, run) in enumerate(zip(source.clips(), source.runs, strict=True)):
        lesson = lessons[run.sequence]
        sequence = source.sequences[run.sequence].folder
        key = looks.copy()
        key.update(lesson.T_base_world.tobytes() + lesson.home.tobytes())
        path = folder / f"{sequence.parent.name}_{sequence.name}_{run.camera}_{key.hexdigest()[:12]}.npz"
        if not path.exists():
            seen = _see(observer, source, clip, lesson)
            with replacing(path) as part, part.open("wb") as file:
                np.savez(file, **seen)
        kept = _read(path)
        report(1)
        if kept["valid"].any():
            others = (kept.pop(name) for name in ("times", "predicted", "scale"))
            yield Video(number, lesson, *others, Observation(**kept))


def crops(observer: Observer, source: DexYCB, video: Video, frames: range) -> HandClip:
    """The crops of some frames of a video, as the observer sees them; `qpos` is what it streamed, `scale` what it
    found.
    """
    clip = source.clips()[video.number]
    samples = [source[clip[k]] for k in frames]
    T_table_world = np.linalg.inv(source.T_world_table(clip).astype(np.float64))
    valid = np.asarray(video.seen.valid)
    made = observer.crops(
        np.stack([decode(s["color"]) for s in samples]),
        samples[0]["K"],
        T_table_world @ np.stack([s["T_world_camera"] for s in samples]),
        video.lesson.T_base_world,
        video.joints[nearest(valid)][frames.start : frames.stop],
        np.ones(len(frames), bool),
        video.lesson.mirrored,
    )
    part = slice(frames.start, frames.stop)
    return made.replace(qpos=np.asarray(video.seen.qpos)[part], valid=valid[part], scale=video.scale[part])


def _digest(params: dict) -> bytes:
    """Of what sees: a policy beside it changes nothing."""
    made = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path({k: v for k, v in params.items() if k != "policy"}):
        made.update(jax.tree_util.keystr(path).encode() + (np.asarray(x) + 0.0).tobytes())  # -0 is 0
    return made.digest()


def _see(observer: Observer, source: DexYCB, frames: range, lesson: Lesson) -> dict[str, np.ndarray]:
    samples, times, T_table_camera = recording(source, frames)
    images = np.stack([decode(s["color"]) for s in samples])
    camera = Camera(samples[0]["K"], T_table_camera)
    prediction = observer.predictor(images, camera, is_left=bool(samples[0]["is_left"]))
    if not prediction.hand.valid.any():
        return {"valid": np.zeros(len(frames), bool)}
    seen, clip = observer(images, camera.K, T_table_camera, lesson.T_base_world, lesson.home, prediction)
    fields = {name: np.asarray(getattr(seen, name))[0] for name in Observation.__dataclass_fields__}
    return fields | {"predicted": np.asarray(prediction.hand.joints), "times": times, "scale": clip.scale}


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); delete it, it is made again") from error
