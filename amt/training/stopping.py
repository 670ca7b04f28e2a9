"""Asking a run to stop: SIGTERM (a cluster's notice) and SIGINT (Ctrl-C) end it after the step it is in."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

NOTICE = b"\nstopping after this step and saving; Ctrl-C again stops at once\n"


class StopRequest:
    """`with StopRequest() as asked:` answers `asked(step)`: whether to stop after so many steps.

    One process is told by its signal handlers, which are back to what they were at the end. With `jax.distributed` one
    process's SIGTERM is enough: JAX's preemption service makes all of them stop after the same step, and every process
    has to ask after each of its steps. Belongs into the main thread. A second Ctrl-C is a KeyboardInterrupt.
    """

    def __enter__(self) -> "StopRequest":
        self.asked = False
        self.distributed = jax.distributed.is_initialized()
        # JAX's service listens to SIGTERM itself, and a handler here would take its place.
        signals = (signal.SIGINT,) if self.distributed else (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._hear) for number in signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self, step: int) -> bool:
        if self.distributed:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        os.write(2, NOTICE)  # print is not safe here
        if self.distributed:
            os.kill(os.getpid(), signal.SIGTERM)
