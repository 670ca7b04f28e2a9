"""`--mode=train` of stage 2: a policy learns to act from what perception, which does not change, sees in videos."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from amt.data.dexycb import DexYCB, find_root
from amt.data.hand_labels import HandIds
from amt.data.packed import open_source
from amt.errors import UserError
from amt.inference.acting import play_chunks
from amt.inference.clips import Video, videos
from amt.inference.observing import Observer, misplaced
from amt.inference.predictor import Predictor
from amt.models import weights
from amt.models.factory import build_policy
from amt.models.policy import Policy
from amt.models.temporal import Observation
from amt.modes import train as training
from amt.modes.common import Progress
from amt.modes.hands import check_labels, load_hand
from amt.robot import load_robot
from amt.training import sharding, teacher
from amt.training.action_labels import action_labels
from amt.training.feed import host_feed
from amt.training.lessons import lessons
from amt.training.policy import PolicyBatch, policy_loss, video_iterator
from amt.training.step import Objective, jit_once

SCORES = ("val_tips_mm", "val_wrist_mm")  # which are best where they are lowest


class Prepared(NamedTuple):
    """What stage 2 trains and from what: perception's parameters, and the videos as it sees them."""

    policy: Policy
    params: dict
    settings: dict
    mean: dict
    taught: bool
    observer: Observer
    learned: list[Video]


def run(config, workdir: Path) -> dict:
    """Lessons and what is seen are kept below `config.teacher.folder`, or the work directory."""
    made = prepare(config, workdir)
    _, held_out = watched(config, made.observer, workdir, "val")
    check_held_out(config, held_out)
    start = time.monotonic()
    validate = validation(acting(made.policy), held_out, config.train.replays)
    state, scores, averaged = training.learn(config, workdir, made.settings, learning(config, made), validate)
    if jax.process_index() == 0:
        weights.save(
            workdir / "weights.safetensors",
            averaged,
            made.settings,
            made.mean,
            made.taught,
            hand=made.observer.predictor.hand.fingerprint,
        )
    return {
        "steps": int(state.step),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params["policy"])),
        "train_videos": len(made.learned),
        "train_s": time.monotonic() - start,
        **scores,
        "weights": str(workdir / "weights.safetensors"),
    }


def prepare(config, workdir: Path) -> Prepared:
    """Raises UserError for a score or weights that stage 2 does not go with."""
    check_best_metric(config)
    path = weights.resolve(config.train.start_from)
    params, settings, mean = weights.load(path)
    weights.check_architecture(settings, weights.architecture(config.to_dict()), str(path))
    taught = weights.contacts_taught(path)
    hand = load_hand(config.hand)
    weights.check_hand(path, hand)
    observer = Observer(Predictor(params, settings, hand, taught))
    _, learned = watched(config, observer, workdir, config.data.part)
    policy = build_policy(config.fusion, config.actions, config.train.blocks.to_dict())
    settings = settings | {"policy": weights.policy_architecture(config.to_dict())}
    return Prepared(policy, params, settings, mean, taught, observer, learned)


def learning(config, made: Prepared) -> training.Learning:
    """The policy starts from random numbers, drawn by `config.seed`."""
    batches = varied(config, made.learned)
    params = made.params | {"policy": fresh_policy(made.policy, config.seed, batches[0])}
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch(config.train.batch_size, mesh, "config.train.batch_size")
    size = config.train.batch_size * config.train.accumulation
    loss = policy_loss(made.policy, Objective(config.train.action_loss.to_dict(), "policy"), config.seed)
    feed = host_feed(video_iterator(batches, config.train.window, size, config.seed, config.train.turn), mesh)
    return training.Learning(mesh, loss, feed, training.optimizer_config(config, len(made.learned)), params)


def check_best_metric(config) -> None:
    if config.train.best_metric not in SCORES:
        raise UserError(f"config.train.best_metric={config.train.best_metric}: expected one of {', '.join(SCORES)}")


def check_held_out(config, held_out: list[Video]) -> None:
    """Raises UserError where no video that is held out has a lesson to compare with."""
    if not any(v.lesson.share or not v.lesson.ycb_id for v in held_out):
        raise UserError(f"{config.data.root}: the teacher fails in all videos that are held out")


