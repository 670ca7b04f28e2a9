"""Simulated grasps are what their files say: lifted by contact, labelled, in both hands, reproducible, resumable."""

import dataclasses
import shutil

import numpy as np
import pytest
import yaml
from ml_collections import ConfigDict
from scipy.spatial import KDTree

from amt import hand as hand_model
from amt.data.contacts import FIRM, MANIPULATION, signed_distance
from amt.data.dexycb import DexYCB
from amt.data.files import FileError, read_depth
from amt.data.objects import object_surface
from amt.data.packed import Packed, make_plan, pack
from amt.data.quarantine import Quarantine, try_load
from amt.data.synthetic import models, physical, planning, simulation
from amt.data.synthetic.generator import discarded_grasps, generate
from amt.data.synthetic.scene import HAND
from amt.data.transforms import network_sample
from amt.data.validation import check_sequences, survey
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry import cameras, mirror
from amt.modes import generate as generate_mode
from amt.robot import RenderUnavailable
from tests.samples import changed

from .conftest import TINY

# The first two sequences: a can in a right hand, a box in a left one.
PHYSICAL = dataclasses.replace(TINY, grasps="physical", gesture_share=0.0, num_frames=12, seed=2)
GRAVITY = 9.81


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The root of `PHYSICAL`. Read it only."""
    root = tmp_path_factory.mktemp("simulated")
    try:
        names = list(generate(PHYSICAL, root, 0))
    except RenderUnavailable as error:
        pytest.skip(str(error))
    assert len(names) == PHYSICAL.num_sequences
    return root


@pytest.fixture(scope="module")
def samples(simulated):
    source = DexYCB(simulated, "s1", "train", with_seg=True)
    assert len(source) == PHYSICAL.num_sequences * PHYSICAL.num_cameras * PHYSICAL.num_frames
    return [source[i] for i in range(len(source))]


def folders(root):
    return sorted(p.parent for p in root.glob("*-subject-*/*/meta.yml"))


def as_right(sample):
    """Joints of a right hand, given by the sample's own parameters, and those of its label, mirrored if left."""
    hand, pose, joints = hand_model.load(), sample["hand_pose"], sample["joints_3d"]
    transl = pose[48:]
    if sample["is_left"]:
        pose, transl = mirror.mirror_hand_pose(pose[:48]), mirror.mirror_points(transl)
        joints = mirror.mirror_points(joints)
    posed, vertices = hand(pose[:48], sample["betas"], transl)
    return np.asarray(posed), np.asarray(vertices), joints


def test_both_hands_are_there_and_their_parameters_give_the_joints(samples):
    assert {bool(s["is_left"]) for s in samples} == {False, True}
    for sample in samples:
        posed, _, joints = as_right(sample)
        np.testing.assert_allclose(posed, joints, atol=1e-4)
        projected = cameras.project(sample["joints_3d"].astype(float), sample["K"].astype(float))
        assert np.abs(projected - sample["joints_2d"]).max() < 0.3


def test_the_drawn_hand_is_the_labelled_hand(samples):
    """Of the projected vertices that nothing hides nearly all lie on the hand in the segmentation."""
    inside = []
    for sample in samples:
        _, vertices, _ = as_right(sample)
        vertices = mirror.mirror_points(vertices) if sample["is_left"] else vertices
        uv = np.rint(cameras.project(vertices.astype(float), sample["K"].astype(float))).astype(int)
        shown = (uv >= 0).all(1) & (uv < [PHYSICAL.width, PHYSICAL.height]).all(1)
        seg = sample["seg"][uv[shown, 1], uv[shown, 0]]
        if (seg == HAND).sum() > 100:
            inside.append((seg == HAND).mean() / max((np.isin(seg, [0, HAND])).mean(), 1e-6))
    assert np.median(inside) > 0.85


def test_depth_is_that_of_the_objects(simulated, samples):
    """Where the segmentation shows an object or the hand, depth lies within its extent, give or take a millimetre."""
    for folder in folders(simulated):
        meta = yaml.safe_load((folder / "meta.yml").read_text())
        for serial in meta["serials"]:
            for n in range(0, PHYSICAL.num_frames, 5):
                labels = np.load(folder / serial / f"labels_{n:06d}.npz")
                depth = read_depth(folder / serial / f"aligned_depth_to_color_{n:06d}.png")
                assert depth.shape == labels["seg"].shape
                for pose, ycb_id in zip(labels["pose_y"], meta["ycb_ids"], strict=True):
                    z = (models.model(ycb_id).shape.vertices @ pose[:, :3].T + pose[:, 3])[:, 2]
                    seen = depth[labels["seg"] == ycb_id]
                    assert not len(seen) or (seen.min() > z.min() - 0.001 and seen.max() < z.max() + 0.001)


