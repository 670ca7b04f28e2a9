"""The page of an evaluation: its numbers are those of the figures, it stands alone, it claims no more than it may."""

import dataclasses
import json
import re

import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.evaluation.samples import FILE as TABLE
from amt.evaluation.summary import summarise
from amt.viz import evaluation_report as report
from amt.viz.robot_section import COLUMNS, HOW_TO
from amt.viz.robot_section import FILE as TRIALS
from tests.data import layout
from tests.evaluation.tables import table
from tests.viz.pages import Page
from tests.viz.test_hand_sections import MEAN

HAND = hand_model.load()
EVIL = '<script src="https://evil.example/x.js"></script>"&'
FIGURES = summarise(table(3, 7)) | {
    "absolute_mpjpe_mm": 71.26,
    "mpjpe_mm": 31.44,
    "intervals": {"mpjpe_mm": [29.96, 33.04]},
    "pa_mpjpe_mm": 11.0,
    "mean_mpjpe_mm": 60.0,
    "mean_skeleton_pa_mpjpe_mm": 24.5,
    "object_position_mm": float("nan"),
    "add_s_mm": 40.0,
    "mean_add_s_mm": 80.0,
    "add_s_recall": 0.125,
    "contact_precision_5mm": 0.5,
    "contact_recall_5mm": 0.25,
    "contact_f1_5mm": 0.3333,
    "mean_contact_f1_5mm": 0.01,
    "frames_unreadable": 0,
    "weights": "w",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("report") / "a<b>&c"
    root.mkdir()
    layout.write(root, layout.SUBJECTS[2:], num_frames=7, size=(640, 480))
    return DexYCB(root, "s0", "test")


@pytest.fixture(scope="module")
def samples(source):
    about = {
        "weights": EVIL,
        "weights_sha256": "0123",
        "root": str(source.root.resolve()),
        "split": "s0",
        "part": "test",
    }
    rows = table(3, 7)
    return dataclasses.replace(rows, about=rows.about | about, sequence=np.char.add(EVIL, rows.sequence))


@pytest.fixture(scope="module")
def text(samples, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    report.write_evaluation_report(folder, samples, source, MEAN, FIGURES, None, f"weights: {EVIL}", HAND)
    return (folder / report.FILE).read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_numbers_are_those_of_the_figures(page):
    rows = {row[0]: row[1:] for row in page.tables["Beside published results"]}
    assert rows["these weights"][:3] == ["71.3", "31.4 [30.0, 33.0]", "11.0"]
    assert rows["predicting the training mean"][:3] == ["–", "60.0", "24.5"]
    assert rows["HandOccNet (Park et al., CVPR 2022)"][:3] == ["–", "14.04", "5.80"]
    assert page.tables["The grasped object"][1:] == [
        ["ADD-S, mm", "40.0", "80.0"],
        ["ADD-S below 0.1 diameters, %", "12.5", "–"],
    ]
    assert page.tables["Where hand and object touch"][1:2] == [
        ["within 5 mm, in the camera's frame", "50.0", "25.0", "33.3", "1.0"]
    ]
    every = dict(page.tables["By the names in evaluate.json"][1:])
    assert every["mpjpe_mm"] == "31.4400" and every["object_position_mm"] == "–" and "weights" not in every


def test_the_page_stands_alone(page, text):
    inside = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in inside} <= set(page.ids) and len(page.ids) == len(set(page.ids))
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links if link not in inside)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import|xmlns", text) and len(text) < 5_000_000
    assert not page.open


def test_every_picture_and_chart_has_its_words(page):
    assert len(page.alts) == page.tags.count("img") + page.tags.count("svg") > 5
    assert all(page.alts)


def test_names_are_escaped(page, text):
    assert "<script" not in text and EVIL in page.text and "a<b>&c" in page.text


def test_what_is_not_dexycb_is_not_compared(page):
    warning = "Not comparable with published results: the data set has 5 of DexYCB's 1000 sequences."
    assert warning in page.text and "Of 3 recordings only" in page.text
    ours = page.tables["Beside published results"][1][-1]
    assert ours.startswith("not comparable: the data set has 5")


def test_only_all_of_s0_test_compares(source, samples, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "DEXYCB_SEQUENCES", 5)
    assert report.protocol_differences(source, samples) == []
    assert report.protocol_differences(source, samples.take(slice(0, 8))) == ["2 of 3 videos were evaluated"]
    other = DexYCB(source.root, "s0", "train")
    assert "this is s0 train, not s0 test" in report.protocol_differences(other, samples)
    (source.root / "generator.json").touch()
    assert report.protocol_differences(source, samples) == ["these images are generated"]
    (source.root / "generator.json").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pa_mpjpe_mm": 24.6}, "the hand's shape was not learned"),
        ({"mpjpe_mm": 60.0}, "the pose was not learned"),
        ({"spread_ratio": 0.05}, "collapsed"),
        ({"frames_unreadable": 3}, "3 frames could not be read"),
    ],
)
def test_what_is_wrong_is_said_first(change, words):
    assert not report.warnings(FIGURES, [], 20)
    (note,) = report.warnings(FIGURES | change, [], 20)
    assert words in note
    (note,) = report.warnings(FIGURES, [], 19)
    assert "Of 19 recordings only" in note


def test_the_robots_page_holds_all_that_the_folder_has(samples, source, tmp_path, monkeypatch):
    trial = {"lifted": 1.0, **dict.fromkeys(COLUMNS, 1.0)}
    rows = [{"sequence": "s", "ycb_id": 2, "trials": {"true": trial}}]
    (tmp_path / TRIALS).write_text(json.dumps({"weights": EVIL, "weights_sha256": "0123", "trials": rows}))
    report.write_robot_report(tmp_path, source, MEAN, "", HAND)
    alone = Page((tmp_path / report.FILE).read_text())
    assert "Lifted, by object" in alone.tables and "Beside published results" not in alone.tables
    samples.save(tmp_path / TABLE)
    monkeypatch.setattr(report, "summarise", lambda samples: FIGURES)
    report.write_robot_report(tmp_path, source, MEAN, "", HAND)
    both = Page((tmp_path / report.FILE).read_text())
    assert {"Lifted, by object", "Beside published results"} <= set(both.tables)
    other = dataclasses.replace(samples, about=samples.about | {"weights_sha256": "4567"})
    other.save(tmp_path / TABLE)
    report.write_robot_report(tmp_path, source, MEAN, "", HAND)
    assert "Beside published results" not in Page((tmp_path / report.FILE).read_text()).tables
    report.write_evaluation_report(tmp_path, other, source, MEAN, FIGURES, None, "", HAND)
    page = Page((tmp_path / report.FILE).read_text())
    assert "Lifted, by object" not in page.tables and "is of other weights" in page.text


def test_without_trials_the_robots_part_says_how_to_get_them(page):
    assert HOW_TO in page.text
