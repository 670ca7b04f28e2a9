"""Orbax checkpoints: the train state, the place in the data and what they belong to, sealed with checksums.

`step_N/` holds the items `state` (the whole `TrainState`), `data` (Grain's iterator, a file for each process) and
`about` (JSON), and `files.json` with the size and CRC-32 of every file of them. A checkpoint appears under its name
when all of this is written, so a run that is killed leaves whole checkpoints only; what happened to one later is seen
before Orbax reads it.
"""

import contextlib
import errno
import json
import logging
import shutil
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from amt.errors import UserError
from amt.models import sigma_reparam
from amt.models.sigma_reparam import Spectral
from amt.models.weights import check_architecture
from amt.storage import POINTER_HINT, is_pointer
from amt.training.sharding import path_name
from amt.training.step import TrainState

SEAL = "files.json"
PREFIX = "step"
NONE, UNUSABLE = -1, -2  # instead of a step, where process 0 tells the others
CHUNK = 1 << 20  # bytes


class Checkpoints:
    """The checkpoints below `folder`: the newest `keep` and the one of the lowest score. Saving is asynchronous.

    `about` is what they belong to: `architecture` and `iterator` have to be the same when a run goes on, all of it is
    saved. Use as a context manager: its end waits until everything is on the disk.
    Raises `UserError` where there are checkpoints and the run may not `resume`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], keep: int = 2, resume: bool = True):
        if keep < 1:
            raise UserError(f"config.train.keep_checkpoints={keep}: expected 1 or more")
        if not resume and (steps := found_steps(folder)):
            raise UserError(
                f"{folder}: holds checkpoints up to step {steps[0]}, but config.train.resume=False; "
                "choose another --workdir, or remove them to begin again"
            )
        self.folder, self.about = folder, dict(about)
        self._best: tuple[int, float] | None = None
        self._silence = contextlib.ExitStack()
        self._saving = NONE  # the step that is being written
        self._policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep)])
        options = ocp.CheckpointManagerOptions(
            step_prefix=PREFIX,
            preservation_policy=self._policy,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        with self._failures():
            folder.mkdir(parents=True, exist_ok=True)
            self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def best(self) -> tuple[int, float] | None:
        """The step of the lowest score among the checkpoints of this run, and the score."""
        return self._best

    def save(
        self,
        step: int,
        state: TrainState,
        iterator: grain.DatasetIterator,
        progress: Mapping[str, Any] | None = None,
        score: float | None = None,
    ) -> None:
        """Save the state after `step` steps and where the data is; a step that is already there is left alone.

        `progress` is what else the loop needs to go on, as JSON. Raises `UserError` where the disk is full, for this
        save or the one before.
        """
        if self.manager.latest_step() == step:
            return
        if score is not None and np.isfinite(score) and (self.best is None or score < self.best[1]):
            self._keep_best((step, float(score)))
        about = {**self.about, "state": _shapes(state), "best": self.best, "progress": dict(progress or {})}
        parts = {
            "state": ocp.args.StandardSave(state),
            "data": grain.PyGrainCheckpointSave(iterator),
            "about": ocp.args.JsonSave(about),
        }
        with self._failures():
            self.manager.wait_until_finished()
            self._saving = step
            self.manager.save(step, args=ocp.args.Composite(**parts))

    def restore(
        self, state: TrainState, iterator: grain.DatasetIterator
    ) -> tuple[TrainState, Mapping[str, Any]] | None:
        """The newest state that is whole, laid out like `state` on its mesh, and the loop's progress; the iterator is
        moved to it. None if nothing has been saved yet. Damaged newer ones become `damaged_step_N`.

        Raises `UserError` for a checkpoint of another configuration, and where all are damaged.
        """
        step = self._usable_step()
        if step is None:
            return None
        where = f"{self.folder}/{PREFIX}_{step}"
        found = read_about(self.folder, step)
        for part in ("architecture", "iterator"):
            check_architecture(found[part], self.about[part], where)
        check_architecture(found["state"], _shapes(state), where)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        parts = {"state": ocp.args.StandardRestore(like), "data": grain.PyGrainCheckpointRestore(iterator)}
        restored = self.manager.restore(step, args=ocp.args.Composite(**parts)).state
        self._keep_best(tuple(found["best"]) if found["best"] else None)
        return _owned(restored), found["progress"]

    def check(self) -> None:
        """Raises `UserError` if a save in the background has failed."""
        if not self.manager.is_saving_in_progress():
            with self._failures():
                self.manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        self._silence = _silence()
        return self

    def __exit__(self, *_) -> None:
        with self._silence:
            with self._failures():
                self.manager.wait_until_finished()
            self.manager.close()

    def _keep_best(self, best: tuple[int, float] | None) -> None:
        self._best = best
        self._policy.policies[1:] = [checkpoint_managers.CustomSteps([best[0]])] if best else []

    def _seal(self) -> None:
        """Orbax calls it in the first process when a checkpoint is written and has not got its name yet."""
        name = f"{PREFIX}_{self._saving}"
        _seal(next(self.folder.glob(f"{name}.*"), self.folder / name))

    def _usable_step(self) -> int | None:
        """Decided by the first process, which also moves damaged checkpoints away."""
        step, failure = NONE, None
        if jax.process_index() == 0:
            try:
                step = newest_step(self.folder)
                for damaged in (s for s in found_steps(self.folder) if step is not None and s > step):
                    aside = self.folder / f"damaged_{PREFIX}_{damaged}"
                    shutil.rmtree(aside, ignore_errors=True)
                    (self.folder / f"{PREFIX}_{damaged}").rename(aside)
            except UserError as error:
                step, failure = UNUSABLE, error
        step = int(multihost_utils.broadcast_one_to_all(np.int32(NONE if step is None else step)))
        if step == UNUSABLE:
            raise failure or UserError(f"{self.folder}: no usable checkpoint; the first process says more")
        self.manager.reload()
        return None if step == NONE else step

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if (reason := _disk_failure(error)) is None:
                raise
            for thread in threading.enumerate():  # of other arrays, which write on after the first error
                if type(thread).__module__.startswith("orbax."):
                    threading.Thread.join(thread)  # theirs would raise its error
            self._silence.pop_all()  # for good: TensorStore's own threads cannot be waited for
            steps = found_steps(self.folder)
            kept = f"step {steps[0]} is the newest one that is whole" if steps else "none is saved yet"
            raise UserError(
                f"{self.folder}: a checkpoint cannot be written ({reason}); {kept}; "
                "make room and run the same command again"
            ) from error


def newest_step(folder: Path) -> int | None:
    """The newest step of which every file is as it was written, None where there is no checkpoint at all.

    Damaged newer ones are named on stderr, one line each. Raises `UserError` if all are damaged.
    """
    steps = found_steps(folder)
    for step, before in zip(steps, [*steps[1:], None], strict=False):
        damage = find_damage(folder / f"{PREFIX}_{step}")
        if damage is None:
            return step
        then = "" if before is None else f", trying {PREFIX}_{before}"
        print(f"{folder}/{PREFIX}_{step}: damaged ({damage}): skipped{then}", file=sys.stderr)
    if steps:
        raise UserError(
            f"{folder}: none of its {len(steps)} checkpoints is usable; "
            "put back a copy, or remove the folder to begin again from step 0"
        )
    return None


def found_steps(folder: Path) -> list[int]:
    """Steps of finished checkpoints, whole or not, the newest first."""
    names = [path.name.removeprefix(f"{PREFIX}_") for path in folder.glob(f"{PREFIX}_*")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where sizes and checksums are those that were written."""
    if is_pointer(checkpoint / SEAL):
        return f"{SEAL} is {POINTER_HINT}"
    try:
        files = {checkpoint / name: tuple(seal) for name, seal in json.loads((checkpoint / SEAL).read_text()).items()}
    except OSError:
        return f"{SEAL} is missing"
    except (ValueError, TypeError, AttributeError):
        return f"{SEAL} is not what was written"
    for path, (size, _) in files.items():
        if not path.is_file():
            return f"{path.relative_to(checkpoint)} is missing"
        if is_pointer(path):
            return f"{path.relative_to(checkpoint)} is {POINTER_HINT}"
        if path.stat().st_size != size:
            return f"{path.relative_to(checkpoint)} has {path.stat().st_size} bytes instead of {size}"
    for path, (_, checksum) in files.items():
        if _checksum(path) != checksum:
            return f"{path.relative_to(checkpoint)} is not what was written"
    return None


