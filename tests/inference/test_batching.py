"""Rows in chunks: the same on any number of devices, and no trace of what fills up the last chunk."""

import jax
import numpy as np
import pytest

from amt.inference.batching import Rows
from amt.training.sharding import make_mesh


def rooms(fixed, arrays):
    """Of every row something that a neighbour would change, and how many rows there are."""
    x = arrays["x"]
    return {"y": fixed["a"] * x.sum(-1), "rows": jax.numpy.full(len(x), len(x)), "pair": (x[:, :1], arrays["b"])}


@pytest.mark.parametrize("devices", [0, 1, 2, 8])
@pytest.mark.parametrize("count", [1, 7, 32])
def test_every_row_comes_out_once_on_any_number_of_devices(devices, count):
    rng = np.random.default_rng(count)
    arrays = {"x": rng.normal(size=(count, 5)).astype(np.float32), "b": np.arange(count) % 2 == 0}
    mesh = make_mesh(-1, 1, 1, jax.devices()[:devices]) if devices else None
    rows = Rows(rooms, 3, mesh)
    assert rows.size == 3 * max(devices, 1)
    out = rows({"a": np.float32(2)}, arrays)
    np.testing.assert_allclose(out["y"], 2 * arrays["x"].sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(out["pair"][0], arrays["x"][:, :1])
    np.testing.assert_array_equal(out["pair"][1], arrays["b"])
    assert out["rows"].tolist() == [3] * count  # on every device the same program
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(out))
