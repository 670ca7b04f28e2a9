"""Generated data are what their labels say, are reproducible, and survive being stopped."""

import dataclasses
import os
import shutil

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.data.synthetic import generator, grasps, motion
from amt.data.synthetic.generator import generate
from amt.data.synthetic.scene import HAND, Scene
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry import cameras
from amt.geometry.primitives import signed_distance
from amt.robot.render import find_backend

from .conftest import TINY
from .layout import POINTER, contents


def posed(hand, sample):
    """The hand of a sample's parameters: joints and vertices in the camera frame."""
    pose = sample["hand_pose"]
    joints, vertices = hand(pose[:48], sample["betas"], pose[48:])
    return np.asarray(joints), np.asarray(vertices)


@pytest.fixture(scope="module")
def samples(generated):
    """All samples of all parts: s1 puts subject 0 into train."""
    source = DexYCB(generated, "s1", "train", with_seg=True)
    assert len(source) == TINY.num_sequences * TINY.num_cameras * TINY.num_frames
    return [source[i] for i in range(len(source))]


def test_the_same_seed_writes_the_same_bytes(generated, tmp_path):
    assert len(list(generate(TINY, tmp_path, 0))) == TINY.num_sequences
    assert contents(tmp_path) == contents(generated)


def test_another_seed_writes_other_cameras_and_hands(generated, tmp_path):
    other = dataclasses.replace(TINY, seed=4, num_frames=1, num_cameras=1)
    next(generate(other, tmp_path, 0))
    ours, theirs = (sorted(root.rglob("pose.npz"))[0] for root in (tmp_path, generated))
    assert np.abs(np.load(ours)["pose_m"][0] - np.load(theirs)["pose_m"][0]).max() > 0.01