def test_objects_are_lifted_and_held(simulated):
    for turn, folder in enumerate(folders(simulated)):
        meta = yaml.safe_load((folder / "meta.yml").read_text())
        assert meta["ycb_ids"][meta["ycb_grasp_ind"]] == turn + 1
        place = np.load(folder / "pose.npz")["pose_y"][:, meta["ycb_grasp_ind"], 4:]
        step = simulation.DURATION / PHYSICAL.num_frames
        held = np.arange(PHYSICAL.num_frames) * step >= simulation.DURATION - simulation.HOLD
        assert (place[held, 2] - place[0, 2] > simulation.MIN_LIFT).all()
        assert meta["grasp"]["discarded"] == sum(meta["grasp"]["reasons"].values())
        assert set(meta["grasp"]["reasons"]) <= set(simulation.FAILURES)
        assert discarded_grasps(simulated, folder.name) == meta["grasp"]["discarded"]


def test_contacts_carry_the_object(simulated, samples):
    """At the end, when nothing moves, the hand's forces add up to the object's weight, upwards in the world."""
    for folder in folders(simulated):
        meta = yaml.safe_load((folder / "meta.yml").read_text())
        ycb_id = meta["ycb_ids"][meta["ycb_grasp_ind"]]
        last = f"{PHYSICAL.num_frames - 1:06d}"
        rows = yaml.safe_load((simulated / f"calibration/extrinsics_{folder.name}/extrinsics.yml").read_text())
        for serial in meta["serials"]:
            contacts = np.load(folder / serial / f"contacts_{last}.npz")
            R = np.reshape(rows["extrinsics"][serial], (3, 4))[:, :3]
            assert len(contacts["points"]) >= 2 and (contacts["object"] == ycb_id).all()
            assert set(contacts["body"].tolist()) <= set(range(16))
            weight = models.MASSES[ycb_id] * GRAVITY
            np.testing.assert_allclose(contacts["forces"].sum(0) @ R.T, [0, 0, weight], atol=0.15 * weight + 0.05)
            # Forces press into the object, normals point out of it, and points lie on it.
            assert ((contacts["forces"] * contacts["normals"]).sum(1) < 0).all()
            pose = np.load(folder / serial / f"labels_{last}.npz")["pose_y"][meta["ycb_grasp_ind"]]
            local = (contacts["points"] - pose[:, 3]) @ pose[:, :3]
            assert np.abs(signed_distance(local, object_surface(simulated, ycb_id))).max() < 0.006


def test_the_reader_gives_the_simulated_contacts_with_the_grasped_object(simulated, samples):
    """In the camera's frame, on the object's surface and at the hand; forces and kinds as they were written."""
    source = DexYCB(simulated, "s1", "train")
    assert source.has_contacts
    touched = 0
    for i, sample in enumerate(samples):
        sequence, camera, frame = source.locate(i)
        path = sequence.folder / sequence.meta["serials"][camera] / f"contacts_{frame:06d}.npz"
        k = int(sample["grasped"])
        ycb_id, pose = int(sample["object_ids"][k]), sample["object_pose"][k]
        with np.load(path) as file:
            written = {name: file[name] for name in file if name != "normals"}
        held = written["object"] == ycb_id
        valid = sample["contact_valid"]
        assert sample["contact_known"] and valid.sum() == min(10, held.sum())
        rows = {tuple(p): n for n, p in enumerate(written["points"]) if held[n]}
        for point, force, kind in zip(
            *(sample[f"contact_{name}"][valid] for name in ("points", "force", "kind")), strict=True
        ):
            n = rows[tuple(point)]
            np.testing.assert_array_equal(force, written["forces"][n])
            assert kind == written["kind"][n]
        assert (sample["contact_kind"][~valid] == 0).all() and not sample["contact_force"][~valid].any()
        if not valid.any():
            continue
        touched += 1
        if held.sum() > 10:
            strongest = written["points"][held][np.linalg.norm(written["forces"][held], axis=-1).argmax()]
            assert tuple(strongest) in {tuple(p) for p in sample["contact_points"][valid]}
        points = sample["contact_points"][valid]
        local = (points - pose[:, 3]) @ pose[:, :3]
        assert np.abs(signed_distance(local, object_surface(simulated, ycb_id))).max() < 0.006
        _, vertices, _ = as_right(sample)
        vertices = mirror.mirror_points(vertices) if sample["is_left"] else vertices
        assert KDTree(vertices).query(points)[0].max() < 0.015  # a capsule against the mesh of 778 vertices
    assert touched > len(samples) / 3


