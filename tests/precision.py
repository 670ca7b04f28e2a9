"""Double precision in a process whose other tests compute in single precision."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """float64 inside the block.

    jax 0.10.2 keeps the canonical form of a numpy constant as long as any compiled program holds it, without regard to
    the precision that it was made in: an int64 index table that was used in single precision comes back as int32.
    """
    jax.clear_caches()
    with jax.enable_x64(True):
        yield
    jax.clear_caches()
