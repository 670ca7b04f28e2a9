"""What a prediction leaves on the disk, and how: all files of a run at once, or none."""

import csv
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.structs import Prediction, Trajectory

PREFIX, LOCK = ".part-", ".lock"


@contextmanager
def all_or_nothing(workdir: str | Path, names: Iterable[str]) -> Iterator[Path]:
    """Gives an empty folder for the files `names`; when the block ends well they replace those in `workdir`.

    A name that was not written is removed from `workdir`: a result of an earlier run must not stand beside
    newer ones. When the block fails nothing in `workdir` changes; inside of it SIGTERM and SIGHUP end the process as an
    error does (exit status 128 + number). What killed processes left is removed, other living ones are left alone.
    Raises `UserError` where the work directory cannot be written.
    """
    workdir = Path(workdir)
    _remove_leftovers(workdir)
    try:
        folder, lock = _locked_folder(workdir)
    except OSError as error:
        raise UserError(f"{workdir}: cannot write there ({error.strerror}); give a directory that exists") from error
    try:
        with _signals(_end, signal.SIGTERM, signal.SIGHUP):
            yield folder
        with _signals(signal.SIG_IGN, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # all files or none
            for name in names:
                if (folder / name).exists():
                    (folder / name).replace(workdir / name)
                else:
                    (workdir / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _locked_folder(workdir: Path) -> tuple[Path, IO]:
    """A new folder, and the lock on it: the kernel lets it go however this process ends, on all hosts that see it."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=workdir))
    unnamed = folder / f"{LOCK}.new"  # it gets its name when it is locked: nobody may find it in between
    try:
        lock = unnamed.open("w")
    except OSError:
        folder.rmdir()
        raise
    with suppress(OSError):  # a file system without locks: nobody can tell a leftover there, so none is removed
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(folder / LOCK)
    return folder, lock


def _remove_leftovers(workdir: Path) -> None:
    """Removes the folders whose process is gone."""
    for path in workdir.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), path.open("r+") as file:  # locked: its process lives
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


@contextmanager
def _signals(handler: Callable | signal.Handlers, *numbers: int) -> Iterator[None]:
    """Another handler for signals that have Python's own. Only the main thread can set one; others leave them."""
    in_main = threading.current_thread() is threading.main_thread()
    own = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in numbers if in_main and signal.getsignal(n) in own}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{signal.Signals(number).name}: ended, nothing is written\n".encode())  # print is not safe here
    raise SystemExit(128 + number)


def write_trajectory(
    path: str | Path,
    trajectory: Trajectory,
    stamps: Float[np.ndarray, " T"],
    prediction: Prediction,
    limits: Float[np.ndarray, "22 2"],
) -> None:
    """Writes a .npz: the commands (names as in `Trajectory`), `joint_limits` and the predictions behind them.

    `hand_*`, `object_*` and `contact_*` are the fields of `HandPose`, `ObjectPoses` and `Contacts`, in the
    camera frame, of the frames at `frame_time`, which are `stamps` (seconds).
    """
    parts = {"hand": prediction.hand, "object": prediction.objects, "contact": prediction.contacts}
    fields = {
        f"{part}_{name}": np.asarray(getattr(value, name))
        for part, value in parts.items()
        for name in value.__dataclass_fields__
    }
    np.savez_compressed(
        path,
        time=np.asarray(trajectory.time),
        frame_time=np.asarray(stamps),
        qpos=np.asarray(trajectory.qpos),
        valid=np.asarray(trajectory.valid),
        names=np.array(trajectory.names),
        T_base_world=np.asarray(trajectory.T_base_world),
        joint_limits=np.asarray(limits),
        K=np.asarray(prediction.camera.K),
        T_world_camera=np.asarray(prediction.camera.T_world_camera),
        joint_confidence=np.asarray(prediction.joint_confidence),
        side_confidence=np.asarray(prediction.side_confidence),
        **fields,
    )


def write_commands(path: str | Path, trajectory: Trajectory) -> None:
    """Writes a CSV: `time_s`, `valid` (1 or 0) and one column a joint in radians."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", "valid", *trajectory.names])
        rows = zip(trajectory.time, trajectory.valid, np.asarray(trajectory.qpos), strict=True)
        for time, valid, qpos in rows:
            writer.writerow([f"{time:.6f}", int(valid), *(f"{value:.6f}" for value in qpos)])
