"""Lessons: for each recorded sequence what the robot should have done, verified by replay and kept on disk."""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from amt.data.demonstrations import Demonstration, demonstration, recording
from amt.data.dexycb import DexYCB
from amt.data.scene_objects import scene_object
from amt.errors import UserError
from amt.robot import SceneObject
from amt.storage import replacing
from amt.training import teacher

VERSION = 2  # of what a lesson holds
PLACES = np.array([[0.0, 0.0], [0.01, 0.0], [-0.01, 0.0], [0.0, 0.01], [0.0, -0.01]])  # metres, tried in turn
ENOUGH = 0.8  # share of them


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Commands for one demonstration at `teacher.RATE`, and what came of them; all in the robot's base frame.

    `object_pos`, `object_rot` are where the human's object is at the time of each command, `touch` what the replay's
    fingers press with (`Replay.touch`, N). `home` is where the robot stands before. `start` indexes
    `teacher.LIKE_HUMAN`, -1 is plain retargeting, and in `share` of `PLACES` the object is lifted: 0 is a lesson that
    failed, which nobody should learn to grasp from.
    Without an object (`ycb_id` 0) there is nothing to fail.
    """

    commands: Float[np.ndarray, "n 22"]
    object_pos: Float[np.ndarray, "n 3"]
    object_rot: Float[np.ndarray, "n 3 3"]
    touch: Float[np.ndarray, "n 5"]
    T_base_world: Float[np.ndarray, "4 4"]
    home: Float[np.ndarray, " 22"]
    ycb_id: int
    mirrored: bool
    start: int
    share: float

    @property
    def placed(self) -> SceneObject:
        """The object as it stands at first."""
        return scene_object(self.ycb_id, self.object_pos[0], self.object_rot[0])


def teach(shown: Demonstration) -> Lesson:
    """The first start that lifts with the object in `ENOUGH` of `PLACES`, else that which lifts in most.

    The first and not the best: alike demonstrations should have alike lessons.
    """
    plain = teacher.propose(shown, teacher.Start("fit"))
    best = (0.0, -1, plain)
    for number, start in enumerate(teacher.LIKE_HUMAN if shown.ycb_id else ()):
        proposal = teacher.propose(shown, start, plain.T_base_world)
        share = lifted_share(proposal.commands, proposal.placed, best[0])
        if share > best[0]:
            best = (share, number, proposal)
        if share >= ENOUGH:
            break
    share, number, proposal = best
    touch = teacher.play(proposal.commands, proposal.placed).touch
    return Lesson(
        proposal.commands,
        proposal.object_pos,
        proposal.object_rot,
        touch,
        proposal.T_base_world,
        plain.commands[0],
        shown.ycb_id,
        shown.mirrored,
        number,
        share,
    )


def lifted_share(commands: Float[np.ndarray, "n 22"], placed: SceneObject, enough: float = 0.0) -> float:
    """In how many of `PLACES` the object is lifted, 0 where not in the first; counting ends where `enough` is out of
    reach.
    """
    count = 0
    for tried, (x, y) in enumerate(PLACES):
        there = dataclasses.replace(placed, pos=(placed.pos[0] + x, placed.pos[1] + y, placed.pos[2]))
        count += teacher.lifted(teacher.play(commands, there), there)
        if not count or (count + len(PLACES) - 1 - tried) / len(PLACES) <= enough:
            break
    return count / len(PLACES)


def lessons(
    source: DexYCB, folder: Path, num_workers: int, report: Callable[[int], None] = lambda n: None
) -> dict[int, Lesson]:
    """By index of `DexYCB.sequences`; made by `num_workers` processes (0: this one) where `folder` does not hold them.

    Files of other versions, ways to start or data are left alone: their names differ. Raises UserError for a file that
    cannot be read.
    """
    first = {}
    for clip, run in zip(source.clips(), source.runs, strict=True):
        first.setdefault(run.sequence, clip)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {k: folder / f"{_key(source, k)}.npz" for k in first}
    missing = [k for k, path in paths.items() if not path.exists()]
    report(len(paths) - len(missing))
    if not num_workers:
        for k in missing:
            _make(source, first[k], paths[k])
            report(1)
    elif missing:
        context = multiprocessing.get_context("spawn")  # JAX runs threads, which a fork would lose
        with concurrent.futures.ProcessPoolExecutor(num_workers, context) as pool:
            waiting = [pool.submit(_make, source, first[k], paths[k]) for k in missing]
            try:
                for done in concurrent.futures.as_completed(waiting):
                    done.result()
                    report(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return {k: _read(path) for k, path in paths.items()}


def _make(source: DexYCB, clip: range, path: Path) -> None:
    lesson = teach(demonstration(recording(source, clip)))
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(lesson))


def _key(source: DexYCB, sequence: int) -> str:
    """Of a lesson's file: the sequence, and a hash of all that the lesson hangs on but its labels."""
    folder = source.sequences[sequence].folder
    made_of = (VERSION, str(source.root.resolve()), teacher.LIKE_HUMAN, PLACES.tolist(), ENOUGH)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    return f"{folder.parent.name}_{folder.name}_{digest}"


def _read(path: Path) -> Lesson:
    try:
        with np.load(path) as file:
            fields = {name: file[name] for name in Lesson.__dataclass_fields__}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a lesson ({error}); delete it, it is made again") from error
    scalars = {"ycb_id": int, "mirrored": bool, "start": int, "share": float}
    return Lesson(**{name: scalars[name](x) if name in scalars else x for name, x in fields.items()})
