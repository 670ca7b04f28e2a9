"""Checkpoints hold the state and the place in the data: a run that goes on sees what it would have seen."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from amt.data.device_cache import cache_iterator
from amt.data.dexycb import DexYCB
from amt.data.packed import Packed, make_plan, pack
from amt.data.pipeline import train_iterator
from amt.errors import UserError
from amt.models import sigma_reparam
from amt.training.checkpoint import Checkpoints, find_damage, found_steps, load_averaged, newest_step, read_about
from amt.training.sharding import AXES, tree_shardings
from amt.training.step import TrainState, create_state
from tests.data.layout import POINTER, SUBJECTS, real_labels, write
from tests.samples import changed

CONFIG = changed(image_size=16, frame_size=16)
ABOUT = {"architecture": {"model": {"width": 1}}, "iterator": {"config.data.num_workers": 0}, "config": {"seed": 3}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """3 sequences x 3 cameras x 2 frames = 18 samples: 4 batches of 4 and a half."""
    root = tmp_path_factory.mktemp("data")
    write(root, SUBJECTS[:1], 3, 2, real_labels, (640, 480))
    return DexYCB(root, "s1", "train")


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    whole = DexYCB(source.root, part="all")
    list(pack(whole, make_plan(whole, 5), folder))
    return Packed(folder, "s1", "train")


def state(step: int) -> TrainState:
    params = {"w": jnp.full((2, 2), float(step))}
    return TrainState(jnp.int32(step), jnp.int32(0), params, params, (), sigma_reparam.EMPTY)


@pytest.mark.parametrize("way", ["tree", "packed", "cache", pytest.param("two workers", marks=pytest.mark.slow)])
def test_a_run_stopped_in_mid_epoch_goes_on_with_the_same_batches(way, source, packed, tmp_path):
    def begin():
        if way == "cache":
            return cache_iterator(source, 2, 4, 3)
        return train_iterator(packed if way == "packed" else source, CONFIG, 4, 3, 2 * (way == "two workers"))

    iterator = begin()
    for _ in range(6):  # in the middle of the second epoch
        next(iterator)
    with Checkpoints(tmp_path, ABOUT) as first:
        first.save(6, state(6), iterator)
    expected = [next(iterator) for _ in range(8)]  # into the fourth
    again = begin()
    with Checkpoints(tmp_path, ABOUT) as second:
        restored, _ = second.restore(state(0), again)
    assert int(restored.step) == 6 and float(restored.params["w"][0, 0]) == 6
    for theirs in expected:
        jax.tree.map(np.testing.assert_array_equal, next(again), theirs)


def counter() -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(100).to_iter_dataset())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 2, 4 and 6, the iterator at as many."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    iterator = counter()
    with Checkpoints(folder, ABOUT, keep=3) as checkpoints:
        for step in (2, 4, 6):
            for _ in range(2):
                next(iterator)
            checkpoints.save(step, state(step), iterator, {"scores": {"error": 1 / step}})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def test_the_newest_stay_and_the_best(tmp_path):
    scores = {2: 5.0, 4: 3.0, 6: None, 8: float("nan"), 10: 4.0}
    with Checkpoints(tmp_path, ABOUT, keep=2) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state(step), counter(), score=score)
    assert found_steps(tmp_path) == [10, 8, 4] and checkpoints.best == (4, 3.0)
    with Checkpoints(tmp_path, ABOUT, keep=2) as again:
        again.restore(state(0), counter())
        assert again.best == (4, 3.0)
        for step, score in {12: 3.5, 14: 2.0}.items():
            again.save(step, state(step), counter(), score=score)
    assert found_steps(tmp_path) == [14, 12] and again.best == (14, 2.0)


def test_it_says_what_it_belongs_to(saved):
    about = read_about(saved, 4)
    assert about["config"] == {"seed": 3} and about["progress"] == {"scores": {"error": 0.25}}
    assert about["state"]["params/w"] == "float32[2, 2]" and about["state"]["step"] == "int32[]"


def _all_but_its_name(path):
    for item in path.iterdir():
        shutil.rmtree(item) if item.is_dir() else item.unlink()


def _largest(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def _shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "empty folder": _all_but_its_name,
    "no state": lambda path: shutil.rmtree(path / "state"),
    "no iterator": lambda path: shutil.rmtree(path / "data"),
    "nothing about it": lambda path: (path / "about" / "metadata").unlink(),
    "a shorter file": lambda path: _shorten(_largest(path / "state")),
    "an empty file": lambda path: (path / "state" / "manifest.ocdbt").write_bytes(b""),
    "one other bit": lambda path: _flip(_largest(path / "state")),
    "zeros": lambda path: _largest(path).write_bytes(bytes(_largest(path).stat().st_size)),
    "a Git LFS pointer": lambda path: _largest(path).write_text(POINTER),
    "no seal": lambda path: (path / "files.json").unlink(),
    "half a seal": lambda path: _shorten(path / "files.json"),
    "another seal": lambda path: (path / "files.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("way", DAMAGE)
def test_damage_of_any_kind_is_seen_and_named(way, folder, capfd):
    assert find_damage(folder / "step_6") is None
    DAMAGE[way](folder / "step_6")
    assert newest_step(folder) == 4
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{folder}/step_6: damaged (") and line.endswith("): skipped, trying step_4")
    assert ("run `git lfs pull`" in line) == (way == "a Git LFS pointer")


def test_the_one_before_a_damaged_one_is_used(folder, capfd):
    _flip(_largest(folder / "step_6" / "state"))
    shutil.copytree(folder / "step_4", folder / "step_8.orbax-checkpoint-tmp")  # of a run that was killed
    iterator = counter()
    with Checkpoints(folder, ABOUT) as checkpoints:
        restored, progress = checkpoints.restore(state(0), iterator)
        assert int(restored.step) == 4 and next(iterator) == 4 and progress == {"scores": {"error": 0.25}}
        assert len(capfd.readouterr().err.splitlines()) == 1
        checkpoints.save(6, state(7), iterator)  # in its place
    assert sorted(p.name for p in folder.iterdir()) == ["damaged_step_6", "step_4", "step_6"]
    assert float(load_averaged(folder)[0]["w"][0, 0]) == 7


def test_where_none_is_whole_it_does_not_begin_again(folder, capfd):
    for step in (2, 4, 6):
        _shorten(_largest(folder / f"step_{step}"))
    with Checkpoints(folder, ABOUT) as checkpoints, pytest.raises(UserError, match="none of its 3 checkpoints is usab"):
        checkpoints.restore(state(0), counter())
    assert found_steps(folder) == [6, 4, 2] and len(capfd.readouterr().err.splitlines()) == 3
    with pytest.raises(UserError, match="none of its 3 checkpoints"):
        load_averaged(folder)


def test_an_empty_folder_begins_at_the_start(tmp_path):
    with Checkpoints(tmp_path, ABOUT) as checkpoints:
        assert checkpoints.restore(state(0), counter()) is None
    assert newest_step(tmp_path) is None
    with pytest.raises(UserError, match="no checkpoint; there: none"):
        load_averaged(tmp_path)


@pytest.mark.parametrize(
    ("change", "shape", "says"),
    [
        ({"architecture": {"model": {"width": 2}}}, 2, r"step_6: .* model\.width is 1 there and 2 here"),
        (
            {"iterator": {"config.data.num_workers": 1}},
            2,
            r"step_6: .*\.num_workers is 0 there and 1 here",
        ),
        ({}, 3, r"step_6: .* ema/w is float32\[2, 2\] there and float32\[3, 3\] here"),
    ],
)
def test_one_of_another_configuration_is_refused_and_stays(change, shape, says, folder):
    params = {"w": jnp.zeros((shape, shape))}
    other = TrainState(jnp.int32(0), jnp.int32(0), params, params, (), sigma_reparam.EMPTY)
    with Checkpoints(folder, ABOUT | change) as checkpoints, pytest.raises(UserError, match=says):
        checkpoints.restore(other, counter())
    assert newest_step(folder) == 6


def test_without_resume_a_used_folder_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match=r"holds checkpoints up to step 6, but config\.train\.resume=False"):
        Checkpoints(saved, ABOUT, resume=False)
    with Checkpoints(tmp_path / "new", ABOUT, resume=False):
        pass
    with pytest.raises(UserError, match=r"config\.train\.keep_checkpoints=0: expected 1 or more"):
        Checkpoints(tmp_path, ABOUT, keep=0)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 1)])
def test_restored_onto_another_mesh_and_for_evaluation(shape, tmp_path):
    """With gains of sigma-reparam and the optimizer's state, from 8x1x1."""

    def build(shape, seed):
        mesh = jax.make_mesh(shape, AXES, (AxisType.Auto,) * 3, devices=jax.devices()[: np.prod(shape)])
        params = {"perception": {"Block_0": {"Dense_0": {"kernel": jax.random.normal(jax.random.key(seed), (8, 16))}}}}
        return create_state(params, optax.adam(1e-3), mesh, with_gains=True), mesh

    before, _ = build((8, 1, 1), 1)
    with Checkpoints(tmp_path, ABOUT) as checkpoints:
        checkpoints.save(3, before, counter())
    like, mesh = build(shape, 2)
    with Checkpoints(tmp_path, ABOUT) as checkpoints:
        after, _ = checkpoints.restore(like, counter())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(before))
    placed = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), after, tree_shardings(like, mesh))
    assert all(jax.tree.leaves(placed))
    for leaf in jax.tree.leaves(after):  # which the next step writes into
        places = [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]
        assert len(places) == len(set(places))
    averaged, _ = load_averaged(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), averaged, jax.device_get(before.averaged()))


