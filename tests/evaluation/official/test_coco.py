"""Detection files: precisions that can be worked out by hand, run lengths, and what is wrong with bad files."""

import json
import re
import sys

import numpy as np
import pytest

from amt.data.packed import Packed, make_plan, pack
from amt.errors import UserError
from amt.evaluation.official import coco
from tests.evaluation.official.conftest import score_of

SIZE = (640, 480)
UNLABELLED = 9  # the sample whose hand is seen, but not labelled


@pytest.fixture(scope="module")
def tools():
    return pytest.importorskip("pycocotools.mask")


def perfect(source):
    """What the labels say, as results; keypoints of the hand without labels anywhere in its box, which is all that
    counts."""
    items = []
    for annotation in coco.annotations(source, lambda n: None)["annotations"]:
        names = ("image_id", "category_id", "bbox", "keypoints")
        code = annotation["segmentation"]
        mask = {"size": code["size"], "counts": code["counts"].decode()}
        if annotation["image_id"] == UNLABELLED and annotation["category_id"] == 22:
            x, y, width, height = annotation["bbox"]
            annotation["keypoints"] = [x + width / 2, y + height / 2, 2] * 21
        items.append({name: annotation[name] for name in names} | {"score": 0.9, "segmentation": mask})
    return items


def score(tmp_path, source, items):
    (tmp_path / "coco.json").write_text(json.dumps(items))
    return score_of(tmp_path / "coco.json", source)["coco"]


def test_annotations_are_those_of_the_labels(source, tools):
    found = coco.annotations(source, lambda n: None)
    assert len(found["images"]) == 18 and len(found["annotations"]) == 36
    by_id = {(a["image_id"], a["category_id"]): a for a in found["annotations"]}
    marker, hand = by_id[4, 18], by_id[4, 22]
    assert (marker["bbox"], marker["area"], marker["num_keypoints"]) == ([100, 200, 80, 60], 4800, 0)
    np.testing.assert_allclose(np.reshape(hand["keypoints"], (21, 3))[:, :2], source.labels(4)["joints_2d"])
    assert set(hand["keypoints"][2::3]) == {2} and not any(by_id[9, 22]["keypoints"])
    rows, columns = np.nonzero(source.labels(4, with_seg=True)["seg"] == 255)
    corner = [columns.min(), rows.min()]
    assert hand["bbox"] == [*corner, columns.max() + 1 - corner[0], rows.max() + 1 - corner[1]]
    assert hand["area"] == len(rows)


def test_what_the_labels_say_scores_everything(source, tmp_path, tools):
    figures = score(tmp_path, source, perfect(source))
    assert set(figures) == {"bbox", "segm", "keypoints"}
    for task in figures.values():
        assert task["ap"] == task["ap50"] == task["ap75"] == task["ap_hand"] == pytest.approx(100)


def test_recall_of_two_thirds_by_hand(source, tmp_path, tools):
    """Everything found is right and 12 of 18 are found: 67 of the 101 recalls 0, 0.01 ... 1 are reached."""
    items = [item for item in perfect(source) if item["image_id"] % 3]
    figures = score(tmp_path, source, items)
    for task in ("bbox", "segm", "keypoints"):
        assert figures[task]["ap"] == pytest.approx(100 * 67 / 101, abs=1e-4)


def test_overlaps_and_similarities_by_hand(source, tmp_path, tools):
    """Boxes of 0.62 of a rectangle's width pass 3 of 10 thresholds, keypoints of a similarity of 0.72 pass 5.

    17 of 18 hands are found: 95 of the 101 recalls are reached.
    """
    items = perfect(source)
    areas = {
        a["image_id"]: a["area"]
        for a in coco.annotations(source, lambda n: None)["annotations"]
        if a["category_id"] == 22
    }
    for item in items:
        item["bbox"][2] *= 0.62
        if item["category_id"] == 22:
            shift = np.sqrt(-2 * np.log(0.72) * areas[item["image_id"]] * (2 * 0.05) ** 2)
            item["keypoints"][0::3] = [x + shift for x in item["keypoints"][0::3]]
    items = [item for item in items if (item["image_id"], item["category_id"]) != (UNLABELLED, 22)]
    figures = score(tmp_path, source, items)
    share = 95 / 101
    assert figures["bbox"]["ap"] == pytest.approx((30 + 30 * share) / 2, abs=1e-4)
    assert figures["bbox"]["ap_hand"] == pytest.approx(30 * share, abs=1e-4)
    assert figures["keypoints"]["ap50"] == pytest.approx(100 * share, abs=1e-4)
    assert figures["keypoints"]["ap"] == pytest.approx(50 * share, abs=1e-4)
    assert figures["segm"]["ap"] == pytest.approx((100 + 100 * share) / 2, abs=1e-4)


