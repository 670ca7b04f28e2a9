"""Half a file is never seen, two runs never share a work directory, and a Git LFS pointer is called what it is."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amt import storage
from amt.errors import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21465c\nsize 1217522888\n"


def test_a_pointer_is_told_from_files(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text(POINTER)
    with pytest.raises(UserError, match=r"model\.safetensors: a Git LFS pointer, not the file: run `git lfs pull` in"):
        storage.refuse_pointer(path)
    assert storage.is_pointer(POINTER.encode()) and not storage.is_pointer(b"\xff\xd8")
    for content in (b"", POINTER[:20].encode(), bytes(200)):
        path.write_bytes(content)
        storage.refuse_pointer(path)
    storage.refuse_pointer(tmp_path / "nothing")
    storage.refuse_pointer(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_at_any_point_keeps_the_old_file_and_leaves_nothing(call, tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    storage.write_whole(path, "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    with pytest.raises(UserError, match=r"figures\.json: cannot be written \(No space left on device\); make room"):
        storage.write_whole(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["figures.json"]
    with pytest.raises(ZeroDivisionError), storage.replacing(path) as part:
        part.write_text("new")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


HOLD = (
    "import sys, time; from pathlib import Path; from amt.storage import only_run\nwith only_run(Path(sys.argv[1])):\n"
)
HOLD += "    print('held', flush=True); time.sleep(600)"


def test_a_folder_belongs_to_one_process_until_that_ends(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment)
    try:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=rf": process {other.pid} of .* works there; wait"),
            storage.only_run(tmp_path),
        ):
            pass
        (tmp_path / f".a.csv.{other.pid}.part").write_text("half")
        other.send_signal(signal.SIGKILL)
    finally:
        other.kill()
        other.communicate()
    for _ in range(2):
        with storage.only_run(tmp_path):
            assert [p.name for p in tmp_path.iterdir()] == [storage.LOCK]
            with pytest.raises(UserError, match=f"process {os.getpid()} of "), storage.only_run(tmp_path):
                pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(storage.fcntl, "flock", none)
    with storage.only_run(tmp_path):
        pass
    assert "its file system has no locks; see that only one run works there" in capsys.readouterr().err