def test_a_stopped_run_goes_on(generated, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(generated, root)
    kept, lost = sorted(p for p in next(root.glob("*-subject-*")).iterdir())
    mark = kept / "mark"
    mark.write_text("")
    half_written = lost.with_name(f".{lost.name}.part")
    lost.rename(half_written)
    (half_written / "junk").write_text("")
    assert len(DexYCB(root, "s1", "train")) == TINY.num_cameras * TINY.num_frames
    assert list(generate(TINY, root, 0)) == [lost.name]
    assert mark.exists() and not half_written.exists()
    mark.unlink()
    assert contents(root) == contents(generated)
    assert list(generate(TINY, root, 0)) == []


def test_other_settings_in_the_same_folder_are_refused(generated, tmp_path):
    before = contents(generated)
    with pytest.raises(UserError, match=r"generated with seed=6; choose another --workdir"):
        next(generate(dataclasses.replace(TINY, seed=4), generated, 0))
    assert contents(generated) == before
    (tmp_path / "20200709-subject-01").mkdir()
    with pytest.raises(UserError, match="did not write"):
        next(generate(TINY, tmp_path, 0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_sequences", 0), ("num_cameras", 9), ("num_subjects", 11), ("gesture_share", 1.5), ("width", 0)],
)
def test_impossible_settings_are_named(tmp_path, field, value):
    with pytest.raises(UserError, match=f"config.generate.{field}={value}"):
        next(generate(dataclasses.replace(TINY, **{field: value}), tmp_path / "data", 0))
    assert not (tmp_path / "data").exists()


def test_a_machine_that_cannot_render_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    find_backend.cache_clear()
    try:
        with pytest.raises(UserError, match="MUJOCO_GL=nonsense failed.*apt-get install"):
            next(generate(TINY, tmp_path / "data", 0))
    finally:
        find_backend.cache_clear()
    assert not (tmp_path / "data").exists()


def test_a_missing_folder_of_photographs_is_named(tmp_path, generated):
    config = dataclasses.replace(TINY, photographs=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="config.generate.photographs: .*nothing is not a folder"):
        next(generate(config, tmp_path / "data", 0))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "a.jpg").write_text(POINTER)
    with pytest.raises(UserError, match=r"a\.jpg: a Git LFS pointer, not the file"):
        next(generate(config, tmp_path / "data", 0))


def test_images_and_calibration_have_the_configured_size(samples, generated):
    for sample in samples:
        assert decode(sample["color"]).shape == (TINY.height, TINY.width, 3)
        assert sample["seg"].shape == (TINY.height, TINY.width)
    files = sorted((generated / "calibration/intrinsics").iterdir())
    assert len(files) == TINY.num_cameras and all(f.name.endswith("_160x120.yml") for f in files)


def test_parameters_reproduce_the_joints(samples):
    hand = hand_model.load()
    for sample in samples:
        np.testing.assert_allclose(posed(hand, sample)[0], sample["joints_3d"], atol=1e-4)


def test_joints_project_to_their_pixels(samples):
    for sample in samples:
        projected = cameras.project(sample["joints_3d"].astype(float), sample["K"].astype(float))
        np.testing.assert_allclose(projected, sample["joints_2d"], rtol=1e-4, atol=1e-2)


def filled_mesh(pixels, faces, shape):
    """Pixels whose centres lie in a projected triangle: drawn large first, else the rim counts as inside."""
    mask = np.zeros((shape[0] * 8, shape[1] * 8), np.uint8)
    for triangle in np.round(((pixels + 0.5) * 8 - 0.5)[faces] * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1, shift=4)
    return mask[4::8, 4::8].astype(bool)


def test_the_drawn_hand_is_the_labelled_hand(samples):
    """The hand in the segmentation against the mesh that the labels give, filled by OpenCV."""
    hand = hand_model.load()
    overlaps = []
    for sample in samples:
        pixels = cameras.project(posed(hand, sample)[1].astype(float), sample["K"].astype(float))
        mask, seg = filled_mesh(pixels, hand.faces, sample["seg"].shape), sample["seg"]
        drawn, hidden = seg == HAND, mask & (seg != HAND) & (seg > 0)
        assert (drawn & ~mask).sum() <= 0.01 * drawn.sum() + 1
        overlaps.append((drawn & mask).sum() / ((drawn | mask) & ~hidden).sum())
    # Forearm and table, which have no label, hide a part of the hand now and then.
    assert np.mean(np.array(overlaps) > 0.8) > 0.8 and np.median(overlaps) > 0.9


def test_a_camera_draws_with_exactly_its_K(generated):
    """A foam brick alone in the scene: its silhouette is the convex hull of its projected corners."""
    size = (640, 480)
    K = np.array([[610.0, 0, 351.3], [0, 617.0, 218.6], [0, 0, 1]])
    brick = 21
    rng = np.random.default_rng(0)
    scene = Scene(rng, hand_model.load(), [brick], K[None], size, [], find_backend())
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = Rotation.from_euler("xyz", [200, 10, 15], degrees=True).as_matrix()
    T_world_camera[:3, 3] = [0.1, -0.05, 1.3]
    away = np.tile(np.float32([0, 0, -5]), (778, 1))
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)
    try:
        for point in ([-0.3, -0.2, 0.9], [0.3, 0.2, 0.9], [-0.25, 0.2, 1.0], [0.0, 0.0, 0.8]):
            R_co = Rotation.random(random_state=rng).as_matrix()
            R_wo = T_world_camera[:3, :3] @ R_co
            t_wo = T_world_camera[:3, :3] @ point + T_world_camera[:3, 3]
            scene.pose(away, np.eye(3), np.array([0, 0, -5.0]), R_wo[None], t_wo[None], np.eye(3))
            _, seg = scene.render(0, T_world_camera)
            corners = cameras.project(signs * OBJECTS[brick].primitive.half @ R_co.T + point, K)
            v, u = np.mgrid[: size[1], : size[0]]
            edges = ConvexHull(corners).equations  # a u + b v + c <= 0 inside
            expected = np.all([a * u + b * v + c <= 0 for a, b, c in edges], axis=0)
            ys, xs = np.nonzero(seg == brick)
            ye, xe = np.nonzero(expected)
            assert len(xs) > 1000 and (expected != (seg == brick)).mean() < 1e-4
            np.testing.assert_allclose([xs.mean(), ys.mean()], [xe.mean(), ye.mean()], atol=0.05)
    finally:
        scene.close()


def test_every_sequence_says_what_is_grasped(samples, generated):
    for path in generated.rglob("meta.yml"):
        meta = yaml.safe_load(path.read_text())
        assert set(meta["ycb_ids"]) <= set(OBJECTS) and len(set(meta["ycb_ids"])) == len(meta["ycb_ids"])
        assert 0 <= meta["ycb_grasp_ind"] < len(meta["ycb_ids"])
        grasped = {int(s["grasped"]) for s in samples if list(s["object_ids"][:2]) == meta["ycb_ids"][:2]}
        assert grasped == {-1 if meta.get("bare_hand") else meta["ycb_grasp_ind"]}


