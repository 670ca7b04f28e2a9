"""Where errors come from: groups in their order, and the numbers that were given."""

import re

import numpy as np
import pytest

from amt.evaluation.samples import with_motion
from amt.evaluation.summary import summarise
from amt.viz.breakdown_sections import breakdown_section, groups_section, in_order, motion_section, speed_section
from tests.evaluation.tables import table

SAMPLES = with_motion(table(6, 8, noise=0.02))
FIGURES = summarise(SAMPLES) | {"attention_entropy": 0.75, "samples_per_s": 8.0, "share_of_inference_speed": 0.94}


def test_bins_are_in_the_order_of_their_numbers():
    names = [">= 0.9", "0.75 to 0.9", "< 0.5", "0.5 to 0.75"]
    ordered = [group["value"] for group in in_order([{"value": name} for name in names])]
    assert ordered == ["< 0.5", "0.5 to 0.75", "0.75 to 0.9", ">= 0.9"]
    words = [{"value": name} for name in ("subject-1", "subject-0", "0 mm of 3")]
    assert in_order(words) == words


def rows_of(section, words):
    (found,) = (each for each in section.tables if each.head[0] == words)
    return found.head, {row[0]: row[1:] for row in found.rows}


@pytest.mark.parametrize(("words", "column"), [("subject", "subject"), ("camera", "camera")])
def test_groups_have_the_errors_of_their_frames(words, column):
    head, rows = rows_of(groups_section(FIGURES), words)
    values = getattr(SAMPLES, column)
    assert set(rows) == set(values.tolist())
    place = head.index("root-relative, mm") - 1
    for name, row in rows.items():
        mine = values == name
        assert row[0] == str(mine.sum())
        said, low, high = map(float, re.match(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", row[place]).groups())
        assert said == pytest.approx(SAMPLES.figures["mpjpe_mm"][mine].mean(), abs=0.0501)
        assert low <= said <= high


def test_charts_say_what_they_show():
    section = breakdown_section(FIGURES)
    visibility, distance, objects = (re.search('aria-label="([^"]*)"', chart.svg)[1] for chart in section.charts)
    counts = [int(n) for n in re.findall(r"(\d+) frames", visibility)]
    assert sum(counts) == sum(int(n) for n in re.findall(r"(\d+) frames", distance)) == len(SAMPLES)
    few = SAMPLES.visible_share < 0.75
    shown = float(re.search(r"0.5 to 0.75: ([\d.]+) mm", visibility)[1])
    assert shown == pytest.approx(SAMPLES.figures["mpjpe_mm"][few].mean(), abs=0.0501)
    assert "none" in objects and "002_master_chef_can" in objects
    hidden = SAMPLES.root_relative_joint_error_mm[~SAMPLES.joint_visible].mean()
    assert f"hidden ones {hidden:.1f} mm" in section.words[1] and "the segmentation shows" in section.words[0]
    assert "it lies in the image" in breakdown_section(FIGURES | {"visible_by_seg_share": 0.0}).words[0]


def test_jitter_stands_beside_the_labels():
    acceleration, collapse = motion_section(FIGURES).tables
    joints = SAMPLES.true_joints_m.astype(np.float64).reshape(6, 8, 21, 3)
    change = joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]
    ours, labels = (float(text.split(" ")[0]) for text in acceleration.rows[0][1:])
    assert labels == pytest.approx(np.linalg.norm(change, axis=-1).mean() * 30**2, rel=1e-3) and ours > labels
    assert [row[1] for row in collapse.rows] == [f"{FIGURES['spread_ratio']:.2f}", "0.75"]


def test_speed_is_that_of_the_run():
    (section,) = speed_section(FIGURES)
    assert section.tables[0].rows == [("evaluation, frames/s", "8.0"), ("evaluation of the network alone, %", "94.0")]
    assert speed_section({"mpjpe_mm": 1.0}) == ()
