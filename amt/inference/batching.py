"""Functions of rows, compiled once for chunks of a fixed size, on one device or split over a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from amt.training.sharding import BATCH, num_batch_parts


class Rows:
    """`rows(fixed, arrays)`: `f(fixed, arrays)` of all rows, as numpy arrays, for an `f` that takes each row by itself.

    Every device computes `size` rows at a time with the same program, so that nothing depends on how many devices there
    are; the last chunk is filled up with its last row, and what comes of that is dropped. `fixed` is a pytree that
    every device has, `arrays` one of arrays with the rows as first axis.
    """

    def __init__(self, f: Callable[[Any, Any], Any], size: int, mesh: Mesh | None = None):
        self.size, self._split = size, None
        if mesh is not None:
            self.size *= num_batch_parts(mesh)
            self._split = NamedSharding(mesh, BATCH)
            f = jax.shard_map(f, mesh=mesh, in_specs=(P(), BATCH), out_specs=BATCH, check_vma=False)
        self._f = jax.jit(f)

    def __call__(self, fixed: Any, arrays: Any) -> Any:
        count = len(jax.tree.leaves(arrays)[0])
        outs = [self._f(fixed, self._chunk(arrays, start)) for start in range(0, count, self.size)]
        return jax.tree.map(lambda *x: np.concatenate(x)[:count], *outs)

    def _chunk(self, arrays: Any, start: int) -> Any:
        def chunk(x):
            part = x[start : start + self.size]
            return np.concatenate([part, np.repeat(part[-1:], self.size - len(part), axis=0)])

        return jax.device_put(jax.tree.map(chunk, arrays), self._split)
