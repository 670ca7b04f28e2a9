"""The report: complete, self-contained, escaped; plots that show what the numbers say."""

import re

import numpy as np
import pytest

from amt.structs import Trajectory
from amt.viz.pages import Picture
from amt.viz.report import (
    PLOT_HEIGHT,
    PLOT_WIDTH,
    Report,
    contact_sheet,
    joint_plot,
    validity_gaps,
    write_report,
)
from tests.viz.pages import Page

NAMES = tuple(f"joint_{i}" for i in range(22))


def make_report(count=20, **changes):
    time = np.arange(count) / 30
    trajectory = Trajectory(
        time=time,
        qpos=np.sin(time[:, None] + np.arange(22)),
        valid=np.arange(count) != 3,
        T_base_world=np.eye(4),
        names=NAMES,
    )
    picture = Picture(np.zeros((30, 40, 3), np.uint8), "frame <0>")
    fields = {
        "title": "a & b",
        "summary": {"Frames": "20"},
        "warnings": ["mind <this>"],
        "overlay": [picture] * 3,
        "replay": [picture],
        "replay_note": "",
        "trajectory": trajectory,
        "limits": np.tile([-1.2, 1.2], (22, 1)),
    }
    return Report(**{**fields, **changes})


@pytest.fixture
def text(tmp_path):
    write_report(tmp_path / "report.html", make_report())
    return (tmp_path / "report.html").read_text()


def test_report_loads_nothing_from_outside(text):
    page = Page(text)
    assert len(page.links) == 4 and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert not page.open and all(page.alts)


def test_report_shows_all_joints_and_escapes_text(text):
    assert Page(text).tags.count("polyline") == 22 and all(name in text for name in NAMES)
    assert "a &amp; b" in text and "mind &lt;this&gt;" in text and "<this>" not in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_report_without_a_film_says_why(tmp_path):
    write_report(tmp_path / "report.html", make_report(replay=[], replay_note="install libosmesa6"))
    assert "install libosmesa6" in (tmp_path / "report.html").read_text()


def test_report_of_one_frame(tmp_path):
    write_report(tmp_path / "report.html", make_report(count=1))
    assert "nan" not in (tmp_path / "report.html").read_text().lower()


def curve(plot):
    return np.array([point.split(",") for point in plot["points"].split()], float)


def test_plot_spans_time_and_shows_a_near_limit():
    time, limit = np.arange(30) / 30, np.array([-3.0, 1.0])
    plot = joint_plot("a", time, np.linspace(0, 0.95, 30), limit)
    points = curve(plot)
    assert points[0, 0] == 0 and points[-1, 0] == PLOT_WIDTH
    assert (np.diff(points[:, 1]) < 0).all()  # up is less in SVG
    (line,) = plot["limit_lines"]  # the upper one; the lower is far off
    assert 0 <= line < points[:, 1].min()
    assert plot["closest"] == "0.05"


def test_plot_stays_inside_and_thins_long_curves():
    values = np.random.default_rng(0).uniform(-1, 1, 5000)
    plot = joint_plot("a", np.arange(5000) / 30, values, np.array([-1.0, 1.0]))
    points = curve(plot)
    assert len(points) <= PLOT_WIDTH and points.min() >= 0 and points[:, 1].max() <= PLOT_HEIGHT
    assert len(plot["limit_lines"]) == 2


def test_gaps_are_where_no_hand_was_seen():
    time = np.arange(11) / 10
    valid = np.ones(11, bool)
    valid[2:5] = valid[10] = False
    (first, width), (last, _) = validity_gaps(time, valid)
    assert (first, width, last) == (0.2 * PLOT_WIDTH, pytest.approx(0.3 * PLOT_WIDTH), PLOT_WIDTH)
    assert validity_gaps(time, np.ones(11, bool)) == []
    assert validity_gaps(np.zeros(1), np.zeros(1, bool)) == [(0.0, PLOT_WIDTH)]


@pytest.mark.parametrize(("count", "total"), [(12, 100), (12, 5), (3, 1)])
def test_contact_sheet_is_spread_from_first_to_last(count, total):
    frames = contact_sheet(count, total)
    assert len(frames) == min(count, total) and frames[0] == 0 and frames[-1] == total - 1
