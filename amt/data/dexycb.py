"""DexYCB from the disk, one sample at a time: a Grain source that reads what the dataset's authors lay out.

Layout and splits: Chao et al., "DexYCB: A Benchmark for Capturing Hand Grasping of Objects", CVPR 2021, and
https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/dex_ycb.py). The synthetic generator writes the
same layout.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from amt.errors import UserError

MAX_OBJECTS = 10
SPLITS = ("s0", "s1", "s2", "s3")
PARTS = ("train", "val", "test", "all")  # all: of a set that is held out as a whole


class Run(NamedTuple):
    """The frames that one camera took of one sequence; `sequence` indexes `DexYCB.sequences`."""

    sequence: int
    camera: int
    num_frames: int


class Sequence(NamedTuple):
    """One recording: `subject` and `index` (its place among the subject's, sorted by name) count from 0."""

    folder: Path
    subject: int
    index: int
    meta: dict[str, Any]


def part_of(split: str, subject: int, sequence: int, camera: int) -> str:
    """The official part of a recording seen by a camera; all three count from 0.

    s0 is about new sequences, s1 about new subjects, s2 about new cameras, s3 about new grasped objects
    (every subject grasps an object in 5 sequences in a row). The official data has 100 sequences per subject
    and 8 cameras; smaller sets follow the same rules, so a subject with fewer than 5 sequences has no
    held-out one in s0.
    """
    if split == "s0":
        return "train" if sequence % 5 != 4 else "val" if subject < 2 else "test"
    if split == "s1":
        return {6: "val", 7: "test", 8: "test"}.get(subject, "train")
    if split == "s2":
        return {6: "val", 7: "test"}.get(camera, "train")
    return {3: "val", 19: "val", 7: "test", 11: "test", 15: "test"}.get(sequence // 5, "train")


def make_runs(sequences: list[tuple[int, int, int, int]], split: str, part: str) -> list[Run]:
    """The runs of a part, sequence-major, then camera; a sequence is (subject, index, cameras, frames)."""
    return [
        Run(position, camera, num_frames)
        for position, (subject, index, num_cameras, num_frames) in enumerate(sequences)
        for camera in range(num_cameras)
        if part in ("all", part_of(split, subject, index, camera))
    ]


def find_root(root: str) -> Path:
    """`config.data.root`, or $DEX_YCB_DIR where that is empty.

    Raises: UserError if neither names a folder.
    """
    name = root or os.environ.get("DEX_YCB_DIR", "")
    if not name:
        raise UserError(
            "--config.data.root: no data set; name a folder in the DexYCB layout here or in $DEX_YCB_DIR "
            "(--mode=generate writes one)"
        )
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UserError(f"{'--config.data.root' if root else '$DEX_YCB_DIR'}: {name} is not a folder")
    return path


class DexYCB:
    """Random access to the samples of a part of a split, sequence-major, then camera, then frame.

    `source[i]` is a dict of numpy arrays in the camera frame, named as in `amt.structs.Batch`: `color` (the
    JPEG file's bytes), `K` [3,3] pixels, `T_world_camera` [4,4], `joints_3d` [21,3], `joints_2d` [21,2]
    pixels, `joints_valid`, `hand_pose` [51], `betas` [10], `hand_pose_valid`, `object_pose` [10,3,4],
    `object_ids` [10] (0: none), `object_valid` [10], `grasped` (index into these, -1: none), `is_left`; with
    `with_seg` also `seg` [height,width] uint8 (0, 1-21 object, 255 hand). What a mask calls invalid is 0.
    Left hands are as on disk.

    Raises: UserError for a folder that does not hold the layout, and on access for a file that is missing or
    broken.
    """

    def __init__(self, root: str | Path, split: str = "s0", part: str = "train", with_seg: bool = False):
        self.root, self.split, self.part, self.with_seg = Path(root), split, part, with_seg
        if split not in SPLITS or part not in PARTS:
            raise UserError(f"config.data: found {split} {part}; expected one of {SPLITS} and one of {PARTS}")
        self.sequences = _find_sequences(self.root)
        sizes = [(s.subject, s.index, len(s.meta["serials"]), s.meta["num_frames"]) for s in self.sequences]
        self.runs = make_runs(sizes, split, part)
        if not self.runs:
            raise UserError(f"{root}: split {split} has no {part} part in its {len(sizes)} sequences")
        self._ends = np.cumsum([run.num_frames for run in self.runs])
        self._calibration = _Calibration(self.root)
        for sequence in {run.sequence for run in self.runs}:  # fail before hours of training, not in them
            meta = self.sequences[sequence].meta
            self._calibration.betas(meta)
            for serial in meta["serials"]:
                self._calibration.camera(serial, meta)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"DexYCB({str(self.root)!r}, {self.split!r}, {self.part!r})"

    def locate(self, i: int) -> tuple[Sequence, int, int]:
        """The sequence, camera and frame of sample `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        position = int(np.searchsorted(self._ends, i, side="right"))
        run = self.runs[position]
        return self.sequences[run.sequence], run.camera, int(i - self._ends[position] + run.num_frames)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sequence, camera, frame = self.locate(i)
        serial = sequence.meta["serials"][camera]
        folder = sequence.folder / serial
        K, T_world_camera = self._calibration.camera(serial, sequence.meta)
        sample = _read_labels(folder / f"labels_{frame:06d}.npz", sequence.meta, self.with_seg)
        return {
            "color": _read_bytes(folder / f"color_{frame:06d}.jpg"),
            "K": K,
            "T_world_camera": T_world_camera,
            "betas": self._calibration.betas(sequence.meta),
            "is_left": np.bool_(sequence.meta["mano_sides"][0] == "left"),
            **sample,
        }


def _find_sequences(root: Path) -> list[Sequence]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected the root of a data set in the DexYCB layout")
    subjects = sorted(path for path in root.iterdir() if re.fullmatch(r"\d{8}-subject-\d+", path.name))
    sequences = []
    for subject in subjects:
        folders = sorted(path for path in subject.iterdir() if re.fullmatch(r"\d{8}_\d{6}", path.name))
        number = int(subject.name.rpartition("-")[2]) - 1  # from the name, so that part of a download keeps its splits
        sequences += [Sequence(path, number, i, _read_meta(path / "meta.yml")) for i, path in enumerate(folders)]
    if not sequences:
        raise UserError(f"{root}: no sequences; expected folders YYYYMMDD-subject-NN/YYYYMMDD_HHMMSS as in DexYCB")
    return sequences


def _read_meta(path: Path) -> dict[str, Any]:
    meta = read_yaml(path)
    needed = ("serials", "num_frames", "extrinsics", "ycb_ids", "ycb_grasp_ind", "mano_sides", "mano_calib")
    missing = [name for name in needed if not isinstance(meta, dict) or name not in meta]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)}; expected {', '.join(needed)}")
    if len(meta["mano_sides"]) != 1 or len(meta["mano_calib"]) != 1:
        raise UserError(f"{path}: {len(meta['mano_sides'])} hands; expected exactly one in mano_sides and mano_calib")
    if len(meta["ycb_ids"]) > MAX_OBJECTS:
        raise UserError(f"{path}: {len(meta['ycb_ids'])} objects; expected at most {MAX_OBJECTS}")
    return {**meta, "serials": sorted(str(serial) for serial in meta["serials"])}  # cameras by number


def _read_labels(path: Path, meta: dict[str, Any], with_seg: bool) -> dict[str, Any]:
    try:
        with np.load(path) as file:
            poses, pose_m = np.asarray(file["pose_y"], np.float32), np.asarray(file["pose_m"], np.float32)
            joints_3d, joints_2d = (np.asarray(file[name], np.float32) for name in ("joint_3d", "joint_2d"))
            seg = file["seg"] if with_seg else None
        joints_3d, joints_2d = joints_3d.reshape(21, 3), joints_2d.reshape(21, 2)
        hand_pose = np.zeros(51, np.float32)
        hand_pose[: pose_m.size] = pose_m.ravel()  # 48 numbers: without the translation
        object_pose = np.zeros((MAX_OBJECTS, 3, 4), np.float32)
        object_pose[: len(meta["ycb_ids"])] = poses.reshape(len(meta["ycb_ids"]), 3, 4)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {_reason(error)}; expected the labels of a DexYCB frame") from error
    joints_valid = not (joints_3d == -1).all()
    object_ids = np.zeros(MAX_OBJECTS, np.int32)
    object_ids[: len(meta["ycb_ids"])] = meta["ycb_ids"]
    grasps = meta["ycb_ids"] and not meta.get("bare_hand")  # the generator's mark, DexYCB's hands always grasp
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
    return {**sample, "seg": seg} if with_seg else sample


class _Calibration:
    """The calibration files below a root, each read once; `meta` says which of them a sequence uses."""

    def __init__(self, root: Path):
        self.folder = root / "calibration"
        self._files: dict[Path, Any] = {}
        paths = sorted((self.folder / "intrinsics").glob("*_*x*.yml"))  # SERIAL_WIDTHxHEIGHT.yml
        self._intrinsics = {path.name.rpartition("_")[0]: path for path in paths}

    def camera(self, serial: str, meta: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """`K` [3,3] in pixels and `T_world_camera` [4,4] in metres."""
        path = self._intrinsics.get(serial, self.folder / "intrinsics" / f"{serial}_640x480.yml")
        color = self._get(path, "color")
        extrinsics_path = self.folder / f"extrinsics_{meta['extrinsics']}" / "extrinsics.yml"
        extrinsics = {str(key): value for key, value in self._get(extrinsics_path, "extrinsics").items()}
        try:
            fx, fy, cx, cy = (float(color[name]) for name in ("fx", "fy", "ppx", "ppy"))
            T_world_camera = np.eye(4, dtype=np.float32)
            T_world_camera[:3] = np.asarray(extrinsics[serial], np.float32).reshape(3, 4)
        except (KeyError, TypeError, ValueError) as error:
            where = f"{path} or {extrinsics_path}"
            raise UserError(
                f"{where}: {_reason(error)}; expected fx, fy, ppx, ppy and 12 numbers of {serial}"
            ) from error
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32), T_world_camera

    def betas(self, meta: dict[str, Any]) -> np.ndarray:
        """The hand's shape [10]."""
        path = self.folder / f"mano_{meta['mano_calib'][0]}" / "mano.yml"
        betas = np.asarray(self._get(path, "betas"), np.float32)
        if betas.shape != (10,):
            raise UserError(f"{path}: betas of shape {betas.shape}; expected 10 numbers")
        return betas

    def _get(self, path: Path, name: str) -> Any:
        if path not in self._files:
            self._files[path] = read_yaml(path)
        content = self._files[path]
        if not isinstance(content, dict) or name not in content:
            raise UserError(f"{path}: no {name!r}; expected a DexYCB calibration file")
        return content[name]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML, and the one Python tag that DexYCB's calibration uses."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node)))


def read_yaml(path: Path) -> Any:
    """A YAML file; of Python's own tags only tuples, nothing is executed.

    Raises: UserError if it is missing or is not such a file.
    """
    try:
        return yaml.load(path.read_text(), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {_reason(error)}; expected a YAML file of DexYCB") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "not there"
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"
