"""The robot's part of a report against counting by hand and scipy's intervals."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from amt.errors import UserError
from amt.viz.robot_section import FILE, HOW_TO, ORIGINS, Trials, read_trials, robot_section
from amt.viz.sections import EvaluationPage
from tests.viz.pages import Page

LIFTS = {"true": 3, "predicted": 0, "policy": 20}
TOTAL = 20


def trial(lifted):
    figures = {"object_position_mm": 12.0, "wrist_mm": 3.0, "tips_mm": None, "peak_force_n": 7.0, "effort_rad2": 0.01}
    return {"lifted": float(lifted), **figures, "slip_mm": 4.0 if lifted else None}


def make_rows():
    return [
        {"sequence": f"s{i}", "ycb_id": 2 + i % 2, "trials": {o: trial(i < n) for o, n in LIFTS.items()}}
        for i in range(TOTAL)
    ]


def page_of(section, tmp_path):
    EvaluationPage("t", "l", [], [section]).write(tmp_path / "page.html")
    return Page((tmp_path / "page.html").read_text())


def test_shares_and_intervals_are_those_of_the_trials(tmp_path):
    page = page_of(robot_section(Trials("w", "ab", make_rows()), "ab"), tmp_path)
    (commands,) = (rows for caption, rows in page.tables.items() if "Commands of 20 videos" in caption)
    for (origin, lifts), row in zip(LIFTS.items(), commands[1:], strict=True):
        theirs = binomtest(lifts, TOTAL).proportion_ci(method="wilson")
        ends = np.round([100 * theirs.low, 100 * theirs.high], 1) + 0.0
        assert row[:2] == [ORIGINS[origin], f"{100 * lifts / TOTAL:.1f} [{ends[0]}, {ends[1]}]"]
        slip = "–" if not lifts else "4.0"
        assert row[2:] == ["12", "3", "–", "7", slip, "0.0100"]
    assert page.tables["Lifted, by object"][1:] == [
        ["003_cracker_box", "10", "20%", "0%", "100%"],
        ["004_sugar_box", "10", "10%", "0%", "100%"],
    ]
    (alt,) = page.alts
    assert "retargeting of the labels 15.0%" in alt and "the policy 100.0%" in alt


def test_without_trials_the_page_says_how_to_get_them(tmp_path):
    page = page_of(robot_section(read_trials(tmp_path), "ab"), tmp_path)
    assert HOW_TO in page.text and not page.tables and not page.alts


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"trials": []}',
        *(
            f'{{"weights": "w", "weights_sha256": "ab", "trials": [{row}]}}'
            for row in ('{"ycb_id": 2}', '{"trials": {"a": {}}}')
        ),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FILE}: no trials can be read"):
        read_trials(tmp_path)


def test_trials_are_read_as_they_were_written(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"weights": "w", "weights_sha256": "ab", "trials": make_rows()}))
    assert read_trials(tmp_path) == Trials("w", "ab", make_rows())


def test_trials_of_other_weights_are_not_shown(tmp_path):
    page = page_of(robot_section(Trials("<old>", "cd", make_rows()), "ab"), tmp_path)
    assert "of other weights (<old>, cd)" in page.text and not page.tables and not page.alts
