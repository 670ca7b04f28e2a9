"""Hand pose files against the toolkit's evaluation, written out in plain NumPy, and what is wrong with bad ones."""

import re

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from amt.errors import UserError
from amt.evaluation.official import hpe
from tests.evaluation.official.conftest import score_of

THRESHOLDS = np.linspace(0.0, 50.0, 100)


def plain(truth, joints):
    """hpe_eval.py and the FreiHAND functions that it calls: sample by sample, then joint by joint."""
    kinds = {"absolute": [], "root_relative": [], "procrustes": []}
    for true, ours in zip(truth, joints, strict=True):
        a, b = true - true.mean(0), ours - ours.mean(0)
        size, other = np.linalg.norm(a) + 1e-8, np.linalg.norm(b) + 1e-8
        R, scale = orthogonal_procrustes(a / size, b / other)
        aligned = (b / other) @ R.T * scale * size + true.mean(0)
        kinds["absolute"].append(np.sqrt(((true - ours) ** 2).sum(1)))
        kinds["root_relative"].append(np.sqrt((((true - true[0]) - (ours - ours[0])) ** 2).sum(1)))
        kinds["procrustes"].append(np.sqrt(((true - aligned) ** 2).sum(1)))
    figures = {}
    for name, errors in kinds.items():
        columns = np.stack(errors, 1)
        curves = [[np.mean(column <= t) for t in THRESHOLDS] for column in columns]
        figures[f"{name}_mpjpe_mm"] = np.mean([np.mean(column) for column in columns])
        figures[f"{name}_auc"] = np.mean([np.trapezoid(curve, THRESHOLDS) / 50 for curve in curves])
    return figures


def truth_of(source):
    """In metres, as on the disk; -1 where nothing is labelled."""
    return np.stack([np.load(_labels(source, i))["joint_3d"][0] for i in range(len(source))])


def _labels(source, i):
    color = source.color_path(i)
    return color.with_name(color.name.replace("color", "labels")).with_suffix(".npz")


@pytest.mark.parametrize("case", ["near", "far off", "mirrored"])
def test_scores_are_those_of_the_toolkit(source, tmp_path, case):
    rng = np.random.default_rng(0)
    truth = truth_of(source)
    joints = truth.astype(float) + rng.normal(0, 0.3 if case == "far off" else 0.015, truth.shape)
    if case == "mirrored":  # the toolkit's alignment undoes it
        joints *= [-1, 1, 1]
    path = tmp_path / "hpe.txt"
    path.write_text(hpe.lines(np.arange(len(source)), joints))
    figures = score_of(path, source)["hpe"]
    valid = (truth != -1).any((1, 2))
    written = np.array([line.split(",")[1:] for line in path.read_text().splitlines()], float).reshape(-1, 21, 3)
    expected = plain((truth * np.float32(1000)).astype(float)[valid], written[valid])
    assert figures.pop("samples") == 17
    for name, value in expected.items():
        assert figures.pop(name) == pytest.approx(value, abs=1e-6 if name.endswith("mm") else 1e-5), name
    assert not figures
    np.testing.assert_allclose(written, joints * 1000, atol=1e-6)


def test_a_shift_of_five_millimetres_by_hand():
    """PCK jumps between 9 and 10 of 99 steps: half of that step and 89 more lie below the curve."""
    truth = np.random.default_rng(1).normal(0, 60, (3, 21, 3)) + [0, 0, 700]
    figures = hpe.scores(truth + [3, 4, 0], truth)
    assert figures["absolute_mpjpe_mm"] == pytest.approx(5, abs=1e-9)
    assert figures["absolute_auc"] == pytest.approx(89.5 / 99, abs=1e-6)
    for name in ("root_relative", "procrustes"):
        assert figures[f"{name}_mpjpe_mm"] == pytest.approx(0, abs=1e-5)


def change(lines, k, **columns):
    """Other values in some columns of a line."""
    values = lines[k].rstrip("\n").split(",")
    for name, value in columns.items():
        values[int(name[1:])] = value
    return [*lines[:k], ",".join(values) + "\n", *lines[k + 1 :]]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda x: x[:4] + x[6:],
            r"2 of 17 labelled samples are missing, the first is index 4; expected all of DexYCB",
        ),
        (lambda x: [*x, x[3]], r"line 19: index 3 is already in line 4"),
        (lambda x: change(x, 2, c5="nan"), r"line 3: index 2 has values that are not finite"),
        (lambda x: change(x, 2, c63="inf"), r"line 3: index 2 has values that are not finite"),
        (lambda x: change(x, 2, c5="four"), r"line 3: 'four' is not a number"),
        (lambda x: change(x, 2, c0="2.0"), r"line 3: index is '2\.0'; expected a whole number"),
        (lambda x: change(x, 2, c0="18"), r"line 3: index 18; this part has samples 0 to 17"),
        (lambda x: [x[0].rsplit(",", 1)[0] + "\n", *x[1:]], r"line 1: 63 values; expected 64"),
        (lambda x: [*x, "\n"], r"line 19: 1 values; expected 64"),
        (lambda x: [], r"empty; expected a line of every labelled sample"),
    ],
)
def test_bad_files_are_answered_by_one_clear_error(source, tmp_path, damage, says):
    lines = hpe.lines(np.arange(len(source)), truth_of(source)).splitlines(keepends=True)
    path = tmp_path / "hpe.txt"
    path.write_text("".join(damage(lines)))
    with pytest.raises(UserError, match=re.escape(str(path)) + ": " + says):
        score_of(path, source)


def test_metres_are_named(source, tmp_path):
    path = tmp_path / "hpe.txt"
    path.write_text(hpe.lines(np.arange(len(source)), truth_of(source) / 1000))
    with pytest.raises(UserError, match=r"wrong unit: the median distance .* is 0\.\d+, as if in metres"):
        score_of(path, source)


def test_what_is_not_labelled_may_be_left_out(source, tmp_path):
    """As the toolkit has it; the sample without a hand is number 9."""
    path = tmp_path / "hpe.txt"
    kept = np.delete(np.arange(len(source)), 9)
    path.write_text(hpe.lines(kept, truth_of(source)[kept]))
    assert score_of(path, source)["hpe"]["absolute_mpjpe_mm"] < 1e-4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.txt", r"missing\.txt: not there; expected a results file"),
        ("", r": expected a results file of the DexYCB toolkit: \.txt"),
        ("binary.txt", r"binary\.txt: cannot be read \(UnicodeDecodeError"),
    ],
)
def test_files_that_cannot_be_read(source, tmp_path, name, says):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=says):
        score_of(tmp_path / name, source)
