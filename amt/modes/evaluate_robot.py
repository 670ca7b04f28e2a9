"""`--mode=evaluate --config.eval.robot=True`: how often the robot lifts what the human lifted, in MuJoCo C."""

import sys
from pathlib import Path

import numpy as np

from amt.data.demonstrations import demonstration, recording
from amt.data.dexycb import find_root
from amt.data.images import decode
from amt.data.packed import open_source
from amt.errors import UserError
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.robot import as_predicted, sight, summary, trial
from amt.inference.clips import videos
from amt.inference.observing import Observer
from amt.inference.predictor import Predictor
from amt.models import weights
from amt.models.factory import build_policy
from amt.modes.common import Progress, write_json
from amt.modes.hands import load_hand
from amt.modes.train_policy import acting
from amt.robot.render import RenderUnavailable
from amt.training import teacher
from amt.training.lessons import Lesson, lessons
from amt.viz.evaluation_report import write_robot_report
from amt.viz.films import trial_film
from amt.viz.robot_section import FILE

FILM_FPS = 25.0


def run(config, workdir: Path) -> dict:
    """Trials of every video with an object: one row each in `WORKDIR/robot_trials.json`, films of some,
    and the report about them.

    Origins of the commands: `true`, kinematic retargeting of the labels; `predicted`, of what perception sees;
    `teacher`, the lesson, chosen by replay; `policy`, where the weights have one. A video in which no hand is seen
    counts as not lifted. `seen_` are errors of what perception sees (`amt.evaluation.robot.sight`), means over videos.
    Raises UserError where the weights are of another architecture and without any object.
    """
    path = weights.resolve(config.eval.checkpoint)
    params, settings, mean = weights.load(path)
    expected = weights.architecture(config.to_dict())
    if "policy" in params:
        expected |= {"policy": weights.policy_architecture(config.to_dict())}
    weights.check_architecture(settings, expected, str(path))
    hand = load_hand(config.hand)
    weights.check_hand(path, hand)
    observer = Observer(Predictor(params, settings, hand, weights.contacts_taught(path)))
    act = acting(build_policy(config.fusion, config.actions)) if "policy" in params else None
    source = open_source(find_root(config.data.root), config.data.split, config.eval.part)
    folder = Path(config.teacher.folder or workdir)
    with Progress(len({r.sequence for r in source.runs}), "lessons") as progress:
        known = lessons(source, folder / "lessons", config.teacher.num_workers, progress.update)
    clips = source.clips()
    with Progress(len(clips), "videos") as progress:
        seen = {v.number: v for v in videos(observer, source, known, folder / "seen", progress.update)}
    origins = ("true", "predicted", "teacher", *(["policy"] if act else []))
    rows, acted, sights = [], [], []
    with Progress(len(clips), "trials") as progress:
        for number, (clip, run) in enumerate(zip(clips, source.runs, strict=True)):
            lesson = known[run.sequence]
            if lesson.ycb_id:
                recorded = recording(source, clip)
                shown = demonstration(recorded)
                commands = {"true": _followed(shown, lesson), "teacher": lesson.commands}
                if number in seen:
                    video = seen[number]
                    sights.append(sight(video.seen, shown, lesson.T_base_world))
                    blind = as_predicted(shown, video.joints, video.seen.valid, recorded.T_table_camera)
                    commands["predicted"] = _followed(blind, lesson)
                    if act:
                        commands["policy"] = act(params, video)
                trials = {o: trial(commands[o], lesson) if o in commands else _nothing() for o in origins}
                name = source.sequences[run.sequence].folder.name
                rows.append({"sequence": name, "camera": run.camera, "ycb_id": lesson.ycb_id, "trials": trials})
                acted.append((number, commands.get(origins[-1])))
            progress.update(1)
    if not rows:
        raise UserError(f"{source}: no video shows a grasped object; there is nothing to lift")
    write_json(workdir / FILE, {"weights": path.name, "weights_sha256": weights.fingerprint(path), "trials": rows})
    _films(config.eval.films, workdir, source, known, rows, acted, origins[-1])
    if config.eval.report:
        write_robot_report(workdir, source, TrainingMean.from_json(mean), str(config), hand)
    figures = summary({o: [row["trials"][o] for row in rows] for o in origins})
    if sights:
        figures |= {f"seen_{name}": float(np.mean([row[name] for row in sights])) for name in sights[0]}
    return {"weights": path.name, "videos": len(rows), "videos_seen": len(seen), **figures}


def _films(count: int, workdir: Path, source, known: dict[int, Lesson], rows, acted, origin: str) -> None:
    """`WORKDIR/films/ORIGIN_lifted_SEQUENCE_CAMERA.mp4` and `..._failed_...`: up to `count` of each, evenly spaced."""
    chosen = []
    for lifted, word in ((1.0, "lifted"), (0.0, "failed")):
        fits = [
            k for k, row in enumerate(rows) if row["trials"][origin]["lifted"] == lifted and acted[k][1] is not None
        ]
        chosen += [(k, word) for k in fits[:: max(1, len(fits) // max(count, 1))][:count]]
    if not chosen:
        return
    (workdir / "films").mkdir(exist_ok=True)
    with Progress(len(chosen), "films") as progress:
        for k, word in chosen:
            number, commands = acted[k]
            recorded, lesson = recording(source, source.clips()[number]), known[source.runs[number].sequence]
            path = workdir / "films" / f"{origin}_{word}_{rows[k]['sequence']}_{rows[k]['camera']}.mp4"
            images = np.stack([decode(sample["color"]) for sample in recorded.samples])
            T = np.tile(np.eye(4), (len(lesson.commands), 1, 1))
            T[:, :3, :3], T[:, :3, 3] = lesson.object_rot, lesson.object_pos
            played = teacher.play(commands, lesson.placed)
            try:
                trial_film(path, recorded.times, images, played, lesson.placed, T, FILM_FPS)
            except RenderUnavailable as error:
                print(f"no films: {error}", file=sys.stderr)
                return
            progress.update(1)


def _followed(shown, lesson) -> np.ndarray:
    return teacher.propose(shown, teacher.Start("fit"), lesson.T_base_world).commands


def _nothing() -> dict[str, float]:
    """The trial of a video in which no hand was seen."""
    names = ("object_position_mm", "wrist_mm", "tips_mm", "peak_force_n", "slip_mm", "effort_rad2")
    return {"lifted": 0.0, **dict.fromkeys(names, float("nan"))}