def watched(config, observer: Observer, workdir: Path, part: str) -> tuple[DexYCB, list[Video]]:
    """The videos of a part with their lessons; what is missing is made. `UserError` where there is none."""
    folder = Path(config.teacher.folder or workdir)
    hand = observer.predictor.hand
    source = open_source(find_root(config.data.root), config.data.split, part, hands=HandIds.of(hand))
    check_labels(source, hand)
    count = len({run.sequence for run in source.runs})
    with Progress(count, f"lessons of {part}") as progress:
        known = lessons(source, folder / "lessons", config.teacher.num_workers, progress.update)
    clips = len(source.clips())
    with Progress(clips, f"videos of {part}") as progress:
        found = list(videos(observer, source, known, folder / "seen", progress.update))
    if not found:
        raise UserError(f"{source}: no hand was seen in any of {clips} videos; there is nothing to learn")
    failed = sum(not v.lesson.share and v.lesson.ycb_id > 0 for v in found)
    print(f"{part}: {len(found)} of {clips} videos show a hand; the teacher fails in {failed}", file=sys.stderr)
    return source, found


def varied(config, learned: list[Video]) -> list[PolicyBatch]:
    """Every video as it was seen and as it might have been."""
    batches = (to_batch(video, config.actions.num_steps) for video in learned)
    return [
        batch.replace(seen=seen)
        for batch, ways in zip(batches, variants(config, learned), strict=True)
        for seen in ways
    ]


def variants(config, learned: list[Video]) -> list[list[Observation]]:
    """What was seen in each video, and `train.variants` times as if hand and object had been seen elsewhere."""
    robot, made = load_robot(), []
    errors = (config.train.depth_error, config.train.angle_error, config.train.variants)
    with Progress(len(learned), "videos and their variants") as progress:
        for number, video in enumerate(learned):
            rng = np.random.default_rng((config.seed, number))
            made.append([video.seen, *misplaced(robot, video.seen, video.lesson.home, rng, *errors)])
            progress.update(1)
    return made


def to_batch(video: Video, num_steps: int) -> PolicyBatch:
    return PolicyBatch(video.seen, action_labels(video.lesson, video.times, video.seen.valid, num_steps))


def fresh_policy(policy: Policy, seed: int, example: PolicyBatch) -> dict:
    one = jax.tree.map(lambda x: x[None, :1], example.seen)
    return jit_once(policy.init)(jax.random.key(seed), one)["params"]


def to_replay(held_out: list[Video], replays: int) -> list[Video]:
    """As many videos with an object, evenly spaced."""
    grasps = [v for v in held_out if v.lesson.ycb_id]
    return grasps[:: max(1, len(grasps) // max(replays, 1))][:replays]


def validation(act: Callable[[dict, Video], np.ndarray], held_out: list[Video], replays: int):
    """Mean distance of commanded fingertips and wrist to the lesson's, and in how many of `replays` videos, evenly
    spaced, MuJoCo C lifts the object. `act` gives commands by all parameters.
    """
    played = to_replay(held_out, replays)

    def validate(params) -> dict[str, float]:
        tips, wrist, lifts = [], [], []
        for video in held_out:
            commands = act(params, video)
            if video.lesson.share or not video.lesson.ycb_id:
                off = teacher.frame_errors(commands, video.lesson.commands)
                tips.append(off["tips"])
                wrist.append(off["wrist"])
            if any(video is v for v in played):
                placed = video.lesson.placed
                lifts.append(teacher.lifted(teacher.play(commands, placed), placed))
        scores = {"val_tips_mm": tips, "val_wrist_mm": wrist}
        scores = {name: 1e3 * float(np.mean(np.concatenate(x))) for name, x in scores.items() if x}
        return scores | ({"val_lift_share": float(np.mean(lifts))} if lifts else {})

    return validate


def acting(policy: Policy) -> Callable[[dict, Video], np.ndarray]:
    """(parameters, video) -> commands at `teacher.RATE`, [n,22]."""
    decide = jax.jit(lambda params, seen: policy.apply({"params": params}, seen)[0].commands)

    def act(params, video: Video) -> np.ndarray:
        chunks = np.asarray(decide(params["policy"], jax.tree.map(lambda x: x[None], video.seen)))[0]
        return played_chunks(chunks, video)

    return act


def played_chunks(chunks: np.ndarray, video: Video) -> np.ndarray:
    first, length = video.lesson.home, len(video.lesson.commands)
    return play_chunks(chunks, video.times, video.seen.valid, first, teacher.RATE, length)
