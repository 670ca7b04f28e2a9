"""A data set packed into ArrayRecord shards: few large files to copy and stream instead of two small ones a sample.

A record is one sample, its labels as the fixed bytes of `LABELS` and behind them the JPEG file as it was. Shards hold
all samples in the order of `DexYCB(root, part="all")`; `packed.json` says which sequences and cameras these are, so
every split and part comes out of the same shards. A sample that could not be read is a record of its path and the
reason, and raises the same `FileError` as in the tree.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain.python as grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from amt.data.contacts import NUM_CONTACTS
from amt.data.dexycb import PARTS, SIMULATED, SPLITS, DexYCB, Sequence, make_runs
from amt.data.files import MAX_OBJECTS, FileError, describe, unreadable
from amt.data.hand_labels import HAND, HandIds, mask_hand_labels
from amt.errors import UserError
from amt.storage import POINTER_HINT, is_pointer, replacing, write_whole

FORMAT = 2  # raise it when records change
MANIFEST, PLAN = "packed.json", "packed.json.part"
SHARDS = "?????-of-?????.array_record"
LABELS = np.dtype(
    [
        ("K", "<f4", (3, 3)),
        ("T_world_camera", "<f4", (4, 4)),
        ("betas", "<f4", (10,)),
        ("is_left", "?"),
        ("joints_3d", "<f4", (21, 3)),
        ("joints_2d", "<f4", (21, 2)),
        ("hand_pose", "<f4", (51,)),
        ("object_pose", "<f4", (MAX_OBJECTS, 3, 4)),
        ("object_ids", "<i4", (MAX_OBJECTS,)),
        ("object_valid", "?", (MAX_OBJECTS,)),
        ("grasped", "<i4"),
        ("joints_valid", "?"),
        ("hand_pose_valid", "?"),
        ("contact_points", "<f4", (NUM_CONTACTS, 3)),
        ("contact_force", "<f4", (NUM_CONTACTS, 3)),
        ("contact_kind", "<i4", (NUM_CONTACTS,)),
        ("contact_valid", "?", (NUM_CONTACTS,)),
        ("contact_known", "?"),
    ]
)
READABLE, UNREADABLE = b"s", b"x"  # a record's first byte


def to_record(sample: dict[str, Any]) -> bytes:
    """A sample of `DexYCB` as bytes."""
    row = np.zeros((), LABELS)
    for name in LABELS.names:
        row[name] = sample[name]
    return READABLE + row.tobytes() + sample["color"]


def from_record(record: bytes, path: Path) -> dict[str, Any]:
    """The sample again; its arrays cannot be written to. `path` is the shard, for errors. Raises: FileError."""
    if record[:1] == UNREADABLE:
        raise FileError(*record[1:].decode().split("\0", 1))
    if record[:1] != READABLE or len(record) < 1 + LABELS.itemsize:
        raise FileError(path, f"a record of {len(record)} bytes that is no sample; convert the data set anew")
    row = np.frombuffer(record, LABELS, 1, offset=1)[0]
    return {"color": record[1 + LABELS.itemsize :], **{name: row[name] for name in LABELS.names}}


def make_plan(source: DexYCB, shard_samples: int) -> dict[str, Any]:
    """The manifest of `source`, a data set as a whole, in shards of so many samples."""
    sequences = [
        {
            "folder": str(sequence.folder.relative_to(source.root)),
            "subject": sequence.subject,
            "index": sequence.index,
            "serials": sequence.meta["serials"],
            "num_frames": sequence.meta["num_frames"],
            **{name: sequence.meta[name] for name in (SIMULATED, HAND, "mano_sides") if name in sequence.meta},
        }
        for sequence in source.sequences
    ]
    count = -(-len(source) // shard_samples)
    sizes = [min(shard_samples, len(source) - k * shard_samples) for k in range(count)]
    shards = [{"name": f"{k:05d}-of-{count:05d}.array_record", "samples": n} for k, n in enumerate(sizes)]
    root = str(source.root.resolve())
    about = {"format": FORMAT, "root": root, "generated": source.generated}
    return {**about, "samples": len(source), "shards": shards, "sequences": sequences}


class Written(NamedTuple):
    """So many samples are in a shard now: `kept` ones since an earlier run; the error of one that is not readable."""

    samples: int
    kept: bool = False
    error: FileError | None = None


def pack(source: DexYCB, plan: dict[str, Any], folder: Path) -> Iterator[Written]:
    """Writes the shards that are not there yet, then the manifest.

    A shard appears under its name when it is whole, and the manifest when all are: nothing reads half a data set.
    Raises: UserError where `folder` holds another data set, or cannot be written.
    """
    _begin(plan, folder)
    first = 0
    for shard in plan["shards"]:
        path, samples = folder / shard["name"], range(first, first + shard["samples"])
        first = samples.stop
        if path.exists():
            yield Written(len(samples), kept=True)
            continue
        try:
            with replacing(path) as part:
                # One sample a read; JPEG is compressed.
                writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
                for i in samples:
                    record, error = _try_record(source, i)
                    writer.write(record)
                    yield Written(1, error=error)
                writer.close()
        except (RuntimeError, ValueError) as error:  # the writer's own, of a full disk
            raise UserError(f"{path}: cannot be written ({error}); make room or change --workdir") from error
    (folder / PLAN).replace(folder / MANIFEST)


def _begin(plan: dict[str, Any], folder: Path) -> None:
    """Leaves the plan in `folder`, and only such shards beside it as were written by this plan.

    Raises: UserError where `folder` holds another data set, or a part of one: nothing of it is removed.
    """
    if (folder / MANIFEST).exists():
        raise UserError(f"{folder / MANIFEST}: already there; remove the folder or change --workdir")
    path = folder / PLAN
    try:
        begun = _read_json(path)
    except FileError:
        shards = sorted(folder.glob(SHARDS))
        if shards and not path.exists():  # whoever wrote them, it was no conversion that stopped
            raise UserError(
                f"{shards[0]}: a shard without {MANIFEST} or {PLAN}; complete or remove the folder, or change --workdir"
            ) from None
        for shard in (*shards, *folder.glob(f"{SHARDS}.part")):  # of a plan that a full disk cut short, as amt once did
            shard.unlink()
        write_whole(path, json.dumps(plan) + "\n")
        return
    if begun != plan:
        raise UserError(
            f"{path}: an unfinished conversion of another data set or in shards of another size; "
            "remove the folder or change --workdir"
        )


def _try_record(source: DexYCB, i: int) -> tuple[bytes, FileError | None]:
    try:
        return to_record(source[i]), None
    except FileError as error:
        return UNREADABLE + f"{error.path}\0{error.reason}".encode(), error


class Packed(DexYCB):
    """What `DexYCB` gives, out of the shards in `root`.

    Raises: UserError for a folder without a manifest, of another format or with shards missing or cut short, and on
    access FileError.
    """

    def __init__(self, root: str | Path, split: str = "s0", part: str = "train", hands: HandIds | None = None):
        self.root, self.split, self.part, self.hands = Path(root), split, part, hands
        if split not in SPLITS or part not in PARTS:
            raise UserError(f"config.data: found {split} {part}; expected one of {SPLITS} and one of {PARTS}")
        manifest = _read_json(self.root / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise UserError(
                f"{self.root / MANIFEST}: format {manifest.get('format')}, expected {FORMAT}; "
                "packed by another version of amt; convert the data set anew"
            )
        self.sequences = [
            Sequence(Path(manifest["root"], s["folder"]), s["subject"], s["index"], s) for s in manifest["sequences"]
        ]
        self.generated = manifest.get("generated", True)  # without a word of it, as older ones are, nothing is counted
        self._check_counts()
        self.empty = [s.folder for s in self.sequences if not s.meta["num_frames"] or not s.meta["serials"]]
        sizes = [(s.subject, s.index, len(s.meta["serials"]), s.meta["num_frames"]) for s in self.sequences]
        self.runs = make_runs(sizes, split, part)
        if not self.runs:
            raise UserError(f"{root}: split {split} has no {part} part in its {len(sizes)} sequences")
        self._ends = np.cumsum([run.num_frames for run in self.runs])
        whole = make_runs(sizes, split, "all")
        starts = np.cumsum([0, *(run.num_frames for run in whole)])
        self._starts = {(run.sequence, run.camera): int(k) for run, k in zip(whole, starts, strict=False)}
        self._shards = [self.root / shard["name"] for shard in manifest["shards"]]
        self._shard_ends = np.cumsum([shard["samples"] for shard in manifest["shards"]])
        self._records = _open_shards(self._shards, int(self._shard_ends[-1]))

    def __repr__(self) -> str:
        return f"Packed({str(self.root)!r}, {self.split!r}, {self.part!r})"

    def record_index(self, i: int) -> int:
        """Where sample `i` of this part lies among all records."""
        run_index = int(np.searchsorted(self._ends, i, side="right"))
        _, _, frame = self.locate(i)
        run = self.runs[run_index]
        return self._starts[run.sequence, run.camera] + frame

    def labels(self, i: int, with_seg: bool = False) -> dict[str, Any]:
        if with_seg:
            raise UserError(f"{self.root}: packed, without segmentations; give the data set as it was before packing")
        return {name: value for name, value in self[i].items() if name != "color"}

    def T_world_table(self, clip: range) -> np.ndarray:
        raise UserError(f"{self.root}: packed, without calibration; give the data set as it was before packing")

    def depth(self, i: int) -> np.ndarray:
        raise UserError(f"{self.root}: packed, without depth images; give the data set as it was before packing")

    def __getitem__(self, i: int) -> dict[str, Any]:
        index = self.record_index(i)
        path = self._shards[int(np.searchsorted(self._shard_ends, index, side="right"))]
        try:
            record = self._records[index]
        except Exception as error:  # the reader's own types, by what the bytes lead to
            raise FileError(path, f"{describe(error)}; convert the data set anew") from error
        return mask_hand_labels(from_record(record, path), self.locate(i)[0].meta.get(HAND), self.hands)


def open_source(root: Path, split: str, part: str, with_seg: bool = False, hands: HandIds | None = None) -> DexYCB:
    """Data set at `root`, in the DexYCB layout or packed; packed ones have no segmentation. `hands` as in `DexYCB`."""
    if (root / MANIFEST).exists():
        return Packed(root, split, part, hands)
    if (root / PLAN).exists():
        raise UserError(f"{root}: --mode=convert has not finished there; run it again, it goes on where it stopped")
    return DexYCB(root, split, part, with_seg, hands=hands)


def _open_shards(paths: list[Path], expected: int) -> grain.ArrayRecordDataSource:
    for path in paths:
        if not path.is_file():
            raise FileError(path, "not there; copy the folder whole or convert the data set anew")
        if is_pointer(path):
            raise FileError(path, POINTER_HINT)
    try:
        records = grain.ArrayRecordDataSource([str(path) for path in paths])
        found = len(records)
    except Exception as error:
        raise UserError(f"{paths[0].parent}: a shard cannot be read ({error}); convert the data set anew") from error
    if found != expected:
        raise UserError(f"{paths[0].parent}: {found} records, {MANIFEST} says {expected}; convert the data set anew")
    return records


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "the manifest of --mode=convert") from error
    if not isinstance(content, dict):
        raise FileError(path, "no manifest of --mode=convert")
    return content
