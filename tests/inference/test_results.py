"""Files of a run: all together or none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amt.errors import UserError
from amt.inference.results import all_or_nothing


def test_files_appear_together_and_old_ones_of_the_run_go(tmp_path):
    for name in ("a", "b", "foreign"):
        (tmp_path / name).write_text("old")
    with all_or_nothing(tmp_path, ("a", "b", "c")) as folder:
        (folder / "a").write_text("new")
        (folder / "c").write_text("new")
        assert (tmp_path / "a").read_text() == "old" and not (tmp_path / "c").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "c": "new",
        "foreign": "old",
    }


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_changes_nothing(tmp_path, failure):
    (tmp_path / "a").write_text("old")
    with pytest.raises(failure), all_or_nothing(tmp_path, ("a", "b")) as folder:
        (folder / "a").write_text("new")
        raise failure
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), all_or_nothing(tmp_path / "file", ("a",)):
        pass


RUN = """
import sys, time
from amt.inference.results import all_or_nothing
with all_or_nothing(sys.argv[1], ("a",)) as folder:
    (folder / "a").write_text("half")
    print("inside", flush=True)
    time.sleep(60)
"""


def running(workdir):
    """A process that is inside of the block."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", RUN, workdir]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "inside\n"
    return process


def kill(process, number):
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    return process.returncode, error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_process_that_is_asked_to_end_leaves_nothing(tmp_path, number, status):
    returned, error = kill(running(tmp_path), number)
    assert returned == status and error.strip() == f"{number.name}: ended, nothing is written"
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_leaves_goes_with_the_next_run_and_a_living_one_is_left_alone(tmp_path):
    foreign = tmp_path / ".part-of-something-else"
    foreign.mkdir()
    living, killed = running(tmp_path), running(tmp_path)
    try:
        assert kill(killed, signal.SIGKILL)[0] == -signal.SIGKILL
        assert len(list(tmp_path.glob(".part-*/a"))) == 2
        with all_or_nothing(tmp_path, ("b",)) as folder:
            (folder / "b").write_text("new")
        (left,) = tmp_path.glob(".part-*/a")
    finally:
        kill(living, signal.SIGKILL)
    assert left.read_text() == "half" and foreign.exists() and (tmp_path / "b").read_text() == "new"
    with all_or_nothing(tmp_path, ("b",)):
        pass
    assert list(tmp_path.iterdir()) == [foreign]


def test_signals_are_what_they_were_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, all_or_nothing(tmp_path, ("a",)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_files_does_not_part_them(tmp_path, monkeypatch, number):
    replace = Path.replace

    def interrupted(self, target):
        os.kill(os.getpid(), number)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with all_or_nothing(tmp_path, ("a", "b")) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}
