"""Orbax checkpoints of the train state and the data iterator, and the configuration they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import orbax.checkpoint as ocp

from amt.errors import UserError
from amt.models.weights import check_architecture
from amt.training.step import TrainState


class Checkpoints:
    """The checkpoints below `folder`; saving is asynchronous, `close` waits for it.

    Raises `UserError` if the folder holds checkpoints of another architecture.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], keep: int = 2):
        described = folder / "architecture.json"
        if described.exists():
            check_architecture(json.loads(described.read_text()), settings, str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        described.write_text(json.dumps(dict(settings), indent=2) + "\n")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix="step")
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: TrainState, iterator: grain.DatasetIterator) -> None:
        """Save the state after `step` steps and where the data is; a step that is already there is left alone."""
        if self.manager.latest_step() == step:
            return
        parts = {"state": ocp.args.StandardSave(state), "data": grain.PyGrainCheckpointSave(iterator)}
        self.manager.save(step, args=ocp.args.Composite(**parts))

    def restore(self, state: TrainState, iterator: grain.DatasetIterator) -> TrainState | None:
        """The newest state, laid out like `state` on its mesh, and the iterator moved to it; None if there is none."""
        step = self.manager.latest_step()
        if step is None:
            return None
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        parts = {"state": ocp.args.StandardRestore(like), "data": grain.PyGrainCheckpointRestore(iterator)}
        try:
            return self.manager.restore(step, args=ocp.args.Composite(**parts)).state
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.manager.directory}: step {step} cannot be restored ({reason}); if config.data.num_workers has "
                "changed set it back, else remove the step to go on from the one before"
            ) from error

    def close(self) -> None:
        """Wait until everything is on the disk."""
        self.manager.wait_until_finished()
        self.manager.close()
