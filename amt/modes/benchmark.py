"""`--mode=benchmark`: frames per second of each link, on the embedded clip; of feeding, if there is a data set; and the
train step of the configured model against its roofline.
"""

import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from amt import hand as hand_model
from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.data.pipeline import to_mesh
from amt.data.quarantine import Quarantine
from amt.evaluation.roofline import random_batch, step_roofline
from amt.evaluation.throughput import contenders, shares, take_turns
from amt.inference.intrinsics import make_camera
from amt.inference.predictor import load_predictor
from amt.inference.video import read_frames
from amt.models.cost import products
from amt.models.factory import frozen_parameters
from amt.modes.common import Progress
from amt.modes.demo import clip_camera
from amt.modes.train import augment_config, build_model, fresh_params, network, objective, optimizer_config
from amt.robot import build_scene, replay, retarget
from amt.training.optimizer import make_optimizer
from amt.training.sharding import batch_sharding, make_mesh, one_device_mesh
from amt.training.step import create_state, make_train_step


def run(config, workdir: Path, input: str | None) -> dict:
    """Each link runs once to compile, then `config.benchmark.repeats` times; the median counts.

    With `config.data.root` also what feeds the train step (`amt.evaluation.throughput`), with
    `config.benchmark.step_batch_size` also the step of the configured model against its roofline.
    """
    repeats = config.benchmark.repeats
    with resources.as_file(resources.files("amt.inference").joinpath("assets")) as assets:
        clip = read_frames(assets / "demo_clip.mp4")
        known = clip_camera(assets)
        height, width = clip.frames.shape[1:3]
        camera = make_camera(*known, width, height, config.camera.horizontal_fov).camera
        predictor = load_predictor(config.predict.checkpoint)
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
        figures = {"frames": n, "device": jax.devices()[0].device_kind, "repeats": repeats}
        with Progress(len(links), "links") as progress:
            for name, link in links.items():
                figures[f"{name}_frames_per_s"] = n / _median_seconds(link, repeats)
                progress.update(note=name)
    figures |= feeding(config, workdir) if config.data.root else {}
    return figures | (train_step(config) if config.benchmark.step_batch_size else {})


def train_step(config) -> dict:
    """`amt.evaluation.roofline` of the configured model's train step on one device.

    Weights, pictures and labels are random, DINOv2's too: this is a speed and says nothing else of the model.
    """
    size = config.benchmark.step_batch_size
    model, _ = build_model(config)
    hand = jax.tree.map(jnp.asarray, hand_model.load())
    mesh, component = one_device_mesh(), config.train.component
    optimizer = make_optimizer(optimizer_config(config), component, frozen_parameters(model))
    state = create_state(fresh_params(config, model, hand), optimizer, mesh, config.train.sigma_reparam, component)
    goal = objective(config, size)
    step = make_train_step(model, optimizer, goal, config.train.ema_decay, hand, state, mesh)
    frame_size = None if network(config) == "perception" else config.finder.frame_size
    batch = to_mesh(random_batch(size, config.data.image_size, frame_size), batch_sharding(mesh))
    counts = products(step, state, batch)
    with Progress(len(counts), "products of the train step") as progress:
        figures = step_roofline(step, state, batch, counts, config.benchmark.repeats, progress.update)
    return {"step_batch_size": size, "step_weights": "random", **figures}


def feeding(config, workdir: Path) -> dict:
    """Samples per second of processor time, and shares of the limit of decoding and warping, turn by turn."""
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
    return {
        **{f"{name}_samples_per_cpu_s": float(np.median(values)) for name, values in rates.items()},
        **{f"{name}_share_of_decode_warp": share for name, share in shares(rates, "decode_warp").items()},
        "cache_over_augmented": shares(rates, "augmented")["cache"],
    }


def _median_seconds(link: Callable[[], object], repeats: int) -> float:
    jax.block_until_ready(link())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(link())
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
