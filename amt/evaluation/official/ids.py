"""How the official toolkits count frames, and what their files' readers have in common.

Source: https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/dex_ycb.py)
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from amt.data.dexycb import DexYCB
from amt.data.files import describe
from amt.data.images import read_size
from amt.errors import UserError
from amt.storage import refuse_pointer

KEYFRAME = 4  # every fourth frame of a video is a target of the BOP scores
METRES_BELOW = 10.0  # millimetres: nothing is seen so near; numbers that small are metres


class BopIds(NamedTuple):
    """`scene_id` and `im_id` of every sample of a part."""

    scene: Int[np.ndarray, " n"]
    image: Int[np.ndarray, " n"]


def bop_ids(source: DexYCB) -> BopIds:
    """A scene is what one camera took of one sequence: sequence x cameras + camera, both counted in the part only.

    The samples themselves are counted as in `source`: sequence-major, then camera, then frame.
    """
    _, sequence = np.unique([run.sequence for run in source.runs], return_inverse=True)
    cameras, camera = np.unique([run.camera for run in source.runs], return_inverse=True)
    frames = [run.num_frames for run in source.runs]
    return BopIds(np.repeat(sequence * len(cameras) + camera, frames), np.concatenate([np.arange(n) for n in frames]))


def image_size(source: DexYCB) -> tuple[int, int]:
    """Width and height of a data set's images, pixels, from its first one."""
    return read_size(source[0]["color"])


def read_text(path: Path) -> str:
    """A results file as it is. Raises: UserError where it cannot be read."""
    refuse_pointer(path)
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {describe(error)}; expected a results file of the DexYCB toolkit") from error


def numbers(values: list[str], where: str) -> list[float]:
    """Text to numbers. Raises: UserError for what is none."""
    try:
        return [float(value) for value in values]
    except ValueError as error:
        raise UserError(f"{where}: {str(error).rpartition(': ')[2]} is not a number") from error


def counts(values: list[str], names: list[str], where: str) -> list[int]:
    """Text to whole numbers. Raises: UserError for what is none."""
    found = []
    for value, name in zip(values, names, strict=True):
        try:
            found.append(int(value))
        except ValueError:
            raise UserError(f"{where}: {name} is {value.strip()!r}; expected a whole number") from None
    return found


def check_unit(path: Path, distances: np.ndarray) -> None:
    """Raises: UserError where distances from the camera that should be millimetres are metres."""
    middle = float(np.median(distances))
    if 0 < middle < METRES_BELOW:
        raise UserError(
            f"{path}: wrong unit: the median distance from the camera is {middle:.3g}, as if in metres; "
            "expected millimetres"
        )