def test_the_toolkit_sees_the_same_grasps(samples, generated):
    """`BOPEvaluator` of dex-ycb-toolkit: the grasped object is `ycb_ids[ycb_grasp_ind]`, targets are those posed."""
    bare = 0
    for path in sorted(generated.rglob("meta.yml")):
        meta = yaml.safe_load(path.read_text())
        grasped = meta["ycb_ids"][meta["ycb_grasp_ind"]]
        for label in sorted(path.parent.rglob("labels_*.npz")):
            poses = np.load(label)["pose_y"]
            targets = [i for i, pose in zip(meta["ycb_ids"], poses, strict=True) if pose.any()]
            assert (grasped in targets) == (not meta.get("bare_hand")) and len(targets) >= 1
            assert not set(np.unique(np.load(label)["seg"])) - {0, 255, *targets}
        world = np.load(path.parent / "pose.npz")["pose_y"]
        nowhere = (world == [0, 0, 0, 1, 0, 0, 0]).all((0, 2))  # as sequence_loader.py leaves objects out
        assert nowhere.tolist() == [bool(meta.get("bare_hand")) and i == grasped for i in meta["ycb_ids"]]
        bare += bool(meta.get("bare_hand"))
    assert 0 < bare < TINY.num_sequences


def closed_grasps(count):
    """(motion, depth below the grasped object's surface in metres) of grasps at their last frame."""
    hand = hand_model.load()
    for seed in range(count):
        rng = np.random.default_rng([9, seed])
        betas = np.clip(rng.normal(0, 1, 10), -2, 2)
        played = motion.sample(rng, grasps.HandShape(hand, betas), 8, 0.0)
        k = played.grasped
        primitive = OBJECTS[played.ycb_ids[k]].primitive
        local = (played.vertices[-1] - played.object_t[-1, k]) @ played.object_R[-1, k]
        yield played, signed_distance(local, primitive.half.astype(float), np.asarray(primitive.axis))


def test_closed_hands_touch_and_lift_the_object():
    for played, distance in closed_grasps(8):
        assert (np.abs(distance) < 0.005).any()
        k = played.grasped
        assert played.object_t[-1, k, 2] > played.object_t[0, k, 2] + 0.05
        for held in (5, 6, 7):  # after the hand has closed the object moves with it
            R = played.global_orient[held].T @ played.object_R[held, k]
            t = played.global_orient[held].T @ (played.object_t[held, k] - played.wrist[held])
            np.testing.assert_allclose(R, played.global_orient[-1].T @ played.object_R[-1, k], atol=1e-6)
            last = played.global_orient[-1].T @ (played.object_t[-1, k] - played.wrist[-1])
            np.testing.assert_allclose(t, last, atol=1e-6)


def test_most_closed_hands_do_not_sink_into_the_object():
    depths = [-distance.min() for _, distance in closed_grasps(20)]
    assert np.mean(np.array(depths) < 0.005) > 0.8


def test_closed_hands_touch_the_object_with_several_digits():
    owner = np.asarray(hand_model.load().weights).argmax(1) - 1
    digits = [(owner >= first) & (owner < first + 3) for first in (*grasps.FINGERS.values(), grasps.THUMB)]
    touching = [sum(np.abs(d[skin]).min() < 0.005 for skin in digits) for _, d in closed_grasps(20)]
    assert np.mean(np.array(touching) >= 2) > 0.9


@pytest.mark.parametrize("gesture_share", [0.0, 1.0])
def test_hands_stay_above_the_table(gesture_share):
    hand = hand_model.load()
    lowest = []
    for seed in range(20):
        rng = np.random.default_rng([10, seed])
        shape = grasps.HandShape(hand, np.clip(rng.normal(0, 1, 10), -2, 2))
        lowest.append(motion.sample(rng, shape, 32, gesture_share).vertices[..., 2].min())
    assert np.mean(np.array(lowest) > -0.005) >= 0.95


def test_cameras_look_at_the_hand_from_above_the_table():
    T = generator.sample_cameras(np.random.default_rng(0), np.array([0.1, 0.0, 0.2]), 50)
    R = T[:, :3, :3]
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.tile(np.eye(3), (50, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1)
    assert (T[:, 2, 3] >= 0.06).all()
    seen = np.einsum("nji,nj->ni", R, np.array([0.1, 0.0, 0.2]) - T[:, :3, 3])
    assert (seen[:, 2] > 0).all() and (np.abs(seen[:, :2]) < 0.5 * seen[:, 2:]).mean() > 0.95


def test_generation_leaves_the_environment_alone(generated, tmp_path):
    before = dict(os.environ)
    next(generate(dataclasses.replace(TINY, num_sequences=1, num_frames=1, num_cameras=1), tmp_path, 0))
    changed = {k for k in {*before, *os.environ} if before.get(k) != os.environ.get(k)}
    assert changed <= {"PYOPENGL_PLATFORM", "PYTEST_CURRENT_TEST"}