def test_crops_of_simulated_samples_keep_the_contacts_on_the_object(simulated, samples):
    """Also of left hands, whose forces are mirrored: in a held pose they carry the weight against gravity's image."""
    source = DexYCB(simulated, "s1", "train")
    held, sides = 0, set()
    for i in range(PHYSICAL.num_frames - 1, len(samples), PHYSICAL.num_frames):
        sample = source[i]
        out = network_sample(sample, None, changed(min_visible_share=0.0))
        k, sides = int(out["grasped"]), sides | {bool(sample["is_left"])}
        pose, ycb_id = out["object_pose"][k].astype(float), int(out["object_ids"][k])
        assert out["contact_valid"].any()
        local = (out["contact_points"][out["contact_valid"]] - pose[:, 3]) @ pose[:, :3]
        points = object_surface(simulated, ycb_id).points * (np.float32([-1, 1, 1]) if sample["is_left"] else 1)
        assert KDTree(points).query(local)[0].max() < 0.006
        up = sample["T_world_camera"][:3, :3].T @ [0, 0, 1.0]
        up = out["R_crop_camera"] @ (mirror.mirror_points(up) if sample["is_left"] else up)
        weight = models.MASSES[ycb_id] * GRAVITY
        if out["contact_valid"].sum() < 10:  # else some of them were left out
            np.testing.assert_allclose(out["contact_force"].sum(0), weight * up, atol=0.15 * weight + 0.05)
            held += 1
    assert held and sides == {False, True}


def test_kinds_tell_carrying_from_holding(simulated, samples):
    """What is lifted is manipulated; on the table and held still, contacts are light or firm by their force."""
    times = np.arange(PHYSICAL.num_frames) * simulation.DURATION / PHYSICAL.num_frames
    start = simulation.REACH + simulation.CLOSE
    for i, sample in enumerate(samples):
        time, valid = times[i % PHYSICAL.num_frames], sample["contact_valid"]
        kind, force = sample["contact_kind"][valid], np.linalg.norm(sample["contact_force"][valid], axis=-1)
        if start + 0.15 < time < start + simulation.LIFT - 0.15:
            assert (kind == MANIPULATION).all()
        still = kind != MANIPULATION
        np.testing.assert_array_equal(kind[still] == FIRM, force[still] >= 2.0)


def test_contacts_survive_packing(simulated, samples, tmp_path):
    source = DexYCB(simulated, part="all")
    for _ in pack(source, make_plan(source, 64), tmp_path):
        pass
    packed = Packed(tmp_path, "s1", "train")
    assert packed.has_contacts and len(packed) == len(samples)
    for name in (name for name in samples[0] if name.startswith("contact_")):
        np.testing.assert_array_equal([packed[i][name] for i in range(len(samples))], [s[name] for s in samples])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (None, "not there; expected contacts of --mode=generate"),
        ({"forces": np.zeros((1, 2), np.float32)}, "forces is float32 of shape"),
        ({"points": np.full((1, 3), np.nan, np.float32)}, "points has 3 values that are not finite"),
        ({"kind": np.int32([7])}, "kind has .7.; expected 1 to 3"),
    ],
)
def test_broken_contacts_are_named_by_reader_and_validation(simulated, tmp_path, arrays, reason):
    root = tmp_path / "data"
    shutil.copytree(simulated, root)
    path = sorted(root.rglob("contacts_000000.npz"))[0]
    path.unlink()
    if arrays:
        one = {"points": np.ones((1, 3), np.float32), "forces": np.ones((1, 3), np.float32), "kind": np.int32([1])}
        np.savez(path, **{"object": np.int32([1]), **one} | arrays)
    with pytest.raises(FileError, match=reason) as raised:
        DexYCB(root, "s1", "train")[0]
    assert raised.value.path == str(path)
    quarantine = Quarantine(tmp_path)
    assert try_load(DexYCB(root, "s1", "train"), 0, dict, quarantine) is None and len(quarantine.entries()) == 1
    found = survey(root)
    for report in check_sequences(found, 0):
        found.report.merge(report)
    assert sum(found.report.counts.values()) == 1 and str(path) in str(found.report.first)


