"""`--mode=benchmark`: frames per second of each link, on the embedded clip."""

import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
import numpy as np

from amt.inference.intrinsics import make_camera
from amt.inference.predictor import load_predictor
from amt.inference.video import read_frames
from amt.modes.common import Progress
from amt.modes.demo import clip_camera
from amt.robot import build_scene, replay, retarget


def run(config, workdir: Path, input: str | None) -> dict:
    """Each link runs once to compile, then `config.benchmark.repeats` times; the median counts."""
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
    return figures


def _median_seconds(link: Callable[[], object], repeats: int) -> float:
    jax.block_until_ready(link())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(link())
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
