"""The table of evaluated frames: written and read again, taken apart and joined, refused where it does not fit."""

import dataclasses
import json

import numpy as np
import pytest

from amt.errors import UserError
from amt.evaluation.samples import ARRAYS, FILE, Samples, join
from tests.evaluation.tables import table


def assert_same(ours, theirs):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    for name in ("figures", "counts"):
        np.testing.assert_equal(getattr(ours, name), getattr(theirs, name))


def test_a_table_comes_back_as_it_was(tmp_path):
    samples = table(videos=3, frames=4)
    samples.save(tmp_path / FILE)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    back = Samples.load(tmp_path / FILE)
    assert_same(back, samples)
    assert back.about == samples.about | {"version": 1} and len(back) == 12
    with np.load(tmp_path / FILE, allow_pickle=False) as file:
        assert {"figures/mpjpe_mm", "counts/contact_frames", "joints_m"} < set(file)
        assert json.loads(str(file["about"]))["split"] == "s0"


def test_parts_in_any_order_make_the_whole():
    samples = table(videos=3, frames=4)
    parts = [samples.take(samples.clip == k) for k in (2, 0, 1)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert_same(join(parts), samples)


def test_distance_and_visibility():
    samples = table(videos=1, frames=3)
    np.testing.assert_allclose(samples.distance_m, np.sqrt((samples.true_joints_m[:, 0].astype(float) ** 2).sum(-1)))
    np.testing.assert_allclose(samples.visible_share, samples.joint_visible.sum(-1) / 21)


def broken(path, **columns):
    with np.load(path) as file:
        np.savez(path, **{name: x for name, x in (dict(file) | columns).items() if x is not None})


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"about": json.dumps({"version": 99})}, "version 99, expected 1; evaluate those weights again"),
        ({"joints_m": np.zeros((8, 20, 3), np.float32)}, r"do not fit \(joints_m float32 of shape \(8, 20, 3\)\)"),
        ({"clip": np.zeros(8)}, r"clip float64 of shape \(8,\)"),
        ({"clip": None}, "clip missing"),
        ({"clip": np.zeros(7, np.int32)}, "'clip': 7"),
        ({"figures/mpjpe_mm": np.zeros(8, np.float32)}, "figures/mpjpe_mm float32"),
        ({"about": None}, "cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, columns, says):
    path = tmp_path / FILE
    table(videos=2, frames=4).save(path)
    broken(path, **columns)
    with pytest.raises(UserError, match=says):
        Samples.load(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"no such file; expected the {FILE} of --mode=evaluate"):
        Samples.load(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"text")
    with pytest.raises(UserError, match="cannot be read"):
        Samples.load(tmp_path / FILE)
    with pytest.raises(UserError, match="cannot be written"):
        dataclasses.replace(table(videos=1, frames=1)).save(tmp_path / "nowhere" / FILE)
