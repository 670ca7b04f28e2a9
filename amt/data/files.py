"""The files of the DexYCB layout, one at a time; what is missing or broken is a `FileError` that names it.

Layout: https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/dex_ycb.py)
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jaxtyping import Float32

from amt.errors import UserError
from amt.storage import POINTER_HINT, is_pointer

MAX_OBJECTS = 10
META_FIELDS = ("serials", "num_frames", "extrinsics", "ycb_ids", "ycb_grasp_ind", "mano_sides", "mano_calib")
HAND_POSE_SIZES = (48, 51)  # without and with the translation
# NumPy reads an array's header with `ast`, which in CPython 3.11 fails now and then (SystemError) where two threads are
# in it at once: https://github.com/python/cpython/issues/106905
PARSING = threading.Lock()
TABLE = "apriltag"  # in extrinsics.yml: the tag that lies on the table


class FileError(UserError):
    """A file of the data set that is missing or broken: its `path` and the `reason`."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def describe(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return "not there"
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"


def unreadable(path: Path, error: Exception, expected: str) -> FileError:
    """The error of a file that is not what is `expected`, or a Git LFS pointer to it."""
    return FileError(path, POINTER_HINT if is_pointer(path) else f"{describe(error)}; expected {expected}")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML, and the one Python tag that DexYCB's calibration uses."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node)))


