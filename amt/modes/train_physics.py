"""`--mode=train` of stage 3: perception and policy learn together, from pixels to what the simulated object does.

With `train.component=policy` the policy learns alone, from what perception has seen: more rollouts in the same time.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
from grain import experimental
from jaxtyping import Int

from amt.data.dexycb import DexYCB
from amt.data.pipeline import eval_batches, train_dataset
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.hand import HandModel
from amt.inference.acting import shares
from amt.inference.clips import Video, crops
from amt.inference.observing import Observer
from amt.inference.predictor import Predictor
from amt.losses.actions import ActionLabels
from amt.models import weights
from amt.models.factory import build_policy, from_settings, frozen_parameters
from amt.models.perception import Amt
from amt.models.policy import Policy
from amt.models.temporal import Observation
from amt.modes import train as training
from amt.modes import train_policy, validation
from amt.modes.hands import load_hand
from amt.structs import HandClip
from amt.training import sharding
from amt.training.action_labels import action_labels
from amt.training.feed import host_feed
from amt.training.policy import PolicyBatch, check_window, turned, window_dataset
from amt.training.rollouts import (
    ROLLOUT,
    PhysicsBatch,
    PracticeBatch,
    RolloutConfig,
    Task,
    actor,
    num_commands,
    object_models,
    physics_loss,
    practice_loss,
    task,
    turned_task,
)
from amt.training.step import Loss, Objective
from amt.training.teacher import MOVED, RATE

BEFORE = (0.35, 0.75)  # share of a window, from its start to where the human's object leaves the table


class Prepared(NamedTuple):
    """What stage 3 trains, with the parameters that it starts from, and what it learns from."""

    model: Amt
    policy: Policy
    hand: HandModel
    params: dict
    settings: dict
    mean: dict
    taught: bool
    source: DexYCB
    observer: Observer
    windows: "PhysicsWindows | PracticeWindows"


def run(config, workdir: Path) -> dict:
    """Starts from the weights of stage 2, whose scores are `start_` + their names."""
    made, quarantine = prepare(config, workdir), Quarantine(workdir, jax.process_index())
    validate, draw = validation_of(config, made, workdir, quarantine)
    begin = time.monotonic()
    learned = learning(config, made, quarantine)
    state, scores, averaged = training.learn(config, workdir, made.settings, learned, validate, draw)
    if jax.process_index() == 0:
        weights.save(
            workdir / "weights.safetensors", averaged, made.settings, made.mean, made.taught, hand=made.hand.fingerprint
        )
    return {
        "steps": int(state.step),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "train_videos": len(made.windows.videos),
        "train_s": time.monotonic() - begin,
        **{f"start_{name}": x for name, x in validate(made.params).items()},
        **scores,
        "weights": str(workdir / "weights.safetensors"),
    }


def prepare(config, workdir: Path) -> Prepared:
    """Raises UserError for weights without a policy, and for ways to read that stage 3 does not know."""
    train_policy.check_best_metric(config)
    if config.data.augment != "host" or config.data.feed != "stream":
        raise UserError(
            f"config.data.augment={config.data.augment}, config.data.feed={config.data.feed}: stage 3 reads with "
            "augment=host and feed=stream"
        )
    path = weights.resolve(config.train.start_from)
    given, settings, mean = weights.load(path)
    if "policy" not in given:
        raise UserError(
            f"config.train.start_from={config.train.start_from}: {path} has no policy; expected weights of stage 2"
        )
    expected = weights.architecture(config.to_dict()) | {"policy": weights.policy_architecture(config.to_dict())}
    weights.check_architecture(settings, expected, str(path))
    taught, hand = weights.contacts_taught(path), load_hand(config.hand)
    weights.check_hand(path, hand)
    observer = Observer(Predictor(given, settings, hand, taught))
    source, learned = train_policy.watched(config, observer, workdir, config.data.part)
    learned = [video for video in learned if video.lesson.ycb_id]
    if not learned:
        raise UserError(f"{source}: no video shows a grasped object; there is nothing to play")
    how = config.train.window, config.actions.num_steps, config.rollout.displaced
    if alone(config):
        windows = PracticeWindows(learned, train_policy.variants(config, learned), config.train.turn, *how)
    else:
        windows = PhysicsWindows(observer, source, learned, *how)
    model = from_settings(settings, config.backbone.to_dict(), config.train.blocks.to_dict())
    policy = build_policy(config.fusion, config.actions, config.train.blocks.to_dict())
    hand = jax.tree.map(jnp.asarray, hand)
    params, _ = training.first_params(config, model, hand, training.given_backbone(config, model))
    params |= {"policy": given["policy"]}
    return Prepared(model, policy, hand, params, settings, mean, taught, source, observer, windows)


def learning(config, made: Prepared, quarantine: Quarantine) -> training.Learning:
    mesh = sharding.make_mesh(**config.mesh)
    feed = host_feed(iter(batches(config, made, mesh, quarantine)), mesh)
    optimizer = training.optimizer_config(config, len(made.windows.videos))
    return training.Learning(mesh, loss_of(config, made), feed, optimizer, made.params, frozen_parameters(made.model))


def loss_of(config, made: Prepared) -> Loss:
    videos = made.windows.videos
    weights, rollouts = objective(config, len(videos)), rollout_config(config)
    models = object_models(video.lesson.ycb_id for video in videos)
    about = config.seed, config.train.accumulation
    if alone(config):
        return practice_loss(made.policy, weights, rollouts, models, *about)
    return physics_loss(made.model, made.policy, weights, rollouts, models, made.hand, *about)


def alone(config) -> bool:
    """Whether only the policy learns, or a part of it."""
    return training.network(config) == "policy"


def batches(config, made: Prepared, mesh, quarantine: Quarantine) -> grain.IterDataset:
    """Of `PhysicsBatch`, or of `PracticeBatch` where the policy learns alone."""
    size, samples = config.train.batch_size, config.rollout.perception_batch_size
    sharding.check_batch(size, mesh, "config.train.batch_size")
    windows = window_dataset(
        made.windows, len(made.windows.videos), size * config.train.accumulation, config.seed, num_threads=2
    )
    if alone(config):
        return windows
    sharding.check_batch(samples, mesh, "config.rollout.perception_batch_size")
    seen = train_dataset(
        made.source,
        training.transform_config(config),
        samples * config.train.accumulation,
        config.seed,
        config.data.num_workers,
        quarantine,
    )
    return experimental.ZipIterDataset([windows, seen]).map(lambda both: both[0].replace(perception=both[1]))


def validation_of(config, made: Prepared, workdir: Path, quarantine: Quarantine):
    """The scores of perception and of the policy from the pixels on, and the pictures, of `amt.training.loop.train`."""
    val, held_out = train_policy.watched(config, made.observer, workdir, "val")
    train_policy.check_held_out(config, held_out)
    if alone(config):
        return train_policy.validation(train_policy.acting(made.policy), held_out, config.train.replays), None
    held_out = train_policy.to_replay(held_out, config.train.replays)
    transforms, clips = training.transform_config(config), {}
    for video in held_out:
        clips[video.number] = crops(made.observer, val, video, range(len(video.times)))
    seen = list(eval_batches(val, transforms, config.eval.batch_size, training.VALIDATION_SAMPLES, quarantine))
    perceive = validation.perceiver(made.model, made.hand)
    sees = validation.validation(made.model, perceive, seen)
    act = acting(made.model, made.policy, made.hand, clips)
    acts = train_policy.validation(act, held_out, config.train.replays)
    return lambda params: sees(params) | acts(params), validation.pictures(perceive, seen)


def rollout_config(config) -> RolloutConfig:
    chosen = {f.name: config.rollout[f.name] for f in dataclasses.fields(RolloutConfig) if f.name != "weights"}
    return RolloutConfig(weights=config.rollout.weights.to_dict(), **chosen)


def objective(config, num_videos: int) -> Objective:
    """Of all terms: perception's, cloning's and the rollouts'."""
    seen = training.objective(config, num_videos)
    weights = {**seen.weights, **config.train.action_loss.to_dict(), ROLLOUT: config.rollout.weight}
    return dataclasses.replace(seen, weights=weights)


