"""`--mode=evaluate --config.eval.robot=True`: how often the robot lifts what the human lifted, in MuJoCo C."""

from pathlib import Path

import numpy as np

from amt import hand as hand_model
from amt.data.demonstrations import demonstration, recording
from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.errors import UserError
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.robot import as_predicted, summary, trial
from amt.inference.clips import videos
from amt.inference.observing import Observer
from amt.inference.predictor import Predictor
from amt.models import weights
from amt.models.factory import build_policy
from amt.modes.common import Progress, write_json
from amt.modes.train_policy import acting
from amt.training import teacher
from amt.training.lessons import lessons
from amt.viz.evaluation_report import write_robot_report
from amt.viz.robot_section import FILE


def run(config, workdir: Path) -> dict:
    """Trials of every video with an object: one row each in `WORKDIR/robot_trials.json`, and the report about them.

    Origins of the commands: `true`, kinematic retargeting of the labels; `predicted`, of what perception sees;
    `teacher`, the lesson, chosen by replay; `policy`, where the weights have one. A video in which no hand is seen
    counts as not lifted. Raises UserError where the weights are of another architecture and without any object.
    """
    path = weights.resolve(config.eval.checkpoint)
    params, settings, mean = weights.load(path)
    expected = weights.architecture(config.to_dict())
    if "policy" in params:
        expected |= {"policy": weights.policy_architecture(config.to_dict())}
    weights.check_architecture(settings, expected, str(path))
    observer = Observer(Predictor(params, settings, hand_model.load(), weights.contacts_taught(path)))
    act = acting(build_policy(config.fusion, config.actions)) if "policy" in params else None
    source = open_source(find_root(config.data.root), config.data.split, config.eval.part)
    folder = Path(config.teacher.folder or workdir)
    with Progress(len({r.sequence for r in source.runs}), "lessons") as progress:
        known = lessons(source, folder / "lessons", config.teacher.num_workers, progress.update)
    clips = source.clips()
    with Progress(len(clips), "videos") as progress:
        seen = {v.number: v for v in videos(observer, source, known, folder / "seen", progress.update)}
    origins = ("true", "predicted", "teacher", *(["policy"] if act else []))
    rows = []
    with Progress(len(clips), "trials") as progress:
        for number, (clip, run) in enumerate(zip(clips, source.runs, strict=True)):
            lesson = known[run.sequence]
            if lesson.ycb_id:
                recorded = recording(source, clip)
                shown = demonstration(recorded)
                commands = {"true": _followed(shown, lesson), "teacher": lesson.commands}
                if number in seen:
                    video = seen[number]
                    blind = as_predicted(shown, video.joints, video.seen.valid, recorded.T_table_camera)
                    commands["predicted"] = _followed(blind, lesson)
                    if act:
                        commands["policy"] = act(params, video)
                trials = {o: trial(commands[o], lesson) if o in commands else _nothing() for o in origins}
                name = source.sequences[run.sequence].folder.name
                rows.append({"sequence": name, "camera": run.camera, "ycb_id": lesson.ycb_id, "trials": trials})
            progress.update(1)
    if not rows:
        raise UserError(f"{source}: no video shows a grasped object; there is nothing to lift")
    write_json(workdir / FILE, {"weights": path.name, "trials": rows})
    if config.eval.report:
        write_robot_report(workdir, source, path.name, TrainingMean.from_json(mean), str(config))
    figures = summary({o: [row["trials"][o] for row in rows] for o in origins})
    return {"weights": path.name, "videos": len(rows), "videos_seen": len(seen), **figures}


def _followed(shown, lesson) -> np.ndarray:
    return teacher.propose(shown, teacher.Start("fit"), lesson.T_base_world).commands


def _nothing() -> dict[str, float]:
    """The trial of a video in which no hand was seen."""
    names = ("object_position_mm", "wrist_mm", "tips_mm", "peak_force_n", "slip_mm", "effort_rad2")
    return {"lifted": 0.0, **dict.fromkeys(names, float("nan"))}