def read_about(folder: Path, step: int) -> dict[str, Any]:
    """The JSON of a checkpoint: `config`, `architecture`, `code`, `state` (shapes by path), `best` ..."""
    return json.loads((folder / f"{PREFIX}_{step}" / "about" / "metadata").read_text())


def load_averaged(folder: Path, step: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """For evaluation: the averaged parameters of a step, or the newest, as the model takes them, and its `read_about`.

    `folder` is the `checkpoints` of a work directory, of a run that may be on any mesh or still under way; nothing is
    written. Raises `UserError` where there is none, or it is damaged.
    """
    steps = found_steps(folder)
    if not steps or step not in (None, *steps):
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(f"{folder}: no checkpoint{'' if step is None else f' of step {step}'}; there: {there}")
    if step is None:
        step = newest_step(folder)
    elif damage := find_damage(folder / f"{PREFIX}_{step}"):
        raise UserError(f"{folder}/{PREFIX}_{step}: damaged ({damage}); choose another step")
    path = (folder / f"{PREFIX}_{step}" / "state").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.handler.metadata(path).tree
        wanted = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), {k: tree[k] for k in ("ema", "spectral")})
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        read = reader.restore(path, args=args)
    return sigma_reparam.fold(read["ema"], Spectral(**read["spectral"]))[0], read_about(folder, step)


