"""Scalars and pictures land where a user looks for them, and only the first process writes."""

import csv
import struct
import sys
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from amt.errors import UserError
from amt.training.health import Health
from amt.training.step import SKIPPED
from amt.training.writers import MetricLog, open_writers

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def table(folder):
    with (folder / "scalars.csv").open() as file:
        return [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


def events(folder):
    """Values of all event files: records of a length, its checksum, the bytes, their checksum."""
    for path in sorted((folder / "tensorboard").glob("events*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            yield from ((event.step, value) for value in event.summary.value)
            data = data[16 + size :]


def test_files_and_tensorboard_hold_the_same_and_go_on_after_a_restart(tmp_path):
    for step in (10, 20):
        writers = open_writers(tmp_path, "", {}, first=step - 10)
        writers.write_scalars(step, {"loss": 0.5 / step, "val_mpjpe_mm": float(step)})
        writers.write_image(step, IMAGE)
        writers.close()
    rows = table(tmp_path)
    assert rows == [(10, "loss", 0.05), (10, "val_mpjpe_mm", 10.0), (20, "loss", 0.025), (20, "val_mpjpe_mm", 20.0)]
    seen = list(events(tmp_path))
    scalars = [(step, v.tag, v.simple_value) for step, v in seen if v.WhichOneof("value") == "simple_value"]
    assert [s[:2] for s in scalars] == [r[:2] for r in rows]
    np.testing.assert_allclose([s[2] for s in scalars], [r[2] for r in rows], rtol=1e-6)
    pictures = {step: v.image.encoded_image_string for step, v in seen if v.WhichOneof("value") == "image"}
    for step in (10, 20):
        for png in (pictures[step], (tmp_path / "images" / f"step_{step}.png").read_bytes()):
            decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            np.testing.assert_array_equal(decoded, IMAGE)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    writers = open_writers(tmp_path, "a project", {})
    writers.write_scalars(1, {"loss": 1.0})
    writers.write_image(1, IMAGE)
    writers.close()
    assert not list(tmp_path.iterdir())


def test_wandb_is_asked_for_by_its_project_and_stays_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb_project=hands: the package wandb is not installed; pip install"):
        open_writers(tmp_path, "hands", {})
    calls = []
    run = SimpleNamespace(log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finish"))
    fake = SimpleNamespace(init=lambda **how: calls.append(how) or run, Image=lambda image: image.shape)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    writers = open_writers(tmp_path, "hands", {"model": 1})
    writers.write_scalars(3, {"loss": 1.0})
    writers.write_image(3, IMAGE)
    writers.close()
    assert calls[0]["mode"] == "offline" and calls[0]["project"] == "hands" and calls[0]["config"] == {"model": 1}
    assert calls[1:] == [(3, {"loss": 1.0}), (3, {"validation": IMAGE.shape}), "finish"]


def test_metrics_are_read_one_step_late_and_averaged():
    written, fetched = {}, []

    class Value:
        """A scalar that notes when it is fetched."""

        def __init__(self, step):
            self.step = step

        def __array__(self, dtype=None, copy=None):
            fetched.append(self.step)
            return np.array(float(self.step))

    writer = SimpleNamespace(write_scalars=lambda step, scalars: written.update({step: scalars}))
    log = MetricLog(writer, batch_size=4, health=Health(3))
    for step in (1, 2, 3):
        line = log.add(step, {"loss": Value(step), SKIPPED: np.float32(0)}, waited=0.0, last=step == 3)
        assert fetched == ([1, 2, 3] if step == 3 else list(range(1, step)))
        assert bool(line) == (step == 3)
    assert line.startswith("loss 2.000  ") and "input wait 0%" in line
    assert list(written) == [3] and written[3]["loss"] == 2.0 and written[3]["skipped_updates"] == 0
