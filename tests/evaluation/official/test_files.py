"""Files of made-up predictions: whole, read back by the scores, and not there where something is missing."""

import json

import cv2
import numpy as np
import pytest

from amt import hand as hand_model
from amt.errors import UserError
from amt.evaluation.official import ResultFiles, file_names
from amt.inference.results import all_or_nothing
from amt.structs import HandPose, ObjectPoses, Prediction
from tests.evaluation.official.conftest import score_of

FORMATS = ("hpe", "bop", "coco")
NAMES = {"hpe": "hpe_s0_test.txt", "bop": "bop_s0_test.csv", "coco": "coco_s0_test.json"}


@pytest.fixture(scope="module")
def truth(source):
    """What the labels say, as a prediction of all samples: the second query has the grasped object."""
    labels = [source.labels(i) for i in range(len(source))]
    labels = {name: np.stack([label[name] for label in labels]) for name in labels[0]}
    n = len(source)
    joints = labels["joints_3d"] + np.float32([0, 0, 0.6]) * ~labels["joints_valid"][:, None, None]
    mesh = np.asarray(hand_model.load().v_template, np.float32)
    vertices = mesh - mesh.mean(0) + joints.mean(1)[:, None]
    zeros = {"global_orient": (3, 3), "hand_pose": (15, 3, 3), "betas": (10,), "transl": (3,)}
    hand = HandPose(
        **{name: np.zeros((n, *shape), np.float32) for name, shape in zeros.items()},
        joints=joints,
        vertices=vertices,
        is_left=np.zeros(n, bool),
        valid=np.arange(n) % 2 == 0,
    )
    objects = ObjectPoses(
        labels["object_pose"][:, [0, 1, 1]],
        np.tile([4, 18, 18], (n, 1)),
        np.tile(np.float32([0.9, 0.4, 0.3]), (n, 1)),
        np.zeros((n, 3), bool),
    )
    return labels, Prediction(hand, np.full((n, 21), 0.7, np.float32), None, objects, None, None)


def rows_of(prediction, rows):
    hand, objects = prediction.hand, prediction.objects
    hand = hand.replace(**{k: getattr(hand, k)[rows] for k in hand.__dataclass_fields__})
    objects = objects.replace(**{k: getattr(objects, k)[rows] for k in objects.__dataclass_fields__})
    return prediction.replace(hand=hand, objects=objects, joint_confidence=prediction.joint_confidence[rows])


def write(folder, source, truth, samples, formats=FORMATS):
    labels, prediction = truth
    with all_or_nothing(folder, NAMES.values()) as part, ResultFiles(part, source, formats) as results:
        for rows in np.array_split(samples, 4):
            results.add(rows, rows_of(prediction, rows), labels["K"][rows], labels["object_ids"][rows])


@pytest.fixture(scope="module")
def folder(source, truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write(folder, source, truth, np.random.default_rng(0).permutation(len(source)))
    return folder


def test_files_are_named_as_the_part_and_nothing_else_is_left(source, folder):
    assert file_names(source, FORMATS) == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES.values())


def test_hand_and_object_poses_come_back(source, truth, folder):
    assert len((folder / NAMES["hpe"]).read_text().splitlines()) == len(source)
    figures = score_of(folder / NAMES["hpe"], source)["hpe"]
    assert figures["absolute_mpjpe_mm"] < 1e-3 and figures["absolute_auc"] > 0.99
    lines = (folder / NAMES["bop"]).read_text().splitlines()
    assert lines[0] == "scene_id,im_id,obj_id,score,R,t,time" and len(lines) == 1 + 3 * 2 * 2
    assert {line.split(",")[3] for line in lines[1:]} == {"0.899999976", "0.400000006"}
    figures = score_of(folder / NAMES["bop"], source)["bop"]
    assert figures["all"] == figures["grasp_only"] == {"mssd": 100, "mspd": 100}


def test_visible_surfaces_are_scored_where_depth_is(source, folder):
    with pytest.raises(UserError, match=r"aligned_depth_to_color_000000\.png: not there"):
        score_of(folder / NAMES["bop"], source, with_vsd=True)
    for path in source.root.rglob("color_*.jpg"):
        name = path.name.replace("color", "aligned_depth_to_color").replace("jpg", "png")
        cv2.imwrite(str(path.with_name(name)), np.zeros((480, 640), np.uint16))
    figures = score_of(folder / NAMES["bop"], source, with_vsd=True)["bop"]["all"]
    assert figures == {"mssd": 100, "mspd": 100, "vsd": 100, "mean": 100}


def test_detections_lie_where_hand_and_objects_are(source, truth, folder):
    items = json.loads((folder / NAMES["coco"]).read_text())
    assert {(item["image_id"], item["category_id"]) for item in items} >= {(i, 22) for i in range(18)}
    labels, prediction = truth
    hand = next(item for item in items if (item["image_id"], item["category_id"]) == (4, 22))
    assert hand["score"] == 0.7
    np.testing.assert_allclose(np.reshape(hand["keypoints"], (21, 3))[:, :2], labels["joints_2d"][4], atol=0.01)
    uv = prediction.hand.vertices[4].astype(float) @ labels["K"][4].T
    uv = uv[:, :2] / uv[:, 2:]
    expected = [*uv.min(0), *(uv.max(0) - uv.min(0))]
    np.testing.assert_allclose(hand["bbox"], expected, atol=2)
    found = next(item for item in items if (item["image_id"], item["category_id"]) == (4, 18))
    x, y, width, height = found["bbox"]
    center = labels["K"][4] @ labels["object_pose"][4, 1, :, 3]
    assert x < center[0] / center[2] < x + width and y < center[1] / center[2] < y + height


def test_a_frame_without_a_prediction_leaves_no_file(source, truth, tmp_path):
    (tmp_path / NAMES["hpe"]).write_text("an earlier one")
    with pytest.raises(UserError, match=r"1 frames without a prediction, the first is 17; .* whole or not written"):
        write(tmp_path, source, truth, np.arange(17))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES["hpe"]]
    assert (tmp_path / NAMES["hpe"]).read_text() == "an earlier one"


def test_formats_are_a_choice(source, truth, tmp_path):
    write(tmp_path, source, truth, np.arange(18), ("bop",))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES["bop"]]
    with pytest.raises(UserError, match=r"config\.eval\.official_formats: 'pck'; expected some of hpe, bop, coco"):
        file_names(source, ("hpe", "pck"))