def _silence() -> contextlib.ExitStack:
    """Keeps back, until it is closed, what else is printed of an error that the main thread raises: Orbax's threads log
    their tracebacks, TensorStore's call back into the event loop that Orbax has closed at the first error, and asyncio
    and Python miss who waits for what that had still to do.
    """
    stack, report = contextlib.ExitStack(), sys.unraisablehook

    def report_others(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    for log in (logging.getLogger("absl"), logging.getLogger("asyncio")):
        log.addFilter(_not_orbax)
        stack.callback(log.removeFilter, _not_orbax)
    sys.unraisablehook = report_others
    stack.callback(setattr, sys, "unraisablehook", report)
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    return stack


def _not_orbax(record: logging.LogRecord) -> bool:
    if record.exc_info and _disk_failure(record.exc_info[1]):
        return False
    return f"{Path('orbax', 'checkpoint')}" not in record.pathname + record.getMessage()


def _seal(checkpoint: Path) -> None:
    items = [path for path in checkpoint.iterdir() if path.is_dir()]
    files = sorted(path for item in items for path in item.rglob("*") if path.is_file())
    seals = {str(path.relative_to(checkpoint)): (path.stat().st_size, _checksum(path)) for path in files}
    (checkpoint / SEAL).write_text(json.dumps(seals, indent=1))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _owned(state: TrainState) -> TrainState:
    """A copy in memory of its own. On CPUs devices share that of restored arrays, and a step, which writes its results
    into the memory of the state that it is given, would have them write over each other's.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings)(state)


def _shapes(state: TrainState) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path_name(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _disk_failure(error: BaseException) -> str | None:
    """Why the disk took no more; None for an error that is not about that."""
    reasons = {
        "No space left on device": errno.ENOSPC,
        "Disk quota exceeded": errno.EDQUOT,
        "File too large": errno.EFBIG,
    }
    while error is not None:
        for reason, code in reasons.items():
            if getattr(error, "errno", None) == code or reason in str(error):
                return reason
        error = error.__cause__ or error.__context__
    return None
