"""Two tables of the same frames, against their differences frame by frame."""

import dataclasses
import json

import numpy as np
import pytest

from amt.errors import UserError
from amt.evaluation.bootstrap import Bootstrap
from amt.evaluation.comparison import compare, flat, load_other
from amt.evaluation.comparison import table as text
from amt.evaluation.samples import FILE
from tests.evaluation.tables import table


@pytest.fixture(scope="module")
def pair():
    """The second is 2 mm better in every frame but one, which is 50 mm worse."""
    theirs = table(videos=8, frames=5, cameras=2)
    better = theirs.figures["mpjpe_mm"] - 2.0
    better[7] += 52.0
    return dataclasses.replace(theirs, figures=theirs.figures | {"mpjpe_mm": better}), theirs


def row(comparison, name):
    return next(row for row in comparison["figures"] if row["name"] == name)


def test_a_difference_is_paired(pair):
    """Its interval is that of the differences, far narrower than those of the figures themselves."""
    ours, theirs = pair
    found = row(compare(ours, theirs), "mpjpe_mm")
    change = ours.figures["mpjpe_mm"] - theirs.figures["mpjpe_mm"]
    assert found["difference"] == pytest.approx(change.mean()) == pytest.approx(found["here"] - found["there"])
    draws = Bootstrap.of(ours).draws
    sums = np.array([change[Bootstrap.of(ours).recording == k].sum() for k in range(4)])
    expected = np.quantile(draws @ sums / (draws @ np.full(4, 10)), [0.025, 0.975])
    np.testing.assert_allclose(found["interval"], expected)
    assert (found["better_share"], found["worse_share"]) == (39 / 40, 1 / 40)
    same = row(compare(ours, theirs), "pa_mpjpe_mm")
    assert same["interval"] == [0, 0] and same["better_share"] == same["worse_share"] == 0
    assert row(compare(ours, theirs), "contact_f1_5mm")["difference"] == 0


def test_the_frames_that_changed_most_are_named(pair):
    ours, theirs = pair
    frames = compare(ours, theirs)["frames"]
    assert len(frames) == 11 and frames[0]["index"] == 7
    assert frames[0]["sequence"] == ours.sequence[7] and frames[0]["frame"] == 2 and frames[0]["camera"] == "camera1"
    assert frames[0]["mpjpe_mm_here"] - frames[0]["mpjpe_mm_there"] == pytest.approx(50)
    assert all(frame["mpjpe_mm_here"] < frame["mpjpe_mm_there"] for frame in frames[1:])


def test_frames_in_one_of_them_only_are_told_and_left_out(pair):
    ours, theirs = pair
    comparison = compare(ours.take(ours.clip < 6), theirs.take(theirs.clip > 1))
    assert comparison["samples"] == 20
    assert (comparison["samples_only_here"], comparison["samples_only_there"]) == (10, 10)
    assert row(comparison, "mpjpe_mm")["difference"] == pytest.approx(-2)
    assert "20 frames in both, 10 only here, 10 only there" in text(comparison)
    with pytest.raises(UserError, match="none of the 5 frames there is among the 5 here"):
        compare(ours.take(ours.clip == 0), theirs.take(theirs.clip == 1))


def test_figures_and_lines_hold_the_same_numbers(pair):
    comparison = compare(*pair)
    figures = flat(comparison)
    json.dumps(figures)
    found = row(comparison, "mpjpe_mm")
    assert figures["against_mpjpe_mm_difference"] == found["difference"] and figures["against_samples"] == 40
    line = next(line for line in text(comparison).splitlines() if line.startswith("mpjpe_mm"))
    assert f"{found['difference']:.4g}" in line and "98%" in line


def test_other_labels_are_refused(pair):
    ours, theirs = pair
    moved = theirs.true_joints_m.copy()
    moved[3, 4, 0] += 0.001
    with pytest.raises(UserError, match="other labels: 1 of 40 frames differ, the first is sample 3: subject-0"):
        compare(ours, dataclasses.replace(theirs, true_joints_m=moved))
    with pytest.raises(UserError, match="other labels: 40 of 40"):
        compare(ours, dataclasses.replace(theirs, frame=theirs.frame + np.int32(1)))


def test_another_data_set_is_refused_before_the_work(pair, tmp_path):
    ours, theirs = pair
    with pytest.raises(UserError, match="config.eval.against=.*nowhere: no such folder"):
        load_other(str(tmp_path / "nowhere"), ours.about)
    with pytest.raises(UserError, match=f"{FILE}: no such file"):
        load_other(str(tmp_path), ours.about)
    theirs.save(tmp_path / FILE)
    assert len(load_other(str(tmp_path), ours.about)) == 40
    for change in ({"split": "s1"}, {"part": "val"}, {"source_samples": 7}):
        name, value = next(iter(change.items()))
        with pytest.raises(UserError, match=f"another data set: {name} is .* there .* and {value} here"):
            load_other(str(tmp_path), ours.about | change)
