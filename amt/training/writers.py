"""Where scalars and pictures of a training run go: a CSV, PNG files, TensorBoard, and Weights & Biases if asked."""

import csv
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import jax
import numpy as np
from jaxtyping import UInt8

from amt.errors import UserError
from amt.storage import write_whole, writing
from amt.training.health import Health
from amt.training.step import SKIPPED

Image = UInt8[np.ndarray, "height width 3"]


class Writer(Protocol):
    """Takes what a run says of itself; `step` counts updates from the start of the first run. Pictures are RGB."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def write_image(self, step: int, image: Image) -> None: ...

    def close(self) -> None:
        """Whatever was written is on the disk then."""


def open_writers(workdir: Path, wandb_project: str, settings: Mapping[str, Any], first: int = 0) -> "Writers":
    """All of them in the first process, none in the others; a run that goes on behind step `first` in the same files.

    `settings` are shown beside a run of Weights & Biases, which `wandb_project` switches on: on the disk only, unless
    $WANDB_MODE says online. Raises `UserError` where it is asked for and not installed.
    """
    if jax.process_index():
        return Writers(workdir)
    wandb = [_open_wandb(workdir, wandb_project, settings)] if wandb_project else []
    return Writers(workdir, Files(workdir, first), TensorBoard(workdir / "tensorboard", first), *wandb)


class Writers:
    """Several as one, which write below `folder`. Raises `UserError` where the disk does not take it."""

    def __init__(self, folder: Path, *writers: Writer):
        self.folder, self.writers = folder, writers

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._each(lambda writer: writer.write_scalars(step, scalars))

    def write_image(self, step: int, image: Image) -> None:
        self._each(lambda writer: writer.write_image(step, image))

    def close(self) -> None:
        self._each(lambda writer: writer.close())

    def _each(self, call: Callable[[Writer], None]) -> None:
        for writer in self.writers:
            with writing(self.folder):
                call(writer)


class Files:
    """`scalars.csv` with rows of step, name, value, and `images/step_N.png`.

    Rows beyond the step `first`, and one that was not finished, are dropped: they will be written again.
    """

    def __init__(self, folder: Path, first: int = 0):
        self.table, self.images = folder / "scalars.csv", folder / "images"
        if not self.table.exists():
            return
        head, *lines = self.table.read_text().splitlines(keepends=True) or [""]
        rows = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= first]
        write_whole(self.table, head + "".join(rows))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        new = not self.table.exists()
        with self.table.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("step", "name", "value"))
            writer.writerows((step, name, f"{value:.6g}") for name, value in scalars.items())

    def write_image(self, step: int, image: Image) -> None:
        self.images.mkdir(exist_ok=True)
        _, png = cv2.imencode(".png", image[..., ::-1])
        (self.images / f"step_{step}.png").write_bytes(png.tobytes())

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files, read by `tensorboard --logdir=FOLDER`; what an earlier run wrote beyond `first` is not shown.

    Written as it comes: tensorboardX's SummaryWriter does so in a thread, and waits for ever for one that a full disk
    has ended.
    """

    def __init__(self, folder: Path, first: int = 0):
        self.folder, self.first = folder, first

    @functools.cached_property
    def events(self) -> Any:
        """Made by the first line: importing it takes seconds, in which the device works."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.folder.mkdir(parents=True, exist_ok=True)
        # By its own name a file of the same second is written over.
        events = EventsWriter(str(self.folder / "events"), f".{time.time_ns()}")
        log = SessionLog(status=SessionLog.START)  # of which TensorBoard leaves out later steps of earlier files
        events.write_event(Event(wall_time=time.time(), step=self.first + 1, session_log=log))
        return events

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        self._write(step, *(scalar(name, value) for name, value in scalars.items()))

    def write_image(self, step: int, image: Image) -> None:
        from tensorboardX.summary import image as picture

        self._write(step, picture("validation", image, dataformats="HWC"))

    def _write(self, step: int, *summaries: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        for summary in summaries:
            self.events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self.events.flush()

    def close(self) -> None:
        if "events" in vars(self):
            self.events.close()


class Wandb:
    """A run of Weights & Biases."""

    def __init__(self, run: Any, image: Any):
        self.run, self.image = run, image

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self.run.log(dict(scalars), step=step)

    def write_image(self, step: int, image: Image) -> None:
        self.run.log({"validation": self.image(image)}, step=step)

    def close(self) -> None:
        self.run.finish()


def _open_wandb(workdir: Path, project: str, settings: Mapping[str, Any]) -> Wandb:
    try:
        import wandb
    except ImportError:
        raise UserError(
            f"config.train.wandb_project={project}: the package wandb is not installed; "
            "pip install -e '.[wandb]', or leave the field empty: TensorBoard files are written anyway"
        ) from None
    mode = os.environ.get("WANDB_MODE", "offline")
    run = wandb.init(project=project, dir=str(workdir), mode=mode, config=dict(settings), name=workdir.resolve().name)
    return Wandb(run, wandb.Image)


class MetricLog:
    """Reads the metrics of a step one step late, and writes their means every so many.

    `metrics` are those of the steps since the last line, of which a run that goes on has some `before`.
    """

    def __init__(self, writer: Writer, batch_size: int, health: Health, before: list[dict[str, float]] | None = None):
        self.writer, self.batch_size, self.health = writer, batch_size, health
        self.pending: tuple[int, dict] | None = None
        self.metrics = list(before or [])
        self.steps, self.waited, self.start = 0, 0.0, time.monotonic()

    def add(self, step: int, metrics: dict[str, jax.Array], waited: float, last: bool) -> str:
        """`waited` seconds for the input. Where the step is the `last` of a line, writes it and returns it to be shown.

        Raises `UserError` as `Health.look` does.
        """
        self.flush()
        self.pending = (step, metrics)
        self.waited += waited
        if not last:
            return ""
        self.flush()
        seconds = time.monotonic() - self.start
        means = {k: float(np.mean([s[k] for s in self.metrics])) for k in (self.metrics or [{}])[0]}
        speed = {
            "samples_per_s": self.batch_size * self.steps / seconds,
            "input_wait_share": self.waited / seconds,
            "skipped_updates": self.health.skipped,
        }
        self.writer.write_scalars(step, {**means, **speed})
        self.metrics, self.steps, self.waited, self.start = [], 0, 0.0, time.monotonic()
        return "  ".join(
            (
                f"loss {means.get('loss', np.nan):.3f}",
                *[f"hand {means[k] * 100:.1f} mm" for k in ("hand_refined", "hand_coarse") if k in means][:1],
                f"{speed['samples_per_s']:.0f} samples/s",
                f"input wait {speed['input_wait_share']:.0%}",
            )
        )

    def flush(self) -> None:
        """Fetch the pending metrics; those of updates that were left out do not count in the means."""
        if self.pending is None:
            return
        step, metrics = self.pending
        self.pending = None
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        self.steps += 1
        if self.health.look(step, values):
            del values[SKIPPED]
            self.metrics.append(values)
