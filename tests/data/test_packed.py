"""Packed shards: what the tree gives, sample by sample; whole or not there; conversion goes on where it stopped."""

import json
import pickle

import numpy as np
import pytest

import launch
from amt.data.dexycb import PARTS, DexYCB
from amt.data.files import FileError
from amt.data.packed import MANIFEST, PLAN, Packed, make_plan, open_source, pack
from amt.data.quarantine import Quarantine
from amt.data.windows import Windows
from amt.errors import UserError
from tests.data.layout import POINTER, SUBJECTS, cut, write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """2 subjects x 5 sequences x 3 cameras x 3 frames = 90 samples; one of them is cut short."""
    root = tmp_path_factory.mktemp("tree")
    write(root, SUBJECTS[:2])
    cut(sorted(root.rglob("labels_000001.npz"))[4])
    return root


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    assert convert(root, folder) == 0
    return folder


@pytest.fixture(autouse=True)
def leave_jax(monkeypatch):
    monkeypatch.setattr(launch, "set_up_jax", lambda cache_dir: None)


def convert(root, folder, shard_samples=32) -> int:
    options = [f"--config.data.root={root}", f"--config.convert.shard_samples={shard_samples}"]
    launch_patch = pytest.MonkeyPatch()
    launch_patch.setattr(launch, "set_up_jax", lambda cache_dir: None)
    with launch_patch.context():
        return launch.main(["", "--mode=convert", f"--workdir={folder}", *options])


