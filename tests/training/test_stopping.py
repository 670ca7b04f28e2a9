"""A run is stopped by signals; what it started ends with it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amt.training.stopping import StopRequest
from tests.data.layout import SUBJECTS, real_labels, write

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}

TWO = """
import sys, time, jax
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from amt.training.stopping import StopRequest
with StopRequest() as asked:
    print("ready", flush=True)
    for step in range(1, 10_000):
        time.sleep(0.01 * (1 + int(sys.argv[2])))  # one is twice as fast
        if asked(step):
            break
print(step)
"""

READER = """
import sys, time
from pathlib import Path
import multiprocessing
from amt.data.dexycb import DexYCB
from amt.data.pipeline import train_iterator
from tests.samples import changed

if __name__ == "__main__":
    iterator = train_iterator(DexYCB(Path(sys.argv[1]), "s1", "train"), changed(image_size=16, frame_size=16), 4, 3, 1)
    next(iterator)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""


def test_a_signal_stops_after_the_step_and_a_second_interrupt_at_once(capfd):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as asked:
        assert not asked(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(2)
    with StopRequest() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert capfd.readouterr().err.count("stopping after this step") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_after_the_same_step(number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", TWO, port]
    runs = [
        subprocess.Popen(
            [*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
        )
        for i in range(2)
    ]
    try:
        for run in runs:
            assert run.stdout.readline() == "ready\n"
        runs[1].send_signal(number)
        first, second = (run.communicate(timeout=60)[0] for run in runs)
    finally:
        for run in runs:
            run.kill()
    assert first == second and 0 < int(first) < 9999


def test_a_reader_of_a_killed_run_ends(tmp_path):
    write(tmp_path, SUBJECTS[:1], 3, 2, real_labels, (640, 480))
    script = tmp_path / "reader.py"
    script.write_text(READER)
    run = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    (reader,) = map(int, run.stdout.readline().split())
    os.kill(reader, signal.SIGTERM)  # a cluster's goes to all processes of a run: the reader leaves it to its parent
    time.sleep(0.2)
    assert _is_running(reader)
    run.kill()
    run.wait(timeout=60)
    deadline = time.monotonic() + 60
    while _is_running(reader):
        assert time.monotonic() < deadline, "the reader is an orphan"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