@pytest.mark.parametrize("later", [False, True])
def test_a_full_disk_is_one_clear_error_and_the_last_good_one_stays(later, small_disk, caplog):
    """The second one does not fit; it is seen at the next step or, where there is none, at the end."""

    def large(step):
        params = {"w": jax.random.normal(jax.random.key(step), (512, 512))}  # 1 MiB of what cannot be compressed
        return TrainState(jnp.int32(step), jnp.int32(0), params, {"w": jnp.zeros(2)}, (), sigma_reparam.EMPTY)

    folder = small_disk / "checkpoints"
    says = "cannot be written .No space left on device.; step 1 is the newest one that is whole; make room"
    with pytest.raises(UserError, match=says), Checkpoints(folder, ABOUT) as checkpoints:
        checkpoints.save(1, large(1), counter())
        (small_disk / "other").write_bytes(bytes(3 << 19))
        checkpoints.save(2, large(2), counter())
        for _ in range(1000 * later):
            checkpoints.check()
            time.sleep(0.01)
    assert not caplog.records
    (small_disk / "other").unlink()
    with Checkpoints(folder, ABOUT) as checkpoints:
        restored, _ = checkpoints.restore(large(0), counter())
        np.testing.assert_array_equal(restored.params["w"], large(1).params["w"])
        checkpoints.save(2, large(2), counter())
    assert newest_step(folder) == 2
    assert json.loads((folder / "step_2" / "files.json").read_text())


@pytest.mark.parametrize("free", [16, 56])  # kB: files cannot be created, arrays cannot be written
def test_a_full_disk_is_one_line_whatever_the_threads_still_say(free, small_disk):
    """In a process of its own: threads of Orbax and TensorStore report until the interpreter ends."""
    script = f"""
import sys
from pathlib import Path
import grain.python as grain, jax, jax.numpy as jnp
from absl import logging
from amt.errors import UserError
from amt.training.checkpoint import Checkpoints
from amt.training.step import TrainState
from amt.models import sigma_reparam

logging.set_verbosity(logging.WARNING)
params = {{str(i): jax.random.normal(jax.random.key(i), (256,)) for i in range(200)}}
state = TrainState(jnp.int32(1), jnp.int32(0), params, params, (), sigma_reparam.EMPTY)
disk = Path({str(small_disk)!r})
try:
    with Checkpoints(disk / "checkpoints", {ABOUT}) as checkpoints:
        (disk / "other").write_bytes(bytes((3072 - {free}) << 10))
        checkpoints.save(1, state, iter(grain.MapDataset.range(9).to_iter_dataset()))
except UserError as error:
    sys.exit(f"error: {{error}}")
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "(No space left on device); none is saved yet" in line
