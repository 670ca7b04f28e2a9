"""Generating and converting go on where a full disk stopped them, at whatever write that was, to the same files."""

import json

import pytest

from amt.data.dexycb import DexYCB
from amt.data.packed import MANIFEST, PLAN, make_plan, open_source, pack
from amt.data.synthetic.generator import generate
from amt.errors import UserError
from tests.data.conftest import TINY
from tests.data.full_disk import Disk
from tests.data.layout import SUBJECTS, contents, write


def test_generating_goes_on_after_a_full_disk(generated, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    list(generate(TINY, tmp_path / "whole", 0))
    rooms = disk.firsts()
    assert len(rooms) > 12
    for room in rooms:
        root = tmp_path / f"full_{room}"
        disk.fill(room)
        with pytest.raises(UserError, match="cannot be written .No space left on device.; make room"):
            list(generate(TINY, root, 0))
        disk.fill(None)
        list(generate(TINY, root, 0))
        assert contents(root) == contents(generated), disk.kinds[room]


@pytest.mark.parametrize("content", ["", '{"seed": 3', "[]"])
def test_generating_goes_on_from_half_a_description(content, generated, tmp_path):
    """As an older version left it on a full disk."""
    (tmp_path / "generator.json").write_text(content)
    list(generate(TINY, tmp_path, 0))
    assert contents(tmp_path) == contents(generated)
    (tmp_path / "generator.json").write_text(content)
    with pytest.raises(UserError, match="holds a data set that this generator did not write"):
        list(generate(TINY, tmp_path, 0))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    write(root, SUBJECTS[:1], 2)
    return DexYCB(root, part="all")


def test_converting_goes_on_after_a_full_disk(source, tmp_path, monkeypatch):
    disk, plan = Disk(monkeypatch), make_plan(source, 5)
    (tmp_path / "whole").mkdir()
    disk.fill(None)
    list(pack(source, plan, tmp_path / "whole"))
    for room in range(len(disk.kinds)):
        folder = tmp_path / f"full_{room}"
        folder.mkdir()
        disk.fill(room)
        with pytest.raises(UserError, match="cannot be written .No space left on device.; make room"):
            list(pack(source, plan, folder))
        with pytest.raises(UserError):
            open_source(folder, "s1", "all")
        disk.fill(None)
        list(pack(source, plan, folder))
        assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("content", ["", '{"format": 2, "root"', "[]"])
def test_converting_goes_on_from_half_a_plan(content, source, tmp_path):
    """As an older version left it on a full disk; shards beside it may be another data set's."""
    plan = make_plan(source, 5)
    (tmp_path / PLAN).write_text(content)
    shard = tmp_path / plan["shards"][0]["name"]
    shard.write_text("another data set")
    shard.with_name(f"{shard.name}.part").write_text("half")
    list(pack(source, plan, tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([MANIFEST, *(s["name"] for s in plan["shards"])])
    ours = open_source(tmp_path, "s1", "all")
    assert [ours[i]["color"] for i in range(len(ours))] == [source[i]["color"] for i in range(len(source))]
    assert json.loads((tmp_path / MANIFEST).read_text()) == plan


def test_shards_that_no_conversion_left_are_not_touched(source, tmp_path):
    plan = make_plan(source, 5)
    shard = tmp_path / plan["shards"][0]["name"]
    shard.write_text("somebody's data")
    with pytest.raises(UserError, match=r"a shard without packed\.json or packed\.json\.part; .* change --workdir"):
        list(pack(source, plan, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [shard.name] and shard.read_text() == "somebody's data"


def test_a_shard_on_a_disk_that_is_really_full_is_one_error(source, small_disk):
    folder = small_disk / "packed"
    folder.mkdir()
    plan = make_plan(source, 5)
    (small_disk / "other").write_bytes(bytes(3 * 1024 * 1024 - 60_000))
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left on device"):
        list(pack(source, plan, folder))
    (small_disk / "other").unlink()
    list(pack(source, plan, folder))
    assert len(open_source(folder, "s1", "all")) == len(source)