def assert_equal_samples(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name == "color":
            assert ours[name] == value
            continue
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.parametrize("split", ["s0", "s1", "s2", "s3"])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_holds_what_the_tree_holds(root, packed, split, part):
    try:
        tree = DexYCB(root, split, part)
    except UserError:
        with pytest.raises(UserError, match=f"split {split} has no {part} part"):
            open_source(packed, split, part)
        return
    ours = open_source(packed, split, part)
    assert isinstance(ours, Packed) and len(ours) == len(tree)
    assert ours.clips() == tree.clips() and ours.runs == tree.runs
    for i in range(len(tree)):
        try:
            expected = tree[i]
        except FileError as error:
            with pytest.raises(FileError, match="cannot be read") as raised:
                ours[i]
            assert (raised.value.path, raised.value.reason) == (error.path, error.reason)
            continue
        assert_equal_samples(ours[i], expected)


def test_windows_and_copies_in_other_processes_read_the_same(root, packed):
    ours, tree = Packed(packed, "s0", "all"), DexYCB(root, "s0", "all")
    assert_equal = np.testing.assert_array_equal
    assert_equal(Windows(ours, 3, 1)[0]["joints_3d"], Windows(tree, 3, 1)[0]["joints_3d"])
    assert_equal_samples(pickle.loads(pickle.dumps(ours))[50], tree[50])
    with pytest.raises(IndexError):
        ours[len(ours)]


def test_figures_have_their_units_and_unreadable_samples_are_listed(packed):
    figures = json.loads((packed / "convert.json").read_text())
    assert (figures["samples"], figures["samples_written"], figures["shards"]) == (90, 90, 3)
    assert figures["samples_unreadable"] == 1 and figures["convert_s"] > 0 and figures["samples_per_s"] > 0
    assert figures["bytes"] == sum(path.stat().st_size for path in packed.glob("*.array_record"))
    (line,) = (packed / "quarantine.jsonl").read_text().splitlines()
    assert "labels_000001.npz" in json.loads(line)["path"]
    assert len(Quarantine(packed).entries()) == 0  # of this run
    assert not list(packed.glob("*.part"))


def test_a_stopped_conversion_goes_on_and_ends_the_same(root, packed, tmp_path):
    source = DexYCB(root, part="all")
    plan = make_plan(source, 32)
    for count, _ in enumerate(pack(source, plan, tmp_path)):
        if count == 40:
            break  # in the second shard
    with pytest.raises(UserError, match="--mode=convert has not finished"):
        open_source(tmp_path, "s0", "train")
    first = tmp_path / plan["shards"][0]["name"]
    before = first.stat().st_mtime_ns
    assert convert(root, tmp_path) == 0
    figures = json.loads((tmp_path / "convert.json").read_text())
    assert figures["samples_written"] == 90 - 32 and first.stat().st_mtime_ns == before
    assert not (tmp_path / PLAN).exists()
    ours, theirs = Packed(tmp_path, "s0", "all"), Packed(packed, "s0", "all")
    assert_equal_samples(ours[77], theirs[77])


def error_of(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_what_is_there_is_never_overwritten(root, packed, tmp_path, capsys):
    assert convert(root, packed) == 2 and "already there" in error_of(capsys)
    next(pack(source := DexYCB(root, part="all"), make_plan(source, 16), tmp_path))
    assert convert(root, tmp_path) == 2 and "shards of another size" in error_of(capsys)
    assert convert(packed, tmp_path / "new") == 2 and "is packed already" in error_of(capsys)
    assert convert(root, root) == 2 and "is the data set itself" in error_of(capsys)
    assert convert(root, tmp_path / "new", 0) == 2 and "shard_samples=0" in error_of(capsys)
    assert convert(tmp_path / "nowhere", tmp_path / "new") == 2 and "is not a folder" in error_of(capsys)


def test_damaged_shards_are_named(packed, tmp_path):
    def copy(name):
        folder = tmp_path / name
        folder.mkdir()
        for path in packed.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder, sorted(folder.glob("*.array_record"))[1]

    folder, shard = copy("missing")
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}: not there"):
        open_source(folder, "s0", "all")
    folder, shard = copy("pointer")
    shard.write_text(POINTER)
    with pytest.raises(UserError, match=f"{shard.name}: a Git LFS pointer, not the file: run `git lfs pull`"):
        open_source(folder, "s0", "all")
    folder, shard = copy("cut")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match="convert the data set anew"):
        open_source(folder, "s0", "all")
    folder, shard = copy("swapped")
    shard.write_bytes(sorted(folder.glob("*.array_record"))[2].read_bytes())
    with pytest.raises(UserError, match="records, packed.json says 90"):
        open_source(folder, "s0", "all")
    folder, _ = copy("format")
    (folder / MANIFEST).write_text(json.dumps({"format": 0}))
    with pytest.raises(UserError, match="format 0, expected 2"):
        open_source(folder, "s0", "all")
    (folder / MANIFEST).write_text("no json")
    with pytest.raises(UserError, match="expected the manifest"):
        open_source(folder, "s0", "all")
    folder, shard = copy("changed")
    content = bytearray(shard.read_bytes())
    content[len(content) // 4 : len(content) // 4 + 2000] = bytes(2000)
    shard.write_bytes(content)
    source = open_source(folder, "s0", "all")
    broken = 0
    for i in range(32, 64):
        try:
            source[i]
        except FileError as error:
            broken += error.path == str(shard)
    assert broken


def test_missing_sequences_are_counted_as_in_the_tree(tmp_path):
    """By what the set was when it was packed."""
    write(tmp_path / "tree", ["20200709-subject-01"], 2, 1)
    assert convert(tmp_path / "tree", tmp_path / "packed") == 0
    with pytest.raises(UserError, match="20200709-subject-01 has 2 sequence folders; split s0 counts 100"):
        Packed(tmp_path / "packed", "s0", "train")
    assert len(Packed(tmp_path / "packed", "s0", "all")) == 2 * 3
    manifest = json.loads((tmp_path / "packed" / MANIFEST).read_text())
    assert manifest.pop("generated") is False
    (tmp_path / "packed" / MANIFEST).write_text(json.dumps(manifest | {"generated": True}))
    assert len(Packed(tmp_path / "packed", "s0", "train")) == 2 * 3