def test_sets_without_kinds_have_contacts_of_no_known_kind(simulated, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(simulated, root)
    for path in root.rglob("contacts_*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file if name != "kind"}
        np.savez(path, **arrays)
    sample = DexYCB(root, "s1", "train")[PHYSICAL.num_frames - 1]
    assert sample["contact_valid"].any() and (sample["contact_kind"] == -1).all() and sample["contact_known"]


def test_hands_hardly_sink_into_what_they_hold(simulated, samples):
    for sample in samples:
        _, vertices, _ = as_right(sample)
        vertices = mirror.mirror_points(vertices) if sample["is_left"] else vertices
        k = int(sample["grasped"])
        pose = sample["object_pose"][k]
        surface = object_surface(simulated, int(sample["object_ids"][k]))
        depth = -signed_distance((vertices - pose[:, 3]) @ pose[:, :3], surface).min()
        assert depth < physical.MAX_DEPTH + 0.001


def test_the_data_set_is_valid(simulated):
    found = survey(simulated)
    for report in check_sequences(found, 0):
        found.report.merge(report)
    assert not found.report.counts, found.report.first


def test_the_same_seed_writes_the_same_bytes_also_after_a_stop(simulated, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(simulated, root)
    lost = folders(root)[1]
    lost.rename(lost.with_name(f".{lost.name}.part"))
    assert list(generate(PHYSICAL, root, 0)) == [lost.name]
    ours, theirs = (
        {str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in (root, simulated)
    )
    assert ours == theirs


def test_the_mode_counts_discarded_grasps(simulated, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(simulated, root)
    lost = folders(root)[0]
    shutil.rmtree(lost)
    config = ConfigDict({"generate": {**dataclasses.asdict(PHYSICAL), "num_workers": 0}, "hand": {"model": ""}})
    figures = generate_mode.run(config, root, None)
    assert figures["sequences_written"] == 1
    assert figures["grasps_discarded"] == discarded_grasps(simulated, lost.name)


def test_kinematic_and_physical_do_not_mix(simulated, tmp_path):
    with pytest.raises(UserError, match="generated with grasps=physical"):
        next(generate(dataclasses.replace(PHYSICAL, grasps="kinematic"), simulated, 0))
    with pytest.raises(UserError, match="config.generate.grasps=magic: expected physical, kinematic, crops"):
        next(generate(dataclasses.replace(PHYSICAL, grasps="magic"), tmp_path, 0))


def test_a_gesture_has_no_contacts_and_models_stand_on_the_table():
    hand = hand_model.load()
    played = physical.sample(np.random.default_rng(1), hand, np.zeros(10), 3, 1.0, 1)
    assert played.grasped == -1 and played.side == "left" and all(len(c.body) == 0 for c in played.contacts)
    for R, t, ycb_id in zip(played.object_R[0], played.object_t[0], played.ycb_ids, strict=True):
        assert np.linalg.det(R) == pytest.approx(1)
        lowest = (models.model(ycb_id).shape.vertices @ R.T + t)[:, 2].min()
        assert lowest == pytest.approx(0.0005, abs=1e-6)


def test_a_mirrored_scene_is_the_mirror_image():
    hand = hand_model.load()
    right = physical.sample(np.random.default_rng(1), hand, np.zeros(10), 2, 1.0, 0)
    left = physical.mirrored(right)
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1])
    for k, ycb_id in enumerate(right.ycb_ids):
        points = physical.surface(ycb_id).points
        ours = points @ left.object_R[0, k].T + left.object_t[0, k]
        theirs = (points @ right.object_R[0, k].T + right.object_t[0, k]) * [-1, 1, 1]
        assert KDTree(theirs).query(ours)[0].max() < 0.005
    assert set(OBJECTS) >= set(left.ycb_ids)


@pytest.fixture(scope="module")
def reached():
    """A world with a soup can, and a fitted plan that grasps it: (world, plan, path)."""
    hand, rng = hand_model.load(), np.random.default_rng(4)
    can = [i for i, item in OBJECTS.items() if item.name.endswith("tomato_soup_can")][0]
    world = simulation.World(hand, np.zeros(10), [can], [(np.eye(3), np.array([0, 0, 0.0515]))])
    while True:
        world.reset()
        plan = planning.sample(
            rng, world.grippers, models.model(can).shape.sites, *world.object_pose(0), models.MASSES[can]
        )
        if fitted := plan and world.fit(plan, 0.1):
            path = simulation.WristPath(rng, fitted, 0.1)
            if world.run(fitted.plan, 0, path, np.zeros(1)).failure is None:
                return world, fitted.plan, path


@pytest.mark.parametrize(
    ("grip", "failure"),
    [
        (None, ("missed", "dropped")),  # as it is
        (({5, 14}, 0.0, True), ("dropped",)),  # gripped, it seems, but the object stays where it is
        (({5, 14}, 0.01, True), ("penetrated",)),
        (({5, 6}, 0.0, True), ("missed",)),  # fingers alone hold nothing
    ],
)
def test_a_grasp_without_strength_fails_for_a_reason(grip, failure, reached, monkeypatch):
    world, plan, path = reached
    if grip:
        monkeypatch.setattr(world, "_grip", lambda k: grip)
    weak = dataclasses.replace(plan, strength=1e-6)
    assert world.run(weak, 0, path, np.zeros(1)).failure in failure
