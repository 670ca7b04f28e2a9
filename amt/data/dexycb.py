"""DexYCB from the disk, one sample at a time: a Grain source that reads what the dataset's authors lay out.

Layout and splits: Chao et al., "DexYCB: A Benchmark for Capturing Hand Grasping of Objects", CVPR 2021, and
https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/dex_ycb.py). The synthetic generator writes the
same layout.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from amt.data.contacts import no_contacts, read_contacts
from amt.data.files import TABLE, Calibration, read_bytes, read_depth, read_labels, read_meta
from amt.data.hand_labels import HAND, HandIds, mask_hand_labels
from amt.data.index import Index
from amt.data.layout import GENERATED, SUBJECTS
from amt.errors import UserError
from amt.hand import EMBEDDED_HAND

SPLITS = ("s0", "s1", "s2", "s3")
SIMULATED = "grasp"  # in meta.yml: the generator's mark of sequences with simulated contacts
COUNTED = ("s0", "s3")  # which part a sequence is in hangs on its place among its subject's
COMPLETE = 100  # sequences of every subject of DexYCB
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
        if num_frames and part in ("all", part_of(split, subject, index, camera))
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
    pixels, `joints_valid`, `hand_pose` [51], `betas` [10], `hand_pose_valid`, `left_basis`, `object_pose` [10,3,4],
    `object_ids` [10] (0: none), `object_valid` [10], `grasped` (index into these, -1: none), `is_left`; simulated
    contacts with the grasped object as `amt.data.contacts.read_contacts` gives them, none known in DexYCB; with
    `with_seg` also `seg` [height,width] uint8 (0, 1-21 object, 255 hand), with `with_depth` also `depth`
    [height,width] in metres, 0 where unknown. What a mask calls invalid is 0. Left hands are as on disk.

    With `hands` hand parameters that belong to another hand are not valid (`amt.data.hand_labels`); without it all are.
    `empty` names the root's sequences without frames. The first start on a large data set parses its YAML
    files, later ones read `amt.data.index`.

    Raises: UserError for a folder that does not hold the layout, where sequences of DexYCB are missing that the split
    counts, and on access `FileError` for a file that is missing or broken.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "s0",
        part: str = "train",
        with_seg: bool = False,
        with_depth: bool = False,
        hands: HandIds | None = None,
    ):
        self.root, self.split, self.part, self.hands = Path(root), split, part, hands
        self.with_seg, self.with_depth = with_seg, with_depth
        if split not in SPLITS or part not in PARTS:
            raise UserError(f"config.data: found {split} {part}; expected one of {SPLITS} and one of {PARTS}")
        index = Index(self.root)
        self.generated = (self.root / GENERATED).exists()
        # Of sets generated before they said whose hand it is, it is the embedded one.
        owner = {HAND: EMBEDDED_HAND} if self.generated else {}
        self.sequences = [Sequence(*found, owner | _meta_of(found[0], index)) for found in list_sequences(self.root)]
        self._check_counts()
        sizes = [(s.subject, s.index, len(s.meta["serials"]), s.meta["num_frames"]) for s in self.sequences]
        self.empty = [s.folder for s in self.sequences if not s.meta["num_frames"] or not s.meta["serials"]]
        self.runs = make_runs(sizes, split, part)
        if not self.runs:
            raise UserError(f"{root}: split {split} has no {part} part in its {len(sizes)} sequences")
        self._ends = np.cumsum([run.num_frames for run in self.runs])
        # Calibration is read here: a broken file is found before hours of training, not in them.
        calibration = Calibration(self.root, index.read)
        self._intrinsics: dict[str, np.ndarray] = {}
        self._extrinsics: dict[tuple[str, str], np.ndarray] = {}
        self._betas: dict[str, np.ndarray] = {}
        for sequence in {run.sequence for run in self.runs}:
            meta = self.sequences[sequence].meta
            self._betas[meta["mano_calib"][0]] = calibration.betas(meta)
            for serial in meta["serials"]:
                self._intrinsics[serial] = calibration.intrinsics(serial)
                self._extrinsics[meta["extrinsics"], serial] = calibration.extrinsics(serial, meta)
        index.save()

    def _check_counts(self) -> None:
        """A missing sequence of DexYCB would move those behind it into other parts."""
        if self.generated or self.part == "all" or self.split not in COUNTED:
            return
        if wrong := wrong_counts(self.sequences):
            found = ", ".join(f"{name} has {count}" for name, count in wrong.items())
            raise UserError(
                f"{self.root}: {found} sequence folders; split {self.split} counts {COMPLETE} of DexYCB's subjects; "
                "complete the download (an empty folder may stand for a sequence), or take config.data.part=all or a "
                f"split that does not count, s1 or s2; a generated set needs its {GENERATED}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"DexYCB({str(self.root)!r}, {self.split!r}, {self.part!r})"

    @property
    def has_contacts(self) -> bool:
        """Whether contacts of any of its samples were simulated."""
        return any(SIMULATED in self.sequences[run.sequence].meta for run in self.runs)

    @property
    def sources(self) -> "list[DexYCB]":
        """Itself, as the only part of what `open_mixed` opens."""
        return [self]

    def hand_owners(self) -> list[tuple[str | None, bool]]:
        """Of every sequence: whose its hand parameters are (`amt.data.hand_labels`), and whether it is a left hand."""
        metas = [self.sequences[k].meta for k in sorted({run.sequence for run in self.runs})]
        return [(meta.get(HAND), meta.get("mano_sides") == ["left"]) for meta in metas]

    def clips(self) -> list[range]:
        """The samples of every video: one camera of one sequence, in the order of time."""
        return [range(int(end) - run.num_frames, int(end)) for run, end in zip(self.runs, self._ends, strict=True)]

    def locate(self, i: int) -> tuple[Sequence, int, int]:
        """The sequence, camera and frame of sample `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        position = int(np.searchsorted(self._ends, i, side="right"))
        run = self.runs[position]
        return self.sequences[run.sequence], run.camera, int(i - self._ends[position] + run.num_frames)

    def T_world_table(self, clip: range) -> Float32[np.ndarray, "4 4"]:
        """The table's frame, its top at z = 0 and z up, of one of `clips`. Raises: FileError where nothing says it."""
        return Calibration(self.root).extrinsics(TABLE, self.locate(clip.start)[0].meta)

    def color_path(self, i: int) -> Path:
        """The colour image of sample `i`."""
        sequence, camera, frame = self.locate(i)
        return sequence.folder / sequence.meta["serials"][camera] / f"color_{frame:06d}.jpg"

    def labels(self, i: int, with_seg: bool = False) -> dict[str, Any]:
        """Sample `i` without its images, in a fraction of the time; `with_seg` adds `seg`."""
        sequence, camera, frame = self.locate(i)
        meta = sequence.meta
        serial = meta["serials"][camera]
        folder = sequence.folder / serial
        sample = {
            "K": self._intrinsics[serial],
            "T_world_camera": self._extrinsics[meta["extrinsics"], serial],
            "betas": self._betas[meta["mano_calib"][0]],
            "is_left": np.bool_(meta["mano_sides"][0] == "left"),
            **read_labels(folder / f"labels_{frame:06d}.npz", meta, with_seg),
        }
        sample = mask_hand_labels(sample, meta.get(HAND), self.hands)
        if SIMULATED in meta:
            held = int(sample["object_ids"][sample["grasped"]]) if sample["grasped"] >= 0 else 0
            return sample | read_contacts(folder / f"contacts_{frame:06d}.npz", held)
        return sample | no_contacts()

    def depth(self, i: int) -> Float32[np.ndarray, "h w"]:
        """The depth image of sample `i` in metres, 0 where unknown."""
        color = self.color_path(i)
        return read_depth(color.with_name(color.name.replace("color", "aligned_depth_to_color")).with_suffix(".png"))

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = {"color": read_bytes(self.color_path(i)), **self.labels(i, self.with_seg)}
        return sample | {"depth": self.depth(i)} if self.with_depth else sample


def list_sequences(root: Path) -> list[tuple[Path, int, int]]:
    """Folder, subject and place among the subject's of every sequence, sorted; no sequence is opened.

    The place is counted, as the toolkit does it. In a generated set the name says it: it is the same where some are
    missing, or not yet written. Raises: UserError for a folder that holds none.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected the root of a data set in the DexYCB layout")
    subjects = sorted(path for path in root.iterdir() if re.fullmatch(r"\d{8}-subject-\d+", path.name))
    sequences, firsts = [], _first_numbers(root)
    for subject in subjects:
        folders = sorted(path for path in subject.iterdir() if re.fullmatch(r"\d{8}_\d{6}", path.name))
        number = int(subject.name.rpartition("-")[2]) - 1  # from the name, so that part of a download keeps its splits
        if number in firsts:
            sequences += [(path, number, int(path.name[9:]) - firsts[number]) for path in folders]
        else:
            sequences += [(path, number, i) for i, path in enumerate(folders)]
    if not sequences:
        raise UserError(f"{root}: no sequences; expected folders YYYYMMDD-subject-NN/YYYYMMDD_HHMMSS as in DexYCB")
    return sequences


def _first_numbers(root: Path) -> dict[int, int]:
    """The number in the name of each subject's first sequence, of a generated set."""
    try:
        made = json.loads((root / GENERATED).read_text())
        count, subjects = made["num_sequences"], made["num_subjects"]
        return {subject: -(-subject * count // subjects) for subject in range(subjects)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def wrong_counts(sequences: list[Sequence]) -> dict[str, int]:
    """The subjects of DexYCB that do not have all of their sequences, and how many they have."""
    counts = Counter(sequence.folder.parent.name for sequence in sequences)
    return {name: counts[name] for name in SUBJECTS if counts[name] not in (0, COMPLETE)}


def _meta_of(folder: Path, index: Index) -> dict[str, Any]:
    try:
        return read_meta(folder / "meta.yml", index.read)
    except UserError:
        if any(folder.iterdir()):
            raise
        return {"serials": [], "num_frames": 0}  # counts among its subject's sequences, as the splits need
