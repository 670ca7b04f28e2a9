"""The index of a data set: its YAML files, parsed once and remembered between runs."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from amt.data.files import read_yaml

WORTH_SAVING = 100  # new YAML files; fewer are parsed in no time


def index_path(root: Path) -> Path:
    """Where the index of the data set at `root` lies: below $XDG_CACHE_HOME/amt, else ~/.cache/amt."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache / "amt" / "index" / f"{key}.json"


class Index:
    """`read` gives what `read_yaml` gives, tuples as lists; a file of known time and size is not opened.

    Nothing is ever written into the data set, and without a place to write every run parses anew.
    """

    def __init__(self, root: Path):
        self.root, self._path = root, index_path(root)
        self._files, self._new = _load(self._path, root), 0

    def read(self, path: Path) -> Any:
        """The content of a YAML file below the root. Raises: FileError."""
        name = str(path)[len(str(self.root)) :]
        try:
            status = path.stat()
        except OSError:
            return read_yaml(path)  # says what is wrong
        stamp = [status.st_mtime_ns, status.st_size]
        known = self._files.get(name)
        if known is None or known[0] != stamp:
            known = self._files[name] = [stamp, read_yaml(path)]
            self._new += 1
        return known[1]

    def save(self) -> None:
        """Keeps what was parsed for the next run, if it is worth it."""
        if self._new < WORTH_SAVING:
            return
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            text = json.dumps({"root": str(self.root.resolve()), "files": self._files})
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text)
            part.replace(self._path)
        except (OSError, TypeError, ValueError):  # no place to write, or YAML that JSON cannot say
            with contextlib.suppress(OSError):
                part.unlink()


def _load(path: Path, root: Path) -> dict[str, list]:
    try:
        content = json.loads(path.read_text())
        return content["files"] if content["root"] == str(root.resolve()) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
