"""Updates that were not finite: named, counted, and too many in a row end the run."""

import sys
from collections.abc import Mapping

import jax
import numpy as np

from amt.errors import UserError
from amt.training.step import SKIPPED


class Health:
    """Looks at the scalars of every step; `skipped` counts the updates that were left out since the run began."""

    def __init__(self, most_in_a_row: int, skipped: int = 0):
        self.most_in_a_row = most_in_a_row
        self.skipped = skipped

    def look(self, step: int, scalars: Mapping[str, float]) -> bool:
        """Whether the step was an update; one that was not is told on stderr, with the terms and components to blame.

        Raises `UserError` for the last of `most_in_a_row` that were not.
        """
        in_a_row = int(scalars[SKIPPED])
        if not in_a_row:
            return True
        self.skipped += 1
        culprits = ", ".join(sorted(name for name, value in scalars.items() if not np.isfinite(value)))
        if jax.process_index() == 0:
            print(f"step {step}: not finite, no update ({in_a_row} in a row): {culprits}", file=sys.stderr)
        if in_a_row >= self.most_in_a_row:
            raise UserError(
                f"training: {in_a_row} updates in a row up to step {step} were not finite ({culprits}), "
                "config.train.max_skipped; the last checkpoint holds a state before them: lower "
                "config.train.learning_rate or look at the data, and run the same command again"
            )
        return False