def read_yaml(path: Path) -> Any:
    """A YAML file; of Python's own tags only tuples, nothing is executed.

    Raises: FileError if it is missing or is not such a file.
    """
    try:
        text = path.read_text()
        if is_pointer(text.encode()):  # which is YAML, too
            raise FileError(path, POINTER_HINT)
        return yaml.load(text, _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise unreadable(path, error, "a YAML file of DexYCB") from error


def read_bytes(path: Path) -> bytes:
    """A file as it is. Raises: FileError, also for a Git LFS pointer."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(path, describe(error)) from error
    if is_pointer(content):
        raise FileError(path, POINTER_HINT)
    return content


def read_depth(path: Path) -> Float32[np.ndarray, "h w"]:
    """A depth image (PNG, uint16 millimetres) in metres, 0 where the sensor saw nothing. Raises: FileError."""
    depth = cv2.imdecode(np.frombuffer(read_bytes(path) or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        found = "no image" if depth is None else f"{depth.dtype} of shape {depth.shape}"
        raise FileError(path, f"found {found}; expected a PNG of uint16 millimetres")
    return depth.astype(np.float32) / 1000


def read_meta(path: Path, read: Callable[[Path], Any] = read_yaml) -> dict[str, Any]:
    """A sequence's meta.yml, the serials as text and sorted: cameras are counted by number. Raises: FileError."""
    meta = read(path)
    missing = [name for name in META_FIELDS if not isinstance(meta, dict) or name not in meta]
    if missing:
        raise FileError(path, f"no {', '.join(missing)}; expected {', '.join(META_FIELDS)}")
    for name in ("serials", "ycb_ids", "mano_sides", "mano_calib"):
        if not isinstance(meta[name], (list, tuple)):
            raise FileError(path, f"{name} is {meta[name]!r}; expected a list")
    if len(meta["mano_sides"]) != 1 or len(meta["mano_calib"]) != 1:
        raise FileError(path, f"{len(meta['mano_sides'])} hands; expected exactly one in mano_sides and mano_calib")
    if len(meta["ycb_ids"]) > MAX_OBJECTS:
        raise FileError(path, f"{len(meta['ycb_ids'])} objects; expected at most {MAX_OBJECTS}")
    if not isinstance(meta["num_frames"], int) or meta["num_frames"] < 0:
        raise FileError(path, f"num_frames is {meta['num_frames']!r}; expected a count")
    return {**meta, "serials": sorted(str(serial) for serial in meta["serials"])}


def read_arrays(
    path: Path,
    names: tuple[str, ...],
    optional: tuple[str, ...] = (),
    expected: str = "the labels of a DexYCB frame",
) -> dict[str, np.ndarray]:
    """Named arrays of an .npz file, and those `optional` ones that it has. Raises: FileError."""
    try:
        with PARSING, np.load(path) as file:
            return {name: file[name] for name in (*names, *(name for name in optional if name in file))}
    except Exception as error:  # a damaged archive raises whatever its bytes lead to
        raise unreadable(path, error, expected) from error


def read_labels(path: Path, meta: dict[str, Any], with_seg: bool) -> dict[str, Any]:
    """One frame's labels as `DexYCB` gives them.

    Raises: FileError if the file is missing or broken, an array has the wrong shape or holds NaN.
    """
    names = ("pose_y", "pose_m", "joint_3d", "joint_2d")
    arrays = read_arrays(path, (*names, "seg") if with_seg else names)
    num_objects = len(meta["ycb_ids"])
    if problems := shape_problems(arrays, num_objects) or nan_problems(arrays):
        raise FileError(path, problems[0])
    joints_3d = arrays["joint_3d"].reshape(21, 3).astype(np.float32)
    joints_2d = arrays["joint_2d"].reshape(21, 2).astype(np.float32)
    hand_pose = np.zeros(51, np.float32)
    hand_pose[: arrays["pose_m"].size] = arrays["pose_m"].ravel()
    object_pose = np.zeros((MAX_OBJECTS, 3, 4), np.float32)
    object_pose[:num_objects] = arrays["pose_y"].reshape(num_objects, 3, 4)
    joints_valid = not (joints_3d == -1).all()
    object_ids = np.zeros(MAX_OBJECTS, np.int32)
    object_ids[:num_objects] = meta["ycb_ids"]
    grasps = meta["ycb_ids"] and not meta.get("bare_hand")  # the generator's mark (`synthetic.writing`)
    sample = {
        "joints_3d": joints_3d * joints_valid,
        "joints_2d": joints_2d * joints_valid,
        "joints_valid": np.bool_(joints_valid),
        "hand_pose": hand_pose,
        "hand_pose_valid": np.bool_(hand_pose.any()),
        "object_pose": object_pose,
        "object_ids": object_ids,
        "object_valid": object_pose.any((1, 2)),
        "grasped": np.int32(meta["ycb_grasp_ind"] if grasps else -1),
    }
    return {**sample, "seg": arrays["seg"]} if with_seg else sample


def shape_problems(arrays: dict[str, np.ndarray], num_objects: int) -> list[str]:
    """What is wrong with the shapes and types of a frame's labels, one line each."""
    expected = {
        "pose_y": ((num_objects, 3, 4),),
        "pose_m": tuple(shape for n in HAND_POSE_SIZES for shape in ((1, n), (n,))),
        "joint_3d": ((1, 21, 3), (21, 3)),
        "joint_2d": ((1, 21, 2), (21, 2)),
    }
    problems = []
    for name, shapes in expected.items():
        found = arrays[name]
        if found.shape not in shapes or found.dtype.kind not in "fiu":
            problems.append(f"{name} is {found.dtype} of shape {found.shape}; expected numbers of shape {shapes[0]}")
    seg = arrays.get("seg")
    if seg is not None and (seg.ndim != 2 or seg.dtype != np.uint8):
        problems.append(f"seg is {seg.dtype} of shape {seg.shape}; expected uint8 of the image's height and width")
    return problems


def nan_problems(arrays: dict[str, np.ndarray]) -> list[str]:
    """Which of a frame's labels hold values that are not finite, one line each."""
    counts = {name: int((~np.isfinite(array)).sum()) for name, array in arrays.items() if name != "seg"}
    return [f"{name} has {count} values that are not finite" for name, count in counts.items() if count]


class Calibration:
    """The calibration files below a root, each read once; a sequence's meta says which of them it uses."""

    def __init__(self, root: Path, read: Callable[[Path], Any] = read_yaml):
        self.folder = root / "calibration"
        self._read, self._files = read, {}
        paths = sorted((self.folder / "intrinsics").glob("*_*x*.yml"))  # SERIAL_WIDTHxHEIGHT.yml
        self._intrinsics = {path.name.rpartition("_")[0]: path for path in paths}

    def intrinsics_path(self, serial: str) -> Path:
        """The file that is there, else the one that DexYCB has."""
        return self._intrinsics.get(serial, self.folder / "intrinsics" / f"{serial}_640x480.yml")

    def extrinsics_path(self, meta: dict[str, Any]) -> Path:
        return self.folder / f"extrinsics_{meta['extrinsics']}" / "extrinsics.yml"

    def intrinsics(self, serial: str) -> Float32[np.ndarray, "3 3"]:
        """`K` in pixels. Raises: FileError."""
        path = self.intrinsics_path(serial)
        color = self._get(path, "color")
        try:
            fx, fy, cx, cy = (float(color[name]) for name in ("fx", "fy", "ppx", "ppy"))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(path, f"{describe(error)}; expected fx, fy, ppx and ppy in color") from error
        return _finite(path, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32))

    def extrinsics(self, serial: str, meta: dict[str, Any]) -> Float32[np.ndarray, "4 4"]:
        """`T_world_camera` in metres; of the serial `TABLE` that of the table. Raises: FileError."""
        path = self.extrinsics_path(meta)
        T_world_camera = np.eye(4, dtype=np.float32)
        try:
            rows = {str(key): value for key, value in self._get(path, "extrinsics").items()}
            T_world_camera[:3] = np.asarray(rows[serial], np.float32).reshape(3, 4)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(path, f"{describe(error)}; expected 12 numbers of {serial}") from error
        return _finite(path, T_world_camera)

    def betas(self, meta: dict[str, Any]) -> Float32[np.ndarray, " 10"]:
        """The hand's shape. Raises: FileError."""
        path = self.folder / f"mano_{meta['mano_calib'][0]}" / "mano.yml"
        try:
            betas = np.asarray(self._get(path, "betas"), np.float32)
        except (TypeError, ValueError) as error:
            raise FileError(path, f"{describe(error)}; expected 10 numbers in betas") from error
        if betas.shape != (10,):
            raise FileError(path, f"betas of shape {betas.shape}; expected 10 numbers")
        return _finite(path, betas)

    def _get(self, path: Path, name: str) -> Any:
        if path not in self._files:
            self._files[path] = self._read(path)
        content = self._files[path]
        if not isinstance(content, dict) or name not in content:
            raise FileError(path, f"no {name!r}; expected a DexYCB calibration file")
        return content[name]


def _finite(path: Path, array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise FileError(path, "has values that are not finite numbers")
    return array
