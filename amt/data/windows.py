"""Sliding windows over the sequences of a data set."""

from typing import Any

import numpy as np

from amt.data.dexycb import DexYCB
from amt.errors import UserError


class Windows:
    """Windows of `length` frames, each `stride` after the one before, over the sequences of a source.

    `windows[i]` holds what the source's samples hold, stacked over the frames: `joints_3d` [length,21,3]; `color`
    is a list of JPEG files. In the source's order; windows stay within one camera of one sequence, and sequences
    shorter than `length` have none. With `all_cameras` a window is what all of the part's cameras saw of the same
    frames: `joints_3d` [cameras,length,21,3], `color` a list of lists.

    Raises: UserError for sizes below 1 and where no sequence is long enough; on access as the source.
    """

    def __init__(self, source: DexYCB, length: int, stride: int, all_cameras: bool = False):
        if length < 1 or stride < 1:
            raise UserError(f"windows of length {length}, stride {stride}: expected at least 1 of each")
        self.source, self.length, self.stride, self.all_cameras = source, length, stride, all_cameras
        views: dict[int, list[int]] = {}  # of each video, or of each sequence, the first sample of every camera
        frames: dict[int, int] = {}
        first = 0
        for k, run in enumerate(source.runs):
            key = run.sequence if all_cameras else k
            views.setdefault(key, []).append(first)
            frames[key] = run.num_frames
            first += run.num_frames
        self._views = list(views.values())
        counts = [max((n - length) // stride + 1, 0) for n in frames.values()]
        self._ends = np.cumsum(counts)
        if not self._ends[-1]:
            raise UserError(f"{source}: no sequence has {length} frames; the longest has {max(frames.values())}")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def starts(self, i: int) -> list[int]:
        """The source's samples that window `i` begins with, one of each camera."""
        if not 0 <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        k = int(np.searchsorted(self._ends, i, side="right"))
        before = int(self._ends[k - 1]) if k else 0
        return [first + (i - before) * self.stride for first in self._views[k]]

    def __repr__(self) -> str:
        return f"Windows({self.source!r}, {self.length}, {len(self)} windows)"

    def __getitem__(self, i: int) -> dict[str, Any]:
        views = [_stack([self.source[k] for k in range(start, start + self.length)]) for start in self.starts(i)]
        return _stack(views) if self.all_cameras else views[0]


def _stack(samples: list[dict[str, Any]]) -> dict[str, Any]:
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {name: column if name == "color" else np.stack(column) for name, column in columns.items()}
