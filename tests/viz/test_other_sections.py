"""Objects, official scores, all figures: the numbers that were given, and nothing where there are none."""

from amt.viz.measures import OBJECTS, measures_table
from amt.viz.other_sections import every_figure, objects_section, official_section
from tests.evaluation.tables import table

OFFICIAL = {
    "official_hpe": {
        "samples": 19,
        **{f"{kind}_mpjpe_mm": 10.126 + i for i, kind in enumerate(("absolute", "root_relative", "procrustes"))},
        **{f"{kind}_auc": 0.5 + i / 10 for i, kind in enumerate(("absolute", "root_relative", "procrustes"))},
    },
    "official_bop": {
        "targets": 9,
        "targets_missing": 2,
        "all": {"mssd": 12.34, "mspd": 56.0},
        "grasp_only": {"mssd": 1.0, "mspd": float("nan")},
        "by_object": {"024_bowl": {"mssd": 3.0, "mspd": 4.0}},
    },
    "official_coco": {"bbox": {"ap": 1.0, "ap_small": 2.0}, "keypoints": {"ap": 3.0}},
}


def test_what_was_not_measured_is_left_out():
    assert measures_table("t", OBJECTS, {"add_s_mm": float("nan"), "mssd_mm": None}, "b") == ()
    section = objects_section(table(1, 2), {})
    assert not section.tables and "No object is grasped" in section.words[0]


def test_official_scores_are_those_of_the_files():
    (section,) = official_section(OFFICIAL)
    hpe, bop, coco = section.tables
    assert hpe.rows == [
        ("absolute", "10.13", "0.5000"),
        ("root-relative", "11.13", "0.6000"),
        ("aligned", "12.13", "0.7000"),
    ]
    assert "9 targets, 2 of them without" in bop.caption
    assert bop.rows == [("all targets", "12.3", "56.0"), ("grasped objects", "1.0", "–"), ("024_bowl", "3.0", "4.0")]
    assert coco.head[1:] == ("ap", "ap_small") and coco.rows == [("bbox", "1.0", "2.0"), ("keypoints", "3.0", "–")]
    assert official_section({"mpjpe_mm": 3.0}) == ()


def test_every_figure_is_listed_by_its_full_name():
    section = every_figure({"a": 1.5, "weights": "w", "b": {"c": {"d": 2}}, "e": float("nan"), "flag": True})
    assert section.tables[0].rows == [("a", "1.5000"), ("b.c.d", "2.0000"), ("e", "–")]
    assert section.folded == "3 figures"