def acting(model, policy, hand, clips: dict[int, HandClip]) -> Callable[[dict, Video], np.ndarray]:
    """As `train_policy.acting`, but from the pixels on."""
    decide = jax.jit(lambda params, clip: actor(model, policy, hand)(params, clip, {}).commands)

    def act(params, video: Video) -> np.ndarray:
        chunks = decide(params, jax.tree.map(lambda x: x[None], clips[video.number]))
        return train_policy.played_chunks(np.asarray(chunks)[0], video)

    return act


class _Windows(grain.RandomMapTransform):
    """The batch of a window out of each of several videos, about the moment of the grasp.

    Of every window as many commands are played as the one of the most frames a second has. Objects are `displaced` on
    the table by normal numbers of this deviation, metres.
    """

    def __init__(self, videos: Sequence[Video], length: int, num_steps: int, displaced: float):
        self.videos, self.length, self.num_steps, self.displaced = videos, length, num_steps, displaced
        check_window(length, min(len(video.times) for video in videos))
        self.labels = [action_labels(v.lesson, v.times, v.seen.valid, num_steps) for v in videos]
        seconds = min(float(v.times[length - 1] - v.times[0]) for v in videos)
        self.num_commands = num_commands(seconds)

    def random_map(self, indices: Int[np.ndarray, " b"], rng: np.random.Generator) -> Any:
        return jax.tree.map(lambda *x: np.stack(x), *(self.window(int(i), rng) for i in indices))

    def part(self, index: int, rng: np.random.Generator) -> tuple[slice, ActionLabels, Task]:
        """Of a video: the frames of a window, and what should be done there."""
        video = self.videos[index]
        first = self.first_frame(video, rng.uniform(*BEFORE))
        part = slice(first, first + self.length)
        times, valid = video.times[part], np.asarray(video.seen.valid)[part]
        say = shares(times - times[0], valid, self.num_steps, RATE, self.num_commands)
        aside = rng.normal(0, self.displaced, 2)
        labels = jax.tree.map(lambda x: x[part], self.labels[index])
        return part, labels, task(video.lesson, float(times[0]), say, aside)

    def first_frame(self, video: Video, before: float) -> int:
        """So that a share `before` of the window has passed when the human's object leaves the table."""
        rises = video.lesson.object_pos[:, 2] - video.lesson.object_pos[0, 2] > MOVED
        grasp = (rises.argmax() if rises.any() else len(rises) - 1) / RATE
        start = grasp - before * (video.times[self.length - 1] - video.times[0])
        return int(np.clip(np.searchsorted(video.times, start), 0, len(video.times) - self.length))


