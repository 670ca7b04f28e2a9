"""Tables of several processes, each of which evaluated its share of the videos."""

import io

import jax
import numpy as np
from jax.experimental import multihost_utils

from amt.evaluation.samples import Samples, join


def share(clips: list[range]) -> list[range]:
    """This process's videos."""
    return clips[jax.process_index() :: jax.process_count()]


def gather(samples: Samples | None, unreadable: int) -> tuple[Samples | None, int]:
    """The tables of all processes as one, in every process, and the sum of what they could not read."""
    if jax.process_count() == 1:
        return samples, unreadable
    content = np.frombuffer(b"" if samples is None else samples.to_bytes(), np.uint8)
    sizes, bad = multihost_utils.process_allgather(np.array([len(content), unreadable], np.int32)).T
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(content)] = content
    everyone = multihost_utils.process_allgather(padded)
    parts = [Samples.load(io.BytesIO(row[:n].tobytes())) for row, n in zip(everyone, sizes, strict=True) if n]
    return (join(parts) if parts else None), int(bad.sum())
