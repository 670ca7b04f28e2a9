"""Bootstrap intervals: whole recordings are drawn again, for the frames of one, and its cameras, are not independent.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentile intervals).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from amt.evaluation.samples import Samples

DRAWS = 2000
LEVEL = 0.95
Totals = dict[str, Float[np.ndarray, "*b"]]


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """`recording` [n] of every frame, and how often each of them is in each draw; the same for every figure."""

    recording: Int[np.ndarray, " n"]
    draws: Float[np.ndarray, "draws recordings"]

    @classmethod
    def of(cls, samples: Samples, seed: int = 0) -> "Bootstrap":
        """Of the recordings of a table: all cameras of a sequence together."""
        names, recording = np.unique(np.stack([samples.subject, samples.sequence]), axis=1, return_inverse=True)
        count = names.shape[1]
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
        return cls(recording, draws.astype(np.float64))

    def totals(
        self, columns: dict[str, Float[np.ndarray, " n"]], rows: Bool[np.ndarray, " n"] | None = None
    ) -> tuple[Totals, Totals]:
        """Sums of columns over some rows (None: all), and those sums in every draw."""
        rows = np.arange(len(self.recording)) if rows is None else np.flatnonzero(rows)
        shape = self.draws.shape[1], len(rows)
        member = csr_array((np.ones(len(rows)), (self.recording[rows], np.arange(len(rows)))), shape)
        sums = member @ np.stack([values[rows] for values in columns.values()], axis=1)
        drawn = self.draws @ sums
        return dict(zip(columns, sums.sum(0), strict=True)), dict(zip(columns, drawn.T, strict=True))

    def interval(self, drawn: Float[np.ndarray, " draws"]) -> list[float]:
        """The middle `LEVEL` of a figure's draws in which it has a value; NaN with fewer than two recordings."""
        drawn = drawn[np.isfinite(drawn)]
        if self.draws.shape[1] < 2 or not len(drawn):
            return [float("nan")] * 2
        return np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
