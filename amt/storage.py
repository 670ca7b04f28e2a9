"""Files on the disk: written whole or not at all, one run to a work directory, Git LFS pointers told from files."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from amt.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1"  # a pointer's first line, by the specification at that address
POINTER_HINT = "a Git LFS pointer, not the file: run `git lfs pull` in its repository"
LOCK = ".lock"


def is_pointer(content: bytes | Path) -> bool:
    """Whether a file, or its first bytes, is what `git clone` leaves in the place of a file that Git LFS keeps."""
    if isinstance(content, Path):
        try:
            with content.open("rb") as file:
                content = file.read(len(POINTER))
        except OSError:
            return False
    return content.startswith(POINTER)


def refuse_pointer(path: Path) -> None:
    """Raises `UserError` for a Git LFS pointer; anything else, also no file, is for the reader to judge."""
    if is_pointer(path):
        raise UserError(f"{path}: {POINTER_HINT}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `UserError`, which names `path`, where the disk does not take what the block writes."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: cannot be written ({reason}); make room or change --workdir, and run it again"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write a file to; when the block ends well that replaces `path`.

    It is on the disk before it gets the name, so neither an error nor a loss of power leaves half a file under it.
    Raises `UserError` where the disk does not take it; then `path` stays as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            yield part
            _sync(part)
            part.replace(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 by `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process, and removes what `replacing` left there in a run that was killed.

    The kernel gives it back when the process ends, however it ends. Raises `UserError` where another process holds it.
    """
    with writing(folder / LOCK), contextlib.ExitStack() as stack:
        # Opened for appending: NFS locks only files that are open for writing, and the other's text must stay.
        file = stack.enter_context((folder / LOCK).open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{folder}: {holder} works there; wait until it ends, or choose another --workdir"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            # Some network file systems. On NFS of Linux a lock holds among hosts, on NFS mounted with `local_lock` and
            # on Lustre with `localflock` only among the processes of one.
            print(f"{folder}: its file system has no locks; see that only one run works there", file=sys.stderr)
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}")
        file.flush()
        for part in folder.glob(".*.[0-9]*.part"):
            if part.is_file():
                part.unlink()
        stack = stack.pop_all()
    with stack:
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
