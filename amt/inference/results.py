"""What a prediction leaves on the disk, and how: all files of a run at once, or none."""

import csv
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.structs import Prediction, Trajectory


@contextmanager
def all_or_nothing(workdir: str | Path, names: Iterable[str]) -> Iterator[Path]:
    """Gives an empty folder for the files `names`; when the block ends well they replace those in `workdir`.

    A name that was not written is removed from `workdir`: a result of an earlier run must not stand beside
    newer ones. When the block fails nothing in `workdir` changes. Raises `UserError` where the work directory
    cannot be written.
    """
    workdir = Path(workdir)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=workdir))
    except OSError as error:
        raise UserError(f"{workdir}: cannot write there ({error.strerror}); give a directory that exists") from error
    try:
        yield folder
        for name in names:
            if (folder / name).exists():
                (folder / name).replace(workdir / name)
            else:
                (workdir / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
