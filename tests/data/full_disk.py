"""A disk that is full from some write on: what was begun stays there by half, and nothing more is taken."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALLS = [
    (Path, "write_text"),
    (Path, "write_bytes"),
    (Path, "mkdir"),
    (np, "savez"),
    (np, "savez_compressed"),
    (os, "fsync"),
]


class Disk:
    """Counts writes once it is patched in, by kind (call and suffix); from number `room` on they fail."""

    def __init__(self, monkeypatch):
        self.room, self.kinds = None, []
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self._limited(name, getattr(owner, name)))

    def firsts(self) -> list[int]:
        """The first write of each kind."""
        return sorted({kind: n for n, kind in reversed(list(enumerate(self.kinds)))}.values())

    def _limited(self, name: str, call: Callable) -> Callable:
        def limited(*args, **kwargs) -> Any:
            path = Path(args[0]) if not isinstance(args[0], int) else Path()
            self.kinds.append((name, path.suffix, path.name[:5]))
            if self.room is None or len(self.kinds) <= self.room:
                return call(*args, **kwargs)
            if len(self.kinds) == self.room + 1 and path.suffix:
                call(*args, **kwargs)
                os.truncate(path, path.stat().st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return limited

    def fill(self, room: int | None) -> None:
        """Takes `room` more writes; None: as many as come."""
        self.room, self.kinds = room, []
