"""Object pose files against the BOP toolkit's evaluation, written out by target, and what is wrong with bad ones."""

import json
import re

import numpy as np
import pytest
import trimesh
import yaml
from scipy.spatial.transform import Rotation

from amt.data.dexycb import DexYCB
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.evaluation.official import bop
from amt.evaluation.official.bop_models import (
    BopModel,
    corners,
    load_model,
    model_folder,
    read_ply,
    symmetry_transforms,
)
from amt.geometry.primitives import symmetries
from tests.data import layout
from tests.evaluation.official.conftest import labels, score_of

OFFSETS = {4: [-0.0240, -1.5270, 8.4035], 18: [0.0460, -2.1040, 0.3500]}  # bop_eval.py
TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
TURN[:3, 3] = [1.0, 2.0, 0.0]
INFO = {
    "4": {"diameter": 120.5, "symmetries_discrete": [TURN.ravel().tolist()]},
    "18": {
        "diameter": 121.3,
        "symmetries_continuous": [{"axis": [0, 1, 0], "offset": [0.3, 0, -0.7]}],
        "symmetries_discrete": [TURN.ravel().tolist()],
    },
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A test part with the official models, one in a text and one in a binary file, and one target not in the list."""
    root = tmp_path_factory.mktemp("bop")
    layout.write(root, layout.SUBJECTS[2:], num_frames=5, make=labels, size=(640, 480))
    source = DexYCB(root, "s0", "test")
    folder = model_folder(source)
    folder.mkdir(parents=True)
    (folder / "models_info.json").write_text(json.dumps(INFO))
    for ycb_id, encoding in ((4, "ascii"), (18, "binary")):
        mesh = trimesh.creation.capsule(60.0, 20.0 + ycb_id, count=[20, 20])
        mesh.export(folder / f"obj_{ycb_id:06d}.ply", encoding=encoding)
    targets = [
        {"scene_id": s, "im_id": i, "obj_id": o, "inst_count": 1} for s in range(3) for i in (0, 4) for o in OFFSETS
    ]
    (folder.parent / "test_targets_bop19.json").write_text(json.dumps(targets[:-1]))
    return source


def poses(source):
    """(scene, image, object) and true pose in metres of every target."""
    found = {}
    for i in range(len(source)):
        camera, frame = divmod(i, source.runs[0].num_frames)
        if frame % 4 == 0:
            for ycb_id, pose in zip((4, 18), labels(0, 4, camera, frame)["pose_y"].astype(float), strict=True):
                found[camera, frame, ycb_id] = pose
    return found


def scattered(source, seed=0):
    """Estimates from good to bad, some turned by half; the first of each target has a lower score, and is bad."""
    rng = np.random.default_rng(seed)
    lines = []
    for k, (target, pose) in enumerate(poses(source).items()):
        spread = 0.002 * (k + 1)
        R = pose[:, :3] @ Rotation.from_rotvec(rng.normal(0, 6 * spread, 3)).as_matrix()
        R = R @ TURN[:3, :3] if k % 4 > 1 else R
        t = pose[:, 3:] + rng.normal(0, spread, (3, 1))
        if k == 5:
            continue  # a miss
        lines.append(bop.line(target, 0.3, np.concatenate([R, t + 1], -1)))
        lines.append(bop.line(target, 0.8, np.concatenate([R, t], -1)))
        lines.append(bop.line(target, 0.8, np.concatenate([R, t + 2], -1)))  # equal scores: the first one counts
    return lines


def turns(info):
    """misc.get_symmetry_transformations of DexYCB's fork of bop_toolkit: `range(1, discrete_steps_count)`."""
    discrete = [np.eye(4)] + [np.reshape(s, (4, 4)) for s in info.get("symmetries_discrete", [])]
    found = []
    for first in discrete:
        if "symmetries_continuous" not in info:
            found.append((first[:3, :3], first[:3, 3]))
        for symmetry in info.get("symmetries_continuous", []):
            offset = np.array(symmetry["offset"])
            for k in range(1, 315):  # ceil(pi / 0.01)
                axis = np.array(symmetry["axis"]) / np.linalg.norm(symmetry["axis"])
                R = Rotation.from_rotvec(axis * 2 * np.pi / 315 * k).as_matrix()
                found.append((R @ first[:3, :3], R @ first[:3, 3] + offset - R @ offset))
    return found


def plain(source, lines, models, targets):
    """MSSD over the diameter and MSPD of every target; models are points, diameter, symmetries, offset."""
    truths, estimates = poses(source), {}
    for text in lines:
        scene, image, ycb_id, score, R, t, _ = text.split(",")
        key = int(scene), int(image), int(ycb_id)
        estimates.setdefault(key, []).append((float(score), np.array(R.split(), float), np.array(t.split(), float)))
    found = []
    for key in targets:
        points, diameter, syms, offset = models[key[2]]
        K = np.array([[600.0 + key[0], 0, 320.5], [0, 610, 240], [0, 0, 1]])
        R_true, t_true = truths[key][:, :3], truths[key][:, 3] * 1000
        t_true = t_true - R_true @ offset
        if key not in estimates:
            found.append([np.inf, np.inf])
            continue
        _, R, t = sorted(estimates[key], key=lambda e: e[0], reverse=True)[0]
        R = R.reshape(3, 3)
        ours = (R @ points.T).T + (t - R @ offset)
        surface, projected = [], []
        for R_sym, t_sym in syms:
            theirs = (R_true @ R_sym @ points.T).T + R_true @ t_sym + t_true
            uv = [(x @ K.T)[:, :2] / (x @ K.T)[:, 2:] for x in (ours, theirs)]
            surface.append(np.linalg.norm(ours - theirs, axis=1).max())
            projected.append(np.linalg.norm(uv[0] - uv[1], axis=1).max())
        found.append([min(surface) / diameter, min(projected)])
    return np.array(found)


def check_errors(source, path, expected):
    errors = list(bop.target_errors(bop.read(path, source), source, False, lambda n: None))
    np.testing.assert_allclose([[e.mssd, e.mspd] for e in errors], expected, rtol=1e-6)


def check_recalls(figures, errors):
    """The share of errors below each threshold, averaged; in percent."""
    limits = {"mssd": np.arange(0.05, 0.51, 0.05), "mspd": np.arange(5, 51, 5)}
    assert set(figures) == set(limits)
    for column, name in enumerate(limits):
        recalls = [np.mean([e < limit for e in errors[:, column]]) for limit in limits[name]]
        assert figures[name] == pytest.approx(100 * np.mean(recalls), abs=1e-9), name


def test_recalls_with_the_official_models_are_those_of_the_toolkit(official, tmp_path):
    lines = scattered(official)
    path = tmp_path / "bop.csv"
    path.write_text(bop.HEADER + "\n" + "".join(lines))
    found = score_of(path, official)["bop"]
    models = {}
    for ycb_id, offset in OFFSETS.items():
        info = INFO[str(ycb_id)]
        mesh = trimesh.load(model_folder(official) / f"obj_{ycb_id:06d}.ply", process=False)
        models[ycb_id] = (np.asarray(mesh.vertices), info["diameter"], turns(info), offset)
    targets = list(poses(official))[:-1]
    expected, ids = plain(official, lines, models, targets), np.array([ycb_id for *_, ycb_id in targets])
    check_errors(official, path, expected)
    check_recalls(found["all"], expected)
    check_recalls(found["grasp_only"], expected[ids == 18])
    check_recalls(found["by_object"][OBJECTS[4].name], expected[ids == 4])
    assert (found["targets"], found["targets_missing"]) == (11, 1)
    assert 10 < found["all"]["mssd"] < 90 and 10 < found["all"]["mspd"] < 90


def test_recalls_with_our_own_models(source, tmp_path):
    """Without the official ones: the primitives, of which the marker looks the same after some turns."""
    lines = scattered(source)
    path = tmp_path / "bop.csv"
    path.write_text("".join(lines))  # the header may be missing
    figures = score_of(path, source)["bop"]["all"]
    models = {}
    for ycb_id in OFFSETS:
        model, obj = load_model(source, ycb_id), OBJECTS[ycb_id]
        assert model.diameter == pytest.approx(obj.primitive.diameter * 1000, rel=2e-3)
        syms = [(R, np.zeros(3)) for R in symmetries(obj.primitive.axis).astype(float)] if ycb_id == 18 else None
        models[ycb_id] = (model.points, model.diameter, syms or [(np.eye(3), np.zeros(3))], np.zeros(3))
    expected = plain(source, lines, models, list(poses(source)))
    check_errors(source, path, expected)
    check_recalls(figures, expected)


def test_only_the_toolkits_grasped_objects_count_as_grasped(tmp_path):
    """`_grasp_id` in bop_eval.py, for a sequence in which 4 is grasped and one as the generator writes a bare hand."""

    def make(subject, sequence, camera, frame):
        found = labels(subject, sequence, camera, frame)
        found["pose_y"] = np.concatenate([found["pose_y"], np.zeros((1, 3, 4), np.float32)])
        return found

    layout.write(tmp_path, layout.SUBJECTS[2:], num_sequences=10, num_frames=1, make=make, size=(640, 480))
    metas = sorted(tmp_path.rglob("meta.yml"))
    for k, path in enumerate(metas):
        bare = {"ycb_grasp_ind": 2, "bare_hand": True} if k == 9 else {"ycb_grasp_ind": 0}
        layout.change(path, ycb_ids=[4, 18, 19], **bare)
    source, used = DexYCB(tmp_path, "s0", "test"), [yaml.safe_load(metas[k].read_text()) for k in (4, 9)]
    expected = [(i, i == meta["ycb_ids"][meta["ycb_grasp_ind"]]) for meta in used for _ in range(3) for i in (4, 18)]
    errors = bop.target_errors({}, source, False, lambda n: None)
    assert [(e.ycb_id, e.grasped) for e in errors] == expected
    assert sum(grasped for _, grasped in expected) == 3


def test_a_true_pose_of_a_solid_of_revolution_is_one_step_off():
    """DexYCB's toolkit looks for the least error among 314 turns, none of which is by 0."""
    info = {"symmetries_continuous": [{"axis": [0, 0, 2], "offset": [1, 0, 5]}]}
    points = np.random.default_rng(0).uniform(-50, 50, (100, 3))
    model = BopModel(points, corners(points), None, 150.0, symmetry_transforms(info), np.zeros(3))
    truth = np.concatenate([np.eye(3), [[10.0], [20.0], [700.0]]], -1)
    K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    spread = np.linalg.norm(points[:, :2] - [1, 0], axis=-1).max()
    assert bop.mssd(truth, truth, model) == pytest.approx(2 * spread * np.sin(np.pi / 315), rel=1e-9)
    proj = [(x @ K.T)[:, :2] / (x @ K.T)[:, 2:] for x in [points + truth[:, 3]]][0]
    turned = [R @ points.T + (t + truth[:, 3])[:, None] for R, t in turns(info | {"symmetries_discrete": []})]
    gaps = [np.linalg.norm((K @ x)[:2] / (K @ x)[2:] - proj.T, axis=0).max() for x in turned]
    assert len(turned) == 314 and bop.mspd(truth, truth, model, K) == pytest.approx(min(gaps), rel=1e-9)


def change(lines, k, column, value):
    values = lines[k].rstrip("\n").split(",")
    values[column] = value
    return [*lines[:k], ",".join(values) + "\n", *lines[k + 1 :]]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda x: change(x, 2, 5, "1 2 nan"), r"line 3: values that are not finite"),
        (lambda x: change(x, 2, 3, "high"), r"line 3: 'high' is not a number"),
        (lambda x: change(x, 2, 4, "1 0 0 0"), r"line 3: 4 values in R and 3 in t; expected 9 and 3"),
        (lambda x: [x[0].replace(",-1", ""), *x[1:]], r"line 1: 6 values; expected 7"),
        (lambda x: change(x, 2, 0, "99"), r"line 3: scene 99 has no image 0 in DexYCB.*another split"),
        (lambda x: change(x, 2, 2, "22"), r"line 3: obj_id 22; expected 1 to 21"),
        (lambda x: change(x, 2, 1, "x"), r"line 3: im_id is 'x'; expected a whole number"),
        (lambda x: [bop.HEADER + "\n"], r"no estimates"),
        (lambda x: [x[0].replace("0,0,4,", "0,1,4,")], r"none of its 1 estimates is of the 12 targets"),
        (
            lambda x: [change(x, 0, 5, "0.1 0.2 0.7")[0]],
            r"wrong unit: .* is 0\.735, as if in metres; expected millimetres",
        ),
    ],
)
def test_bad_files_are_answered_by_one_clear_error(source, tmp_path, damage, says):
    path = tmp_path / "bop.csv"
    path.write_text("".join(damage(scattered(source))))
    with pytest.raises(UserError, match=re.escape(str(path)) + ": " + says):
        score_of(path, source)


@pytest.mark.parametrize(
    "text",
    [
        b"no mesh",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n3 0 1 2\n",
    ],
)
def test_broken_models_are_named(tmp_path, text):
    (tmp_path / "obj.ply").write_bytes(text)
    with pytest.raises(UserError, match=r"obj\.ply: .*expected triangles in PLY format"):
        read_ply(tmp_path / "obj.ply")
