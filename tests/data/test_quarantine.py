"""Broken samples: listed with path and reason, replaced, and too many of them end the run."""

import json

import grain.python as grain
import jax
import numpy as np
import pytest

from amt.data import pipeline
from amt.data.dexycb import DexYCB
from amt.data.pipeline import eval_batches, to_batch, train_iterator
from amt.data.quarantine import MIN_COUNT, Quarantine, Readable
from amt.data.transforms import network_batch
from amt.errors import UserError
from tests.data.layout import SUBJECTS, change, change_arrays, cut, real_labels, write
from tests.samples import changed

CONFIG = changed(image_size=32, frame_size=32)
SPLIT = ("s1", "train")
NAN = np.full((1, 21, 3), np.nan, np.float32)


@pytest.fixture
def root(tmp_path):
    """2 sequences x 3 cameras x 4 frames."""
    write(tmp_path / "data", SUBJECTS[:1], 2, 4, real_labels, (640, 480))
    return tmp_path / "data"


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def listed(workdir) -> dict[str, str]:
    lines = (workdir / "quarantine.jsonl").read_text().splitlines()
    return {json.loads(line)["path"]: json.loads(line)["reason"] for line in lines}


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def damage_five_ways(root) -> dict[str, str]:
    """Paths and what their reason must say."""
    labels = sorted(root.rglob("labels_*.npz"))
    colors = sorted(root.rglob("color_*.jpg"))
    cut(colors[0])
    labels[2].unlink()
    change_arrays(labels[5], joint_3d=NAN)
    change_arrays(labels[8], pose_m=np.zeros((2, 51), np.float32))
    colors[11].unlink()
    paths = (colors[0], labels[2], labels[5], labels[8], colors[11])
    reasons = ("JPEG", "not there", "not finite", "(2, 51)", "not there")
    return dict(zip(map(str, paths), reasons, strict=True))


def test_good_data_comes_as_without_a_quarantine(root, workdir):
    source = DexYCB(root, *SPLIT)
    plain = take(train_iterator(source, CONFIG, 4, 5, 0), 8)
    watched = take(train_iterator(source, CONFIG, 4, 5, 0, Quarantine(workdir)), 8)
    by_hand = (
        grain.MapDataset.source(source)
        .seed(5)
        .shuffle()[0::1]
        .repeat()
        .batch(4, batch_fn=list)
        .random_map(lambda samples, rng: to_batch(network_batch(samples, rng, CONFIG)), seed=5)
    )
    assert_equal(plain, watched)
    assert_equal(plain, [by_hand[i] for i in range(8)])
    assert not list(workdir.iterdir())


def test_broken_samples_are_listed_and_replaced(root, workdir):
    source = DexYCB(root, *SPLIT)
    good = take(train_iterator(source, CONFIG, 4, 0, 0), 6)
    expected = damage_five_ways(root)
    batches = take(train_iterator(source, CONFIG, 4, 0, 0, Quarantine(workdir)), 6)
    found = listed(workdir)
    assert set(found) == set(expected) and all(expected[path] in found[path] for path in found)
    assert all(len(batch.image) == 4 and np.isfinite(batch.joints_3d).all() for batch in batches)
    same = [(a == b).all() for x, y in zip(good, batches, strict=True) for a, b in zip(x.image, y.image, strict=True)]
    assert same.count(False) <= 5
    known = {source[i]["hand_pose"][3:48].tobytes() for i in set(range(24)) - {0, 2, 5, 8, 11}}
    assert {pose[3:].tobytes() for batch in batches for pose in batch.hand_pose} == known
    again = take(train_iterator(source, CONFIG, 4, 0, 0, Quarantine(workdir)), 6)
    assert_equal(again, batches)


def test_a_sample_is_listed_once(root, workdir):
    damage_five_ways(root)
    take(train_iterator(DexYCB(root, *SPLIT), CONFIG, 4, 0, 0, Quarantine(workdir)), 18)  # three epochs
    assert len((workdir / "quarantine.jsonl").read_text().splitlines()) == 5


def test_a_file_that_vanishes_in_mid_epoch(root, workdir):
    source = DexYCB(root, *SPLIT)
    iterator = train_iterator(source, CONFIG, 4, 0, 0, Quarantine(workdir))
    next(iterator)
    for path in sorted(root.rglob("color_*.jpg"))[:8]:
        path.unlink()
    assert all(len(batch.image) == 4 for batch in take(iterator, 12))
    assert len(listed(workdir)) == 8 and set(listed(workdir).values()) == {"not there"}


def test_an_empty_sequence_is_listed(root, workdir):
    change(root / SUBJECTS[0] / "20250709_141450" / "meta.yml", num_frames=0)
    iterator = train_iterator(DexYCB(root, *SPLIT), CONFIG, 4, 0, 0, Quarantine(workdir))
    assert len(next(iterator).image) == 4
    assert listed(workdir) == {str(root / SUBJECTS[0] / "20250709_141450"): "a sequence without frames"}


