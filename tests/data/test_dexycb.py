"""The DexYCB reader against a layout that this test writes by hand from the dataset's description."""

import pickle
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cv2
import grain.python as grain
import numpy as np
import pytest
import yaml

from amt.data import dexycb, files
from amt.data.dexycb import DexYCB, find_root, make_runs, part_of
from amt.errors import UserError
from tests.data.layout import NUM_FRAMES, POINTER, SUBJECTS, change_arrays, cut, first, labels, save, write


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("dexycb")
    write(root)
    return root


@pytest.fixture
def fresh(tmp_path):
    write(tmp_path, SUBJECTS[:1], 1)
    return tmp_path


def test_order_is_sequence_then_camera_then_frame(written):
    source = DexYCB(written, "s0", "train", with_seg=True)
    order = [(s, q, c, f) for s in range(3) for q in range(4) for c in range(3) for f in range(NUM_FRAMES)]
    assert len(source) == len(order)
    for i in (0, 1, 3, 9, 40, len(order) - 1):
        s, q, c, f = order[i]
        expected, sample = labels(*order[i]), source[i]
        np.testing.assert_array_equal(sample["joints_3d"], expected["joint_3d"][0])
        np.testing.assert_array_equal(sample["joints_2d"], expected["joint_2d"][0])
        np.testing.assert_array_equal(sample["hand_pose"], expected["pose_m"][0])
        np.testing.assert_array_equal(sample["object_pose"][:2], expected["pose_y"])
        np.testing.assert_array_equal(sample["seg"], expected["seg"])
        np.testing.assert_array_equal(sample["K"], [[600 + c, 0, 320.5], [0, 610, 240], [0, 0, 1]])
        np.testing.assert_array_equal(
            sample["T_world_camera"], [[1, 0, 0, c], [0, 0, -1, 2], [0, 1, 0, 3], [0, 0, 0, 1]]
        )
        np.testing.assert_allclose(sample["betas"], np.full(10, 0.1 * s), rtol=1e-6)
        assert sample["is_left"] == (q == 1) and sample["joints_valid"] and sample["hand_pose_valid"]
        pixels = cv2.imdecode(np.frombuffer(sample["color"], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (12, 16, 3) and abs(int(pixels.mean()) - 10 * f) <= 1


def test_clips_are_one_camera_of_one_sequence(written):
    source = DexYCB(written, "s0", "train")
    clips = source.clips()
    assert [i for clip in clips for i in clip] == list(range(len(source)))
    for clip in clips:
        places = [source.locate(i) for i in clip]
        assert len({(sequence.folder, camera) for sequence, camera, _ in places}) == 1
        assert [frame for *_, frame in places] == list(range(NUM_FRAMES))


def test_objects_are_padded(written):
    sample = DexYCB(written)[0]
    assert sample["object_ids"].tolist() == [4, 18] + [0] * 8
    assert sample["object_valid"].tolist() == [True, True] + [False] * 8
    assert sample["object_pose"].shape == (10, 3, 4) and not sample["object_pose"][2:].any()
    assert sample["grasped"] == 1


def test_missing_labels_become_masks(fresh):
    path = first(fresh, "labels_000000.npz")
    content = labels(0, 0, 0, 0)
    content["joint_3d"][:] = content["joint_2d"][:] = -1
    content["pose_m"][:] = content["pose_y"][0] = 0
    np.savez(path, **content)
    sample = DexYCB(fresh)[0]
    assert not sample["joints_valid"] and not sample["hand_pose_valid"]
    assert sample["object_valid"].tolist() == [False, True] + [False] * 8
    assert not sample["joints_3d"].any() and not sample["joints_2d"].any()


def test_a_pose_without_translation_and_a_scene_without_objects(fresh):
    content = labels(0, 0, 0, 0)
    content |= {"pose_m": content["pose_m"][:, :48], "pose_y": np.zeros((0, 3, 4), np.float32)}
    np.savez(first(fresh, "labels_000000.npz"), **content)
    meta_path = first(fresh, "meta.yml")
    save(meta_path, yaml.safe_load(meta_path.read_text()) | {"ycb_ids": [], "ycb_grasp_ind": 0})
    sample = DexYCB(fresh)[0]
    np.testing.assert_array_equal(sample["hand_pose"], np.append(content["pose_m"][0], [0, 0, 0]))
    assert sample["grasped"] == -1 and not sample["object_valid"].any() and not sample["object_ids"].any()


def test_a_generated_hand_that_grasps_nothing(fresh):
    meta_path = first(fresh, "meta.yml")
    save(meta_path, yaml.safe_load(meta_path.read_text()) | {"bare_hand": True})
    assert DexYCB(fresh)[0]["grasped"] == -1


def test_depth_in_metres(fresh):
    depth = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 10
    cv2.imwrite(str(first(fresh, "color_000000.jpg").parent / "aligned_depth_to_color_000000.png"), depth)
    sample = DexYCB(fresh, with_depth=True)[0]
    assert sample["depth"].dtype == np.float32 and sample["depth"][11, 15] == np.float32(1.91)
    np.testing.assert_allclose(sample["depth"], depth / 1000, rtol=1e-6)
    with pytest.raises(UserError, match="aligned_depth_to_color_000001.png: not there"):
        DexYCB(fresh, with_depth=True)[1]


def test_depth_of_another_kind(fresh):
    path = first(fresh, "color_000000.jpg").parent / "aligned_depth_to_color_000000.png"
    cv2.imwrite(str(path), np.zeros((12, 16), np.uint8))
    with pytest.raises(UserError, match=r"aligned_depth.*found uint8 of shape \(12, 16\)"):
        DexYCB(fresh, with_depth=True)[0]


def test_empty_sequences_keep_the_others_in_their_parts(tmp_path):
    write(tmp_path, SUBJECTS[:1])
    folders = sorted((tmp_path / SUBJECTS[0]).iterdir())
    shutil.rmtree(folders[1])
    folders[1].mkdir()
    meta_path = folders[2] / "meta.yml"
    save(meta_path, yaml.safe_load(meta_path.read_text()) | {"num_frames": 0})
    train, held_out = DexYCB(tmp_path, "s0", "train"), DexYCB(tmp_path, "s0", "val")
    assert train.empty == [folders[1], folders[2]]
    assert len(train) == 2 * 3 * NUM_FRAMES and len(held_out) == 3 * NUM_FRAMES
    np.testing.assert_array_equal(held_out[0]["joints_3d"], labels(0, 4, 0, 0)["joint_3d"][0])
    np.testing.assert_array_equal(train[3 * NUM_FRAMES]["joints_3d"], labels(0, 3, 0, 0)["joint_3d"][0])


def test_grain_reads_it_and_it_travels_to_workers(written):
    source = pickle.loads(pickle.dumps(DexYCB(written, "s0", "val")))
    expected = [labels(s, 4, c, f)["joint_3d"][0] for s in (0, 1) for c in range(3) for f in range(NUM_FRAMES)]
    batch = next(iter(grain.MapDataset.source(source).map(lambda s: s["joints_3d"]).batch(len(expected))))
    np.testing.assert_array_equal(batch, expected)


def test_part_of_a_download_keeps_its_splits(tmp_path):
    write(tmp_path, [SUBJECTS[2]])
    assert len(DexYCB(tmp_path, "s0", "test")) == 3 * NUM_FRAMES
    with pytest.raises(UserError, match="s0 has no val"):
        DexYCB(tmp_path, "s0", "val")


def full_size():
    """(subject, index, cameras, frames) of 1,000 sequences: 58,188 = 465,504 / 8 frames in s0 train's 800."""
    sequences, seen = [], 0
    for subject in range(10):
        for index in range(100):
            trained = (index + 1) % 5 != 0
            sequences.append((subject, index, 8, 73 if trained and seen < 588 else 72))
            seen += trained
    return sequences


@pytest.mark.parametrize(
    ("split", "part", "runs"),
    [
        *(("s0", "train", 800 * 8), ("s0", "val", 40 * 8), ("s0", "test", 160 * 8)),
        *(("s1", "train", 700 * 8), ("s1", "val", 100 * 8), ("s1", "test", 200 * 8)),
        *(("s2", "train", 1000 * 6), ("s2", "val", 1000), ("s2", "test", 1000)),
        *(("s3", "train", 750 * 8), ("s3", "val", 100 * 8), ("s3", "test", 150 * 8)),
    ],
)
def test_official_splits_by_their_size(split, part, runs):
    assert len(make_runs(full_size(), split, part)) == runs


def test_s0_train_has_all_its_samples():
    assert sum(run.num_frames for run in make_runs(full_size(), "s0", "train")) == 465_504


def test_all_is_every_recording():
    sequences = [(s, q, 8, 2) for s in range(10) for q in range(5)]
    runs = dexycb.make_runs(sequences, "s0", "all")
    parts = [dexycb.make_runs(sequences, "s0", part) for part in ("train", "val", "test")]
    assert sorted(runs) == sorted(sum(parts, [])) and len(runs) == 10 * 5 * 8


def test_official_splits_by_their_definition():
    """Which subjects, sequences and cameras the toolkit lists for each part."""
    seen = {split: Counter() for split in dexycb.SPLITS}
    for s in range(10):
        for q in range(100):
            for c in range(8):
                for split in dexycb.SPLITS:
                    seen[split][part_of(split, s, q, c), {"s0": (s, q % 5), "s1": s, "s2": c, "s3": q // 5}[split]] += 1
    parts = {
        split: {part: {k for p, k in counts if p == part} for part in dexycb.PARTS if part != "all"}
        for split, counts in seen.items()
    }
    assert parts["s0"]["val"] == {(0, 4), (1, 4)} and parts["s0"]["test"] == {(s, 4) for s in range(2, 10)}
    assert parts["s1"] == {"train": {0, 1, 2, 3, 4, 5, 9}, "val": {6}, "test": {7, 8}}
    assert parts["s2"] == {"train": set(range(6)), "val": {6}, "test": {7}}
    assert parts["s3"]["val"] == {3, 19} and parts["s3"]["test"] == {7, 11, 15}
    assert parts["s3"]["train"] == set(range(20)) - {3, 7, 11, 15, 19}


def test_root_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DEX_YCB_DIR", str(tmp_path))
    assert find_root("") == tmp_path
    with pytest.raises(UserError, match="config.data.root.*not a folder"):
        find_root(str(tmp_path / "nowhere"))
    monkeypatch.delenv("DEX_YCB_DIR")
    with pytest.raises(UserError, match="DEX_YCB_DIR"):
        find_root("")


def spoil(root, **arrays):
    change_arrays(first(root, "labels_000000.npz"), **arrays)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda root: first(root, "labels_000000.npz").write_bytes(b""), "labels_000000.npz"),
        (lambda root: cut(first(root, "labels_000000.npz")), "labels_000000.npz"),
        (lambda root: np.savez(first(root, "labels_000000.npz"), seg=0), "labels_000000.npz.*pose_y"),
        (lambda root: spoil(root, joint_3d=np.full((1, 21, 3), np.nan)), "labels_000000.npz: joint_3d has 63 values"),
        (lambda root: spoil(root, pose_m=np.zeros((1, 50))), r"labels_000000.npz: pose_m.*\(1, 50\)"),
        (lambda root: spoil(root, pose_y=np.zeros((3, 3, 4))), r"labels_000000.npz: pose_y.*\(3, 3, 4\)"),
        (lambda root: spoil(root, joint_2d=np.zeros((1, 42))), r"labels_000000.npz: joint_2d.*\(1, 42\)"),
        (lambda root: first(root, "color_000000.jpg").unlink(), "color_000000.jpg: not there"),
        (lambda root: first(root, "meta.yml").unlink(), "meta.yml: not there"),
        (lambda root: save(first(root, "meta.yml"), {"serials": []}), "meta.yml: no num_frames"),
        (lambda root: first(root, "meta.yml").write_text("a: [1"), "meta.yml: cannot be read"),
        (lambda root: first(root, "mano.yml").unlink(), "mano.yml: not there"),
        (lambda root: save(first(root, "mano.yml"), {"betas": [1]}), "mano.yml: betas"),
        (lambda root: first(root, "extrinsics.yml").unlink(), "extrinsics.yml: not there"),
        (lambda root: first(root, "*_640x480.yml").unlink(), "836212060125_640x480.yml: not there"),
        (lambda root: save(first(root, "*_640x480.yml"), {"color": {"fx": 1}}), "836212060125.*fy"),
        (lambda root: (root / SUBJECTS[0]).rename(root / "elsewhere"), "no sequences"),
        (lambda root: root.rename(root.with_name("moved")), "no such folder"),
    ],
)
def test_a_broken_root_is_named(fresh, damage, says):
    damage(fresh)
    with pytest.raises(UserError, match=says):
        DexYCB(fresh)[0]


def test_an_unknown_split_and_an_index_outside(written):
    with pytest.raises(UserError, match="s9"):
        DexYCB(written, "s9")
    with pytest.raises(IndexError):
        DexYCB(written)[10_000]


def test_yaml_reads_tuples_and_runs_nothing(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("a: !!python/tuple [1, 2]")
    assert files.read_yaml(path) == {"a": (1, 2)}
    path.write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(UserError, match="a.yml"):
        files.read_yaml(path)
    assert not (tmp_path / "made").exists()


def test_threads_read_arrays_one_after_the_other(tmp_path, monkeypatch):
    """CPython 3.11 fails where two threads parse headers at once (gh-106905), too seldom to be seen here."""
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    load, inside, most = np.load, [], []

    def slow(path):
        inside.append(path)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return load(path)

    monkeypatch.setattr(files.np, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: files.read_arrays(tmp_path / "a.npz", ("x",))["x"].sum(), range(8)))
    assert read == [3] * 8 and max(most) == 1


@pytest.fixture
def official(tmp_path):
    """A subject by DexYCB's name with its 100 folders, of which the second, the fifth and the sixth hold something."""
    root, name = tmp_path / "official", "20200709-subject-01"
    write(root, [name], 3, 1)
    for q, place in enumerate((2, 5, 6)):
        (root / name / f"20200709_14145{q}").rename(root / name / f"20200709_{100000 + place}")
    for place in set(range(1, 101)) - {2, 5, 6}:
        (root / name / f"20200709_{100000 + place}").mkdir()
    return root


def names(source) -> list[int]:
    """The numbers in the names of the sequences of a part."""
    return sorted({int(source.sequences[run.sequence].folder.name[-2:]) for run in source.runs})


def test_a_missing_sequence_never_moves_others_into_another_part(official):
    """s0 holds out every fifth of the 100; s1 and s2 do not count them."""
    assert names(DexYCB(official, "s0", "train")) == [2, 6] and names(DexYCB(official, "s0", "val")) == [5]
    shutil.rmtree(official / "20200709-subject-01" / "20200709_100001")
    for split in ("s0", "s3"):
        with pytest.raises(
            UserError, match=rf"20200709-subject-01 has 99 sequence folders; split {split} counts 100 of"
        ):
            DexYCB(official, split, "train")
    for split, part in (("s0", "all"), ("s1", "train"), ("s2", "train")):
        assert names(DexYCB(official, split, part)) == [2, 5, 6]
    (official / "20200709-subject-01").rename(official / "20250709-subject-01")  # a lab's own recordings
    assert names(DexYCB(official, "s0", "val")) == [6]


def test_a_generated_sequence_keeps_its_place_by_its_name(official):
    """Five of each of two subjects; those that are missing are not written yet."""
    (official / "generator.json").write_text('{"num_sequences": 10, "num_subjects": 2}')
    for folder in (official / "20200709-subject-01").iterdir():
        place = int(folder.name[-2:])
        folder.rename(folder.with_name(f"20200709_{place - 2:06d}")) if place in (2, 5, 6) else folder.rmdir()
    assert [s.index for s in DexYCB(official, part="all").sequences] == [0, 3, 4]
    assert names(DexYCB(official, "s0", "val")) == [4]
    (official / "20200709-subject-01").rename(official / "20200813-subject-02")
    (official / "20200813-subject-02/20200709_000000").rename(official / "20200813-subject-02/20200813_000007")
    shutil.rmtree(official / "20200813-subject-02/20200709_000003")
    shutil.rmtree(official / "20200813-subject-02/20200709_000004")
    assert [(s.subject, s.index) for s in DexYCB(official, part="all").sequences] == [(1, 2)]


@pytest.mark.parametrize("name", ["color_000000.jpg", "labels_000000.npz", "meta.yml", "extrinsics.yml"])
def test_a_git_lfs_pointer_is_called_one(fresh, name):
    first(fresh, name).write_text(POINTER)
    with pytest.raises(files.FileError, match=rf"{name}: a Git LFS pointer, not the file: run `git lfs pull`"):
        DexYCB(fresh)[0]
