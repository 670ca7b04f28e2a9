"""The index: a second start reads nothing but it, a changed file is noticed, none is needed."""

import datetime
import json
import os

import pytest

from amt.data import index
from amt.data.dexycb import DexYCB
from amt.data.index import index_path
from amt.errors import UserError
from tests.data.layout import SUBJECTS, change, first, save, write


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "WORTH_SAVING", 5)
    write(tmp_path / "data", SUBJECTS[:1])
    return tmp_path / "data"


def opened(monkeypatch) -> list[str]:
    """The names of the YAML files that are opened from now on."""
    names, read = [], index.read_yaml
    monkeypatch.setattr(index, "read_yaml", lambda path: names.append(path.name) or read(path))
    return names


def test_the_second_start_opens_nothing_and_sees_the_same(root, monkeypatch):
    names = opened(monkeypatch)
    before = sorted(root.rglob("*"))
    cold = DexYCB(root)
    assert len(names) == 5 + 3 + 1 + 1  # sequences, cameras, extrinsics, shape
    warm = DexYCB(root)
    assert len(names) == 10 and sorted(root.rglob("*")) == before
    assert warm.sequences == cold.sequences and warm.runs == cold.runs
    for i in (0, len(cold) - 1):
        ours, theirs = warm[i], cold[i]
        assert all((ours[name] == theirs[name]).all() for name in ("K", "T_world_camera", "betas", "joints_3d"))


def test_another_part_of_the_split_uses_the_same_index(root, monkeypatch):
    DexYCB(root, "s0", "train")
    names = opened(monkeypatch)
    DexYCB(root, "s0", "val")
    assert not names


def test_a_changed_file_is_noticed(root, monkeypatch):
    DexYCB(root)
    path = first(root, "meta.yml")
    change(path, num_frames=2)
    os.utime(path, ns=(0, 10**18))
    names = opened(monkeypatch)
    assert DexYCB(root).runs[0].num_frames == 2
    assert names == ["meta.yml"]


def test_a_file_that_is_gone_is_noticed(root):
    DexYCB(root)
    first(root, "meta.yml").unlink()
    with pytest.raises(UserError, match="meta.yml: not there"):
        DexYCB(root)


def test_the_index_of_another_folder_is_not_taken(root):
    DexYCB(root)
    path = index_path(root)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"root": "/elsewhere"}))
    assert len(DexYCB(root)) == 4 * 3 * 3


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"root": 1}', "{"])
def test_a_damaged_index_is_made_again(root, content):
    DexYCB(root)
    path = index_path(root)
    path.write_text(content)
    assert len(DexYCB(root)) == 4 * 3 * 3
    assert len(json.loads(path.read_text())["files"]) == 10


def test_it_works_where_nothing_can_be_written(root, tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    assert len(DexYCB(root)) == 4 * 3 * 3


def test_small_sets_leave_no_index(root, monkeypatch):
    monkeypatch.setattr(index, "WORTH_SAVING", 100)
    DexYCB(root)
    assert not index_path(root).exists()


def test_yaml_that_json_cannot_say_is_read_anew(root):
    save(first(root, "mano.yml"), {"betas": [0.0] * 10, "date": datetime.date(2020, 7, 9)})
    assert len(DexYCB(root)) == len(DexYCB(root))
    assert not index_path(root).exists()
