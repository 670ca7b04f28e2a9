"""`--mode=benchmark`: frames per second of each link, on the embedded clip; of feeding, if there is a data set; and the
train step of the configured model: compiling, speed, who is waited for, and its roofline.

`measured` in the result has every run behind a median, for experiments/benchmark/compare.py.
"""

import itertools
import os
import platform
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from amt.data.dexycb import find_root
from amt.data.hand_labels import HandIds
from amt.data.packed import open_source
from amt.data.pipeline import to_mesh
from amt.data.quarantine import Quarantine
from amt.evaluation.roofline import random_batch, step_roofline
from amt.evaluation.step_times import breakdown, compile_seconds, steady_rates
from amt.evaluation.stream_times import stream_seconds
from amt.evaluation.throughput import contenders, shares, take_turns
from amt.inference.intrinsics import make_camera
from amt.inference.predictor import load_predictor
from amt.inference.video import read_frames
from amt.models.cost import products
from amt.models.factory import build_policy, frozen_parameters
from amt.modes.common import Progress
from amt.modes.demo import clip_camera
from amt.modes.hands import load_hand
from amt.modes.profile import learning
from amt.modes.train import (
    POLICY_STAGES,
    Learning,
    augment_config,
    build_model,
    check_stage,
    fresh_params,
    make_feed,
    network,
    objective,
    optimizer_config,
    transform_config,
)
from amt.robot import build_scene, replay, retarget
from amt.structs import Batch
from amt.training.feed import Feed
from amt.training.optimizer import make_optimizer
from amt.training.sharding import batch_sharding, check_batch, make_mesh, one_device_mesh
from amt.training.step import create_state, make_train_step, perception_loss

STEADY_STEPS = 10  # in a row, for samples per second


def run(config, workdir: Path, input: str | None) -> dict:
    """Each link runs once to compile, then `config.benchmark.repeats` times; the median counts.

    `stream_` are figures of a policy that is given one frame after the other (`amt.evaluation.stream_times`).

    With `config.data.root` also what feeds the train step (`amt.evaluation.throughput`), with
    `config.benchmark.step_batch_size` also the step of the configured model. Raises `UserError` for a
    `train.batch_size` that data cannot be fed in, as `auto`.
    """
    if config.data.root:
        check_batch(config.train.batch_size, make_mesh(**config.mesh), "config.train.batch_size")
    repeats = config.benchmark.repeats
    with resources.as_file(resources.files("amt.inference").joinpath("assets")) as assets:
        clip = read_frames(assets / "demo_clip.mp4")
        known = clip_camera(assets)
        height, width = clip.frames.shape[1:3]
        camera = make_camera(*known, width, height, config.camera.horizontal_fov).camera
        predictor = load_predictor(config.predict.checkpoint, load_hand(config.hand))
        frames, n = clip.frames, len(clip.frames)
        K = np.tile(np.asarray(camera.K, np.float64), (n, 1, 1))
        found = predictor.find(frames)
        left = np.zeros(n, bool)
        prediction = predictor(frames, camera)
        trajectory = retarget(prediction.hand, fps=clip.fps, T_world_camera=camera.T_world_camera)
        links: dict[str, Callable[[], object]] = {
            "decode": lambda: read_frames(assets / "demo_clip.mp4"),
            "find": lambda: predictor.find(frames),
            "encode": lambda: predictor.perceive(frames, K, found.box, left),
            "track": lambda: predictor(frames, camera),
            "retarget": lambda: retarget(prediction.hand, fps=clip.fps, T_world_camera=camera.T_world_camera),
            "replay": lambda: replay(trajectory, build_scene(timestep=config.replay.substep)),
        }
        figures = {"frames": n, "device": jax.devices()[0].device_kind, "machine": machine(), "repeats": repeats}
        measured = {}
        with Progress(len(links), "links") as progress:
            for name, link in links.items():
                measured[f"{name}_frames_per_s"] = [n / seconds for seconds in _seconds(link, repeats)]
                progress.update(note=name)
        fusion, actions = (predictor.settings.get("policy", config)[name] for name in ("fusion", "actions"))
        policy = build_policy(fusion, actions)
        side = bool(prediction.hand.is_left[prediction.hand.valid].mean() > 0.5)
        seconds = stream_seconds(predictor, policy, frames, camera, trajectory, side, repeats)
        measured["stream_frames_per_s"] = [1 / float(run.mean()) for run in seconds]
        figures |= {f"stream_p{p}_ms": 1e3 * float(np.percentile(seconds, p)) for p in (50, 99)}
        figures["stream_policy"] = "given" if "policy" in predictor.settings else "drawn"
    for part in (feeding,) * bool(config.data.root) + (train_step,) * bool(config.benchmark.step_batch_size):
        more, runs = part(config, workdir)
        figures |= more
        measured |= runs
    medians = {name: float(np.median(values)) for name, values in measured.items()}
    return {**figures, **medians, "measured": measured}


