"""`--mode=benchmark`: frames per second of each link, on the embedded clip; and of feeding, if there is a data set."""

import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
import numpy as np

from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.data.quarantine import Quarantine
from amt.evaluation.throughput import contenders, shares, take_turns
from amt.inference.intrinsics import make_camera
from amt.inference.predictor import load_predictor
from amt.inference.video import read_frames
from amt.modes.common import Progress
from amt.modes.demo import clip_camera
from amt.modes.train import augment_config
from amt.robot import build_scene, replay, retarget
from amt.training.sharding import make_mesh


def run(config, workdir: Path, input: str | None) -> dict:
    """Each link runs once to compile, then `config.benchmark.repeats` times; the median counts.

    With `config.data.root` also what feeds the train step (`amt.evaluation.throughput`).
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
    return figures | feeding(config, workdir) if config.data.root else figures


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