@pytest.mark.slow
def test_workers_list_and_replace_alike(root, workdir):
    expected = damage_five_ways(root)
    source = DexYCB(root, *SPLIT)
    alone = take(train_iterator(source, CONFIG, 4, 3, 0, Quarantine(workdir)), 8)
    (workdir / "quarantine.jsonl").unlink()
    with_workers = take(train_iterator(source, CONFIG, 4, 3, 2, Quarantine(workdir)), 8)
    assert_equal(alone, with_workers)
    assert set(listed(workdir)) == set(expected)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_end_the_run_in_one_line(root, workdir, num_workers):
    labels = sorted(root.rglob("labels_*.npz"))
    for path in labels[: MIN_COUNT + 1]:
        path.unlink()
    iterator = train_iterator(DexYCB(root, *SPLIT), CONFIG, 4, 0, num_workers, Quarantine(workdir))
    with pytest.raises(UserError, match=r"data: 11 of \d+ samples are in quarantine, more than 0.1%") as error:
        take(iterator, 12)
    shown = [path for path in labels if f"{path}: not there" in str(error.value)]
    assert len(shown) == 5 and "quarantine.jsonl" in str(error.value)


def test_the_share_counts_where_the_set_is_large(workdir):
    quarantine = Quarantine(workdir)
    for i in range(100):
        quarantine.add(f"labels_{i}.npz", "not there", i)
    quarantine.check(100_000)
    with pytest.raises(UserError, match="100 of 99999"):
        quarantine.check(99_999)


def test_lines_of_an_earlier_run_do_not_count(workdir):
    first = Quarantine(workdir)
    for i in range(50):
        first.add(f"labels_{i}.npz", "not there", i)
    second = Quarantine(workdir)
    second.check(0)
    second.add("labels_3.npz", "not there", 3)
    assert [entry["sample"] for entry in second.entries()] == [3] and len(first.entries()) == 50


def test_what_another_process_has_listed_is_not_listed_again(workdir):
    ours, theirs = Quarantine(workdir), Quarantine(workdir)
    for quarantine in (ours, theirs, ours):
        quarantine.add("a.npz", "not there", 1)
    theirs.add("b.npz", "not there", 2)
    assert len((workdir / "quarantine.jsonl").read_text().splitlines()) == 2
    assert ours.entries() == theirs.entries() and len(ours.entries()) == 2


def test_other_hosts_have_their_own_list(workdir):
    Quarantine(workdir, process=2).add("a.npz", "not there", 1)
    assert [path.name for path in workdir.iterdir()] == ["quarantine_2.jsonl"]


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_data_set_that_is_gone_ends_the_run(root, workdir, num_workers):
    source = DexYCB(root, *SPLIT)
    root.rename(root.with_name("moved"))
    with pytest.raises(UserError, match="none of 20 samples"):
        next(train_iterator(source, CONFIG, 4, 0, num_workers, Quarantine(workdir)))


def test_a_mistake_of_the_program_is_not_hidden(root, workdir, monkeypatch):
    def broken(samples, rng, config):
        raise ValueError("a bug")

    monkeypatch.setattr(pipeline, "network_batch", broken)
    with pytest.raises(ValueError, match="a bug"):
        next(train_iterator(DexYCB(root, *SPLIT), CONFIG, 4, 0, 0, Quarantine(workdir)))


def test_a_restored_iterator_replays_the_same_replacements(root, workdir):
    damage_five_ways(root)
    source = DexYCB(root, *SPLIT)
    iterator = train_iterator(source, CONFIG, 4, 7, 0, Quarantine(workdir))
    take(iterator, 2)
    state = iterator.get_state()
    expected = take(iterator, 5)
    fresh = train_iterator(source, CONFIG, 4, 7, 0, Quarantine(workdir))
    fresh.set_state(state)
    assert_equal(take(fresh, 5), expected)


def test_evaluation_leaves_broken_samples_out(root, workdir):
    source = DexYCB(root, *SPLIT)
    truth = [source[i]["hand_pose"][3:48] for i in range(24)]
    expected = damage_five_ways(root)
    batches = list(eval_batches(source, CONFIG, 10, 0, Quarantine(workdir)))
    seen = np.concatenate([batch.hand_pose[real, 3:] for batch, real in batches])
    np.testing.assert_array_equal(seen, [truth[i] for i in range(24) if i not in (0, 2, 5, 8, 11)])
    assert set(listed(workdir)) == set(expected)
    with pytest.raises(UserError, match="JPEG"):
        list(eval_batches(source, CONFIG, 10, 0))


def test_a_readable_source_has_every_place_filled(root, workdir):
    expected = damage_five_ways(root)
    source = DexYCB(root, *SPLIT)
    readable = Readable(source, Quarantine(workdir))
    samples = [readable[i] for i in range(len(readable))]
    assert len(samples) == 24 and set(listed(workdir)) == set(expected)
    np.testing.assert_array_equal(samples[1]["joints_3d"], source[1]["joints_3d"])
    np.testing.assert_array_equal(samples[0]["joints_3d"], readable[0]["joints_3d"])
