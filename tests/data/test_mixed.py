"""Several data sets as one: every sample of each, once, in order."""

import numpy as np
import pytest

from amt.data.dexycb import DexYCB
from amt.data.mixed import Mixed, find_roots, open_mixed
from amt.data.pipeline import train_iterator
from amt.errors import UserError
from tests.data.layout import SUBJECTS, write
from tests.samples import PLAIN


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    roots = [tmp_path_factory.mktemp(name) for name in ("few", "many")]
    write(roots[0], SUBJECTS[:1])
    write(roots[1], SUBJECTS[:2])
    return roots


def test_samples_of_all_sets_in_order(roots):
    mixed, alone = open_mixed(roots, "s0", "train"), [DexYCB(root) for root in roots]
    assert len(mixed) == sum(map(len, alone))
    expected = [(source, k) for source in alone for k in range(len(source))]
    for i in (0, len(alone[0]) - 1, len(alone[0]), len(mixed) - 1):
        source, k = expected[i]
        np.testing.assert_array_equal(mixed[i]["joints_3d"], source[k]["joints_3d"])
        assert mixed[i]["color"] == source[k]["color"] and mixed.color_path(i) == source.color_path(k)
    assert mixed.empty == [] and not mixed.has_contacts
    for i in (-1, len(mixed)):
        with pytest.raises(IndexError):
            mixed[i]


def test_training_reads_all_of_them(roots):
    mixed = open_mixed(roots, "s0", "train")
    seen = []

    class Spy(Mixed):
        def __getitem__(self, i):
            seen.append(i)
            return super().__getitem__(i)

    iterator = train_iterator(Spy(mixed.sources), PLAIN, 4, 0, 0, prefetch=0)
    for _ in range(-(-len(mixed) // 4)):
        next(iterator)
    assert set(seen) >= set(range(len(mixed)))


def test_one_root_is_its_source_and_unknown_ones_are_named(roots, monkeypatch):
    assert isinstance(open_mixed(roots[:1], "s0", "train"), DexYCB)
    assert find_roots(f"{roots[0]}, {roots[1]}") == roots
    with pytest.raises(UserError, match="nowhere is not a folder"):
        find_roots(f"{roots[0]},nowhere")
    monkeypatch.setenv("DEX_YCB_DIR", str(roots[1]))
    assert find_roots("") == [roots[1]]