class PhysicsWindows(_Windows):
    """Of `PhysicsBatch`, without perception's part."""

    def __init__(self, observer: Observer, source: DexYCB, *args):
        super().__init__(*args)
        self.observer, self.source = observer, source

    def window(self, index: int, rng: np.random.Generator) -> PhysicsBatch:
        part, labels, wanted = self.part(index, rng)
        clip = crops(self.observer, self.source, self.videos[index], range(part.start, part.stop))
        return PhysicsBatch(clip, labels, wanted, None)


class PracticeWindows(_Windows):
    """Of `PracticeBatch`: one of the ways in which each video was `seen`, turned by up to `turn` radians either way."""

    def __init__(self, videos: Sequence[Video], seen: Sequence[Sequence[Observation]], turn: float, *args):
        super().__init__(videos, *args)
        self.seen, self.turn = seen, turn

    def window(self, index: int, rng: np.random.Generator) -> PracticeBatch:
        part, labels, wanted = self.part(index, rng)
        ways = self.seen[index]
        seen = jax.tree.map(lambda x: np.asarray(x)[part], ways[rng.integers(len(ways))])
        angle = float(rng.uniform(-self.turn, self.turn))
        both = turned(PolicyBatch(seen, labels), angle)
        return PracticeBatch(both.seen, both.labels, turned_task(wanted, angle))