def machine() -> dict:
    """What a comparison of two results should know."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": (names or [platform.processor()])[0],
        "cores": len(os.sched_getaffinity(0)),
        "platform": jax.default_backend(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "load_before": os.getloadavg()[0],
    }


def train_step(config, workdir: Path) -> tuple[dict, dict]:
    """Figures and runs of the configured stage's train step: `amt.evaluation.step_times` and, but for stage 3, in which
    a simulation takes as many turns as it needs, `roofline`.

    Stages 1a and 1b are timed on one device. Weights are random, DINOv2's too, and so are pictures and labels where
    there is no `data.root`: this is a speed and says nothing else of the model. Stages 2 and 3 are timed on the data
    and the weights that they would train on (`config.data.root`, `config.train.start_from`).
    """
    config = config.copy_and_resolve_references()
    size = config.train.batch_size = config.benchmark.step_batch_size
    config.train.accumulation = 1  # one batch of that size
    repeats, component = config.benchmark.repeats, config.train.component
    check_stage(config)
    of_policy = config.train.stage in POLICY_STAGES
    made = (learning if of_policy else _perception)(config, workdir)
    optimizer = make_optimizer(made.optimizer, component, made.frozen)
    state = create_state(made.params, optimizer, made.mesh, config.train.sigma_reparam, component)
    feed = made.feed

    def make(prepare):
        return make_train_step(made.loss, optimizer, config.train.ema_decay, state, made.mesh, prepare)

    def read():
        return feed.place(next(feed.iterator))

    step, plain = make(feed.prepare), make(None)
    compiled = compile_seconds(step, state, read())
    state, _ = jax.block_until_ready(step(state, read()))
    state, times = breakdown(step, state, read, repeats)
    state, rates = steady_rates(step, state, read, STEADY_STEPS, repeats)
    figures = {}
    if config.train.stage != "3":
        batch = read() if of_policy else to_mesh(_whole(config), batch_sharding(made.mesh))
        counts = products(plain, state, batch)
        with Progress(len(counts), "products of the train step") as progress:
            figures = step_roofline(plain, state, batch, counts, repeats, progress.update)
    names = {
        "step_batch_size": size,
        "step_stage": config.train.stage,
        "step_weights": (config.train.start_from or "embedded") if of_policy else "random",
        "step_data": config.data.root or "random",
    }
    measured = {f"step_{name}": values for name, values in times.items()}
    measured["step_samples_per_s"] = [size * rate for rate in rates]
    return names | {f"step_{name}": seconds for name, seconds in compiled.items()} | figures, measured


def _perception(config, workdir: Path) -> Learning:
    """Of stages 1a and 1b, on one device, with random weights."""
    model, _ = build_model(config)
    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))
    mesh = one_device_mesh()
    split = batch_sharding(mesh)
    feed = Feed(itertools.repeat(_whole(config)), lambda b: to_mesh(b, split))
    if config.data.root:
        hands = HandIds.of(hand)
        source = open_source(find_root(config.data.root), config.data.split, config.data.part, hands=hands)
        feed = make_feed(config, source, transform_config(config, network(config)), mesh, Quarantine(workdir))
    loss = perception_loss(model, objective(config, config.train.batch_size), hand)
    params = fresh_params(config, model, hand)
    return Learning(mesh, loss, feed, optimizer_config(config), params, frozen_parameters(model))


def _whole(config) -> Batch:
    """A random batch as perception's train step takes it."""
    frame_size = None if network(config) == "perception" else config.finder.frame_size
    return random_batch(config.train.batch_size, config.data.image_size, frame_size)


def feeding(config, workdir: Path) -> tuple[dict, dict]:
    """Figures and runs: shares of the limit of decoding and warping, turn by turn; samples per processor second."""
    source = open_source(find_root(config.data.root), config.data.split, config.data.part)
    read, augmentation = augment_config(config)
    turns = contenders(
        source,
        read,
        augmentation,
        make_mesh(**config.mesh),
        config.train.batch_size,
        config.benchmark.batches,
        Quarantine(workdir),
    )
    samples = config.benchmark.batches * config.train.batch_size
    rates = take_turns(turns, samples, config.benchmark.repeats)
    figures = {f"{name}_share_of_decode_warp": share for name, share in shares(rates, "decode_warp").items()}
    figures["cache_over_augmented"] = shares(rates, "augmented")["cache"]
    return figures, {f"{name}_samples_per_cpu_s": values.tolist() for name, values in rates.items()}


def _seconds(link: Callable[[], object], repeats: int) -> list[float]:
    jax.block_until_ready(link())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(link())
        seconds.append(time.perf_counter() - start)
    return seconds
