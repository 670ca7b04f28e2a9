"""What every mode needs: a checked work directory, progress, figures on the screen and on the disk."""

import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from amt.errors import UserError
from amt.storage import only_run, write_whole

TTY_PERIOD = 0.1  # seconds between updates of the one line on a terminal
LINE_PERIOD = 5.0  # seconds between lines in a log


def check_workdir(path: str | Path) -> Path:
    """Creates the work directory and makes sure that a file can be written there.

    Raises: UserError if it is a file, cannot be created or cannot be written.
    """
    if not str(path):
        raise UserError("--workdir: empty; name the folder that results go to")
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--workdir={path}: cannot write there ({error.strerror or error}); choose another directory"
        ) from error
    return folder


@contextlib.contextmanager
def hold_workdir(folder: Path, first: bool = True, several: bool = False) -> Iterator[None]:
    """The work directory for this run alone; where it is of `several` processes the `first` one holds it for all.

    Raises: UserError, in every process, where another run holds it.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        if first:
            try:
                stack.enter_context(only_run(folder))
            except UserError as error:
                refused = error
        if _told(refused is not None) if several else refused:
            raise refused or UserError(f"{folder}: another run works there; the first process says more")
        yield


def _told(flag: bool) -> bool:
    """What the first process says."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.bool_(flag)))


def package_version(name: str) -> str | None:
    """Of an installed package; None for one that is not, such as an amt that is run from its clone alone."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def code_version() -> dict[str, str | None]:
    """The package's version and the git revision of its folder, with a + for changed files; None where git has none."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", Path(__file__).parent, *arguments], capture_output=True, text=True)
        except OSError:  # no git here
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    changed = bool(revision and git("status", "--porcelain", "--untracked-files=no"))
    return {"version": package_version("amt"), "revision": revision and revision + "+" * changed}


def plain(value: Any) -> Any:
    """JSON's types only: arrays become numbers and lists, NaN and infinity null, anything else its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        if array.dtype.kind not in "bifu":  # bfloat16 and the float8 types are numpy kind V
            array = array.astype(np.float32)
        return plain(array.tolist())
    return str(value)


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes a JSON file at once or not at all: a reader never sees half a file, an error keeps the old one.

    Raises: UserError if the file cannot be written.
    """
    path = Path(path)
    write_whole(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
    return path


def print_table(figures: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Prints one line per figure; nested names are joined by dots; lists stay in the file only."""
    rows = [(name, _cell(value)) for name, value in _flatten(plain(figures)) if not isinstance(value, list)]
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{width}}  {text}", file=stream or sys.stdout)


def _flatten(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Progress:
    """Says how far, how fast and how long still: one updating line on a terminal, else a line every 5 s.

    Either `for item in Progress(items, "frames")` (an int counts from 0), or
    `with Progress(100, "steps") as progress: progress.update(note="loss 0.31")`.
    """

    def __init__(self, total: int | Collection, what: str, stream: TextIO | None = None, silent: bool = False):
        self.items = range(total) if isinstance(total, int) else total
        self.total, self.what, self.done, self.skipped = len(self.items), what, 0, 0
        self.stream, self.silent = stream or sys.stderr, silent
        self.tty = self.stream.isatty()
        self.start = self.shown = time.monotonic()
        self.note = ""

    def update(self, n: int = 1, note: str = "") -> None:
        """Counts `n` more as done; `note` (a loss, a file) ends the line until the next note."""
        self.done += n
        self.note = note or self.note
        if time.monotonic() - self.shown >= (TTY_PERIOD if self.tty else LINE_PERIOD):
            self._show()

    def skip(self, n: int, note: str = "") -> None:
        """Counts `n` as done before: they say nothing about the speed."""
        self.skipped += n
        self.update(n, note)

    def text(self) -> str:
        """The line: `120/400 frames  31.2/s  9 s left  note`."""
        seconds = time.monotonic() - self.start
        parts = [f"{self.done}/{self.total} {self.what}"]
        if self.done > self.skipped and seconds > 0:
            rate = (self.done - self.skipped) / seconds
            parts.append(f"{rate:.3g}/s")
            left = max(self.total - self.done, 0)
            parts.append(f"{_duration(left / rate)} left" if left else f"in {_duration(seconds)}")
        return "  ".join(parts + [self.note] * bool(self.note))

    def _show(self) -> None:
        self.shown = time.monotonic()
        if self.silent:
            return
        # "\x1b[K" clears what a longer line left behind.
        print(
            f"\r{self.text()}\x1b[K" if self.tty else self.text(),
            end="" if self.tty else "\n",
            file=self.stream,
        )
        self.stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._show()
        if self.tty and not self.silent:
            print(file=self.stream)

    def __iter__(self) -> Iterator:
        with self:
            for item in self.items:
                yield item
                self.update()


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
