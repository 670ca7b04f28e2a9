"""Samples that cannot be read: listed, replaced by others, and too many of them end the run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from amt.data.dexycb import DexYCB
from amt.data.files import FileError
from amt.data.images import decode
from amt.errors import UserError
from amt.storage import writing

T = TypeVar("T")

MAX_SHARE = 0.001  # of the samples seen
MIN_COUNT = 10  # so many may be bad at any time: early on, or in a small set, a share says little
TRIES = 20  # replacements for one sample before the data set counts as gone
HEAD = 5  # entries that the error shows


class Quarantine:
    """The list of a run's unreadable samples: `quarantine.jsonl` in the work directory, one line a sample.

    A line holds `path`, `reason` and the `sample`'s index (null for an empty sequence). Every process of the run
    appends to the file and a copy of this object travels to Grain's workers; lines that an earlier run left there
    do not count. With several hosts each of them has its own file (`process` > 0: `quarantine_1.jsonl` ...).
    """

    def __init__(self, workdir: Path, process: int = 0):
        self.path = workdir / (f"quarantine_{process}.jsonl" if process else "quarantine.jsonl")
        self._start = self.path.stat().st_size if self.path.exists() else 0
        self._listed: set[str] = set()

    def add(self, path: str | Path, reason: str, sample: int | None = None) -> None:
        """Lists a file, unless this run has. Raises: UserError where the list cannot be written."""
        if str(path) in self._listed:
            return
        self._listed |= {entry["path"] for entry in self.entries()}  # other processes' too
        if str(path) in self._listed:
            return
        self._listed.add(str(path))
        line = json.dumps({"path": str(path), "reason": reason, "sample": sample}) + "\n"
        # One write of a file opened for appending: lines of several processes do not mix.
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def entries(self) -> list[dict[str, Any]]:
        """What all processes of this run have listed, each file once."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._start)
            entries = [json.loads(line) for line in file if line.endswith(b"\n")]
        return list({entry["path"]: entry for entry in entries}.values())

    def bytes(self) -> int:
        """How long this run's list is."""
        return self.path.stat().st_size - self._start if self.path.exists() else 0

    def check(self, seen: int) -> None:
        """Raises: UserError if more than 0.1% of the `seen` samples (and more than 10) are listed."""
        entries = self.entries()
        if len(entries) <= max(MIN_COUNT, MAX_SHARE * seen):
            return
        head = "; ".join(f"{entry['path']}: {entry['reason']}" for entry in entries[:HEAD])
        raise UserError(
            f"data: {len(entries)} of {seen} samples are in quarantine, more than {MAX_SHARE:.1%}: {head}; "
            f"all are in {self.path}; --mode=validate looks at the whole data set"
        )


class Watch:
    """Passes batches on and ends the run when the list is too long; `size` samples a batch, `total` in all."""

    def __init__(self, quarantine: Quarantine, size: int, total: int):
        self.quarantine, self.size, self.total = quarantine, size, total
        self.seen, self.listed_bytes = 0, 0

    def __call__(self, batch: T) -> T:
        self.seen += self.size
        if (listed_bytes := self.quarantine.bytes()) > self.listed_bytes:
            self.listed_bytes = listed_bytes
            self.quarantine.check(min(self.seen, self.total))
        return batch


class Readable:
    """A source whose unreadable samples are replaced: `self[i]` is sample `i`, or another that depends on `i` only.

    Images are decoded once more here to see whether they can be; `load` saves that where they are decoded anyway.
    """

    def __init__(self, source: DexYCB, quarantine: Quarantine):
        self.source, self.quarantine = source, quarantine

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return repr(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.load(i, _with_good_image)

    def load(self, i: int, make: Callable[[dict[str, Any]], T]) -> T:
        """`make` of sample `i` or of its first readable replacement.

        Raises: UserError where none of them can be read.
        """
        for k in _replacements(i, len(self.source)):
            if (made := try_load(self.source, k, make, self.quarantine)) is not None:
                return made
        raise UserError(
            f"data: none of {TRIES} samples of {self.source} can be read; is it still there? "
            f"Reasons are in {self.quarantine.path}"
        )


def try_load(source: DexYCB, i: int, make: Callable[[dict[str, Any]], T], quarantine: Quarantine) -> T | None:
    """`make` of sample `i`; None, and it is listed, where a file is missing or broken."""
    try:
        return make(source[i])
    except FileError as error:
        quarantine.add(error.path, error.reason, i)
    except UserError as error:  # `make` does not know the path of the image
        quarantine.add(source.color_path(i), str(error), i)
    return None


def _replacements(i: int, size: int) -> Iterator[int]:
    """`i`, then others from all over the set: neighbours may lack the same folder."""
    yield i
    rng = np.random.default_rng(i)
    for _ in range(TRIES - 1):
        yield int(rng.integers(size))


def _with_good_image(sample: dict[str, Any]) -> dict[str, Any]:
    decode(sample["color"])
    return sample
