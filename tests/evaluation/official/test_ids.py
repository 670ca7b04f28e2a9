"""Frames are counted as the toolkit counts them."""

from types import SimpleNamespace

import numpy as np
import pytest

from amt.data.dexycb import make_runs
from amt.evaluation.official.ids import bop_ids

ALL = list(range(100))
S0 = {"train": [i for i in ALL if i % 5 != 4], "val": [i for i in ALL if i % 5 == 4]}
SPLITS = {  # dex_ycb.py: subjects, cameras and sequences of a part
    ("s0", "train"): (range(10), range(8), S0["train"]),
    ("s0", "val"): ((0, 1), range(8), S0["val"]),
    ("s0", "test"): (range(2, 10), range(8), S0["val"]),
    ("s1", "test"): ((7, 8), range(8), ALL),
    ("s2", "train"): (range(10), range(6), ALL),
    ("s2", "test"): (range(10), (7,), ALL),
    ("s3", "val"): (range(10), range(8), [i for i in ALL if i // 5 in (3, 19)]),
}


@pytest.mark.parametrize(("split", "part"), SPLITS)
def test_scenes_and_images_are_those_of_get_bop_id_from_idx(split, part):
    lengths = np.random.default_rng(0).integers(1, 5, (10, 100))
    sequences = [(s, q, 8, int(lengths[s, q])) for s in range(10) for q in ALL]
    ids = bop_ids(SimpleNamespace(runs=make_runs(sequences, split, part)))
    subjects, cameras, indices = SPLITS[split, part]
    mapping = [
        (position, c, f)
        for position, (s, q) in enumerate((s, q) for s in subjects for q in indices)
        for c in range(len(cameras))
        for f in range(lengths[s, q])
    ]
    expected = [(s * len(cameras) + c, f) for s, c, f in mapping]
    assert list(zip(ids.scene.tolist(), ids.image.tolist(), strict=True)) == expected
