"""Several data sets as one: sequences beside single views, or generated beside recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amt.data.dexycb import DexYCB, find_root
from amt.data.hand_labels import HandIds
from amt.data.packed import open_source


class Mixed:
    """The samples of one source after the other: what training needs of a `DexYCB`."""

    def __init__(self, sources: Sequence[DexYCB]):
        self.sources = list(sources)
        self.empty = [folder for source in self.sources for folder in source.empty]
        self._ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return " and ".join(map(repr, self.sources))

    def __getitem__(self, i: int) -> dict[str, Any]:
        source, k = self._locate(i)
        return source[k]

    @property
    def has_contacts(self) -> bool:
        """Whether contacts of any of its samples were simulated."""
        return any(source.has_contacts for source in self.sources)

    def color_path(self, i: int) -> Path:
        """The colour image of sample `i`."""
        source, k = self._locate(i)
        return source.color_path(k)

    def _locate(self, i: int) -> tuple[DexYCB, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        which = int(np.searchsorted(self._ends, i, side="right"))
        source = self.sources[which]
        return source, int(i - self._ends[which] + len(source))


def find_roots(roots: str) -> list[Path]:
    """The folders that `config.data.root` names, with commas between them; $DEX_YCB_DIR where it is empty.

    Raises: UserError for one that is not a folder.
    """
    return [find_root(name.strip()) for name in roots.split(",")] if roots else [find_root("")]


def open_mixed(roots: Sequence[Path], split: str, part: str, hands: HandIds | None = None) -> DexYCB | Mixed:
    """The part of every data set; of one alone, its source itself. Raises: UserError as `open_source`."""
    sources = [open_source(root, split, part, hands=hands) for root in roots]
    return sources[0] if len(sources) == 1 else Mixed(sources)