def test_masks_are_left_out_where_a_file_has_none(source, tmp_path, tools):
    items = [{k: v for k, v in item.items() if k != "segmentation"} for item in perfect(source)]
    assert set(score(tmp_path, source, items)) == {"bbox", "keypoints"}


def test_run_lengths_are_those_of_pycocotools(tools):
    rng = np.random.default_rng(0)
    blobs = np.zeros((480, 640), bool)
    blobs[17:300, 33:500], blobs[0, 0], blobs[470:, 630:] = True, True, True
    for mask in (blobs, ~blobs, rng.random((37, 53)) < 0.5, np.zeros((5, 7), bool), np.ones((300, 200), bool)):
        code = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert coco.encode(mask) == code["counts"].decode()


def test_a_detection_is_the_hull_in_the_image():
    outline = np.array([[-50.0, 10.2], [20.0, 10.2], [20.0, 30.4], [-50.0, 30.4], [3.0, 15.0]])
    keypoints = np.arange(42.0).reshape(21, 2)
    found = coco.detection(7, 22, 0.25, outline, SIZE, keypoints)
    assert found["bbox"] == [0, 10, 21, 21]
    assert (found["image_id"], found["category_id"], found["score"]) == (7, 22, 0.25)
    assert found["keypoints"][:6] == [0, 1, 2, 2, 3, 2] and len(found["keypoints"]) == 63
    assert coco.detection(7, 22, 0.25, outline - [100, 0], SIZE, keypoints) is None
    assert coco.detection(7, 3, 0.25, outline, SIZE)["keypoints"] == [0] * 63


ITEM = {"image_id": 1, "category_id": 22, "score": 0.5, "bbox": [1, 2, 30, 40], "keypoints": [1.0] * 63}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_id": 18}, r"item 1: image_id 18; this part has samples 0 to 17"),
        ({"image_id": "1"}, r"item 1: image_id 1; this part"),
        ({"category_id": 23}, r"item 1: category_id 23; expected 1 to 22"),
        ({"bbox": [1, 2, 3]}, r"item 1: bbox is \[1, 2, 3\]; expected 4 numbers"),
        ({"keypoints": [1.0] * 62}, r"item 1: keypoints is .* expected 63 numbers"),
        ({"score": float("nan")}, r"item 1: nan is not a finite number"),
        ({"bbox": [1, 2, "3", 4]}, r"item 1: '3' is not a finite number"),
        ({"score": None}, r"item 1: None is not a finite number"),
    ],
)
def test_bad_items_are_answered_by_one_clear_error(tmp_path, change, says):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps([ITEM, ITEM | change]))
    with pytest.raises(UserError, match=re.escape(str(path)) + ": " + says):
        coco.read(path, 18)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", r"not JSON \("),
        ("{}", r"expected a list of COCO results"),
        ("[]", r"expected a list of COCO results with at least one item"),
        ('["hand"]', r"item 0: no image_id, category_id, score, bbox, keypoints; expected"),
        (json.dumps([ITEM | {"bbox": [0.1, 0.2, 0.3, 0.4]}]), r"wrong unit: .* as if in shares of the image"),
    ],
)
def test_what_is_no_list_of_results_is_refused(tmp_path, text, says):
    path = tmp_path / "coco.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path)) + ": " + says):
        coco.read(path, 18)


def test_scores_without_pycocotools_name_the_extra(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[coco\]'"):
        score_of(tmp_path / "coco.json", source)


def test_packed_data_has_no_segmentations(source, tmp_path):
    whole = type(source)(source.root, part="all")
    list(pack(whole, make_plan(whole, 100), tmp_path))
    packed = Packed(tmp_path, "s0", "test")
    with pytest.raises(UserError, match="packed, without segmentations"):
        packed.labels(0, with_seg=True)
    with pytest.raises(UserError, match="packed, without depth images"):
        packed.depth(0)
    ours, theirs = packed.labels(3), source.labels(3)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
