"""Validation of a small good data set, and of the same one spoiled in one way at a time."""

import shutil

import cv2
import numpy as np
import pytest

from amt.data.validation import ERRORS, FIRST, WARNINGS, Report, check_sequences, survey
from amt.errors import UserError
from tests.data.layout import SERIALS, SUBJECTS, change, change_arrays, cut, first, real_labels, save, write

NUM_FRAMES = 2
LABELS, COLOR = "labels_000000.npz", "color_000000.jpg"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """2 sequences x 3 cameras x 2 frames, with depth and world poses."""
    root = tmp_path_factory.mktemp("good") / "data"
    write(root, SUBJECTS[:1], 2, NUM_FRAMES, real_labels, (640, 480))
    for path in root.rglob("color_*.jpg"):
        depth = path.with_name(path.name.replace("color", "aligned_depth_to_color")).with_suffix(".png")
        cv2.imwrite(str(depth), np.full((480, 640), 600, np.uint16))
    for path in root.rglob("meta.yml"):
        np.savez(path.with_name("pose.npz"), pose_y=np.ones((NUM_FRAMES, 2, 7)), pose_m=np.ones((NUM_FRAMES, 1, 51)))
    return root


@pytest.fixture
def root(good, tmp_path):
    return shutil.copytree(good, tmp_path / "data")


def check(root, num_workers=0) -> Report:
    found = survey(root)
    for part in check_sequences(found, num_workers):
        found.report.merge(part)
    return found.report


def test_a_good_set_has_nothing(good):
    report = check(good)
    assert report.counts == {} and report.frames == 2 * 3 * NUM_FRAMES == survey(good).num_frames


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def scaled(name, factor, **others):
    """Multiplies an array of the first labels."""

    def spoil(root):
        path = first(root, LABELS)
        change_arrays(path, **{name: arrays(path)[name] * np.float32(factor)})

    return spoil


def with_labels(**changed):
    return lambda root: change_arrays(first(root, LABELS), **changed)


def edited(name, function):
    """Applies `function` to an array of the first labels, in place."""

    def spoil(root):
        path = first(root, LABELS)
        content = arrays(path)
        function(content[name])
        np.savez(path, **content)

    return spoil


def shifted(joints):
    joints[0, 7, 0] += 3


def unturned(poses):
    poses[1, :, :3] = np.eye(3)


def mirrored(poses):
    poses[0, 0, :3] *= -1


def still(pose):
    pose[0, :3] = 0


def dot(seg):
    seg[5, 5] = 9


def smaller_image(root):
    cv2.imwrite(str(first(root, COLOR)), np.zeros((240, 320, 3), np.uint8))


def two_identities(root):
    path = first(root, "extrinsics.yml")
    rows = dict.fromkeys(SERIALS[:2], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]) | {SERIALS[2]: list(np.eye(4)[:3].ravel())}
    rows[SERIALS[2]][3] = 0.5
    save(path, {"extrinsics": {serial: [float(x) for x in row] for serial, row in rows.items()}})


def far_camera(root):
    path = first(root, "extrinsics.yml")
    text = path.read_text().replace("-1, 2,", "-1, 2000,", 1)
    assert text != path.read_text()
    path.write_text(text)


def model_in_millimetres(root):
    folder = root / "models" / "005_tomato_soup_can"
    folder.mkdir(parents=True)
    (folder / "points.xyz").write_text("0 0 0\n68 68 102\n")


def without_seg(root):
    path = first(root, LABELS)
    np.savez(path, **{name: array for name, array in arrays(path).items() if name != "seg"})


def other_world_poses(root):
    change_arrays(first(root, "pose.npz"), pose_y=np.ones((2, 3, 7)))


def empty_folder(root):
    folder = sorted((root / SUBJECTS[0]).iterdir())[1]
    shutil.rmtree(folder)
    folder.mkdir()


def meta(**fields):
    return lambda root: change(first(root, "meta.yml"), **fields)


def intrinsics(root):
    path = first(root, "*_640x480.yml")
    save(path, {"color": {"fx": 0.9, "fy": 1.2, "ppx": 0.5, "ppy": 0.5}})
    for labels in root.rglob(f"{SERIALS[0]}/labels_*.npz"):  # that agree with it, so that only the unit is wrong
        joints = arrays(labels)["joint_3d"]
        uv = joints[..., :2] / joints[..., 2:] * [0.9, 1.2] + 0.5
        change_arrays(labels, joint_2d=uv.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "where", "spoil"),
    [
        ("missing file", COLOR, lambda root: first(root, COLOR).unlink()),
        ("missing file", LABELS, lambda root: first(root, LABELS).unlink()),
        ("missing file", SERIALS[0], lambda root: shutil.rmtree(first(root, SERIALS[0]))),
        ("missing file", "meta.yml", lambda root: first(root, "meta.yml").unlink()),
        ("missing file", "mano.yml", lambda root: first(root, "mano.yml").unlink()),
        ("missing file", SERIALS[1], lambda root: (root / f"calibration/intrinsics/{SERIALS[1]}_640x480.yml").unlink()),
        ("broken file", LABELS, lambda root: cut(first(root, LABELS))),
        ("broken file", "seg", without_seg),
        ("broken file", "meta.yml", lambda root: first(root, "meta.yml").write_text("a: [")),
        ("broken file", "mano.yml", lambda root: save(first(root, "mano.yml"), {"betas": [float("nan")] * 10})),
        ("unreadable image", COLOR, lambda root: cut(first(root, COLOR))),
        ("unreadable image", "depth", lambda root: cut(first(root, "aligned_depth_to_color_000000.png"))),
        ("empty sequence", "20250709_141451", empty_folder),
        ("empty sequence", "20250709_141450", meta(num_frames=0)),
        ("wrong meta", "ycb_grasp_ind is 2", meta(ycb_grasp_ind=2)),
        ("wrong meta", "22", meta(ycb_ids=[4, 22])),
        ("wrong meta", "mano_sides", meta(mano_sides=["both"])),
        ("wrong shape", "joint_3d", with_labels(joint_3d=np.zeros((20, 3)))),
        ("wrong shape", "pose_m", with_labels(pose_m=np.zeros((1, 50)))),
        ("wrong shape", "pose_y", with_labels(pose_y=np.zeros((3, 3, 4)))),
        ("wrong shape", "seg", with_labels(seg=np.zeros((240, 320), np.uint8))),
        ("wrong shape", "320x240", smaller_image),
        ("not finite", "joint_3d has 63", scaled("joint_3d", np.nan)),
        ("not finite", "pose_y has 24", scaled("pose_y", np.inf)),
        ("wrong projection", "3.0 px", edited("joint_2d", shifted)),
        ("wrong projection", "behind", scaled("joint_3d", -1)),
        ("wrong units", "joint_3d", scaled("joint_3d", 1000)),
        ("wrong units", "joint_3d", scaled("joint_3d", 100)),
        ("wrong units", "fx is 0.9", intrinsics),
        ("wrong units", SERIALS[0], far_camera),
        ("wrong units", "005_tomato_soup_can", model_in_millimetres),
        ("identity pose", "object 18 is not turned", edited("pose_y", unturned)),
        ("identity pose", "orientation", edited("pose_m", still)),
        ("identity pose", f"{SERIALS[0]}, {SERIALS[1]}", two_identities),
        ("not a rotation", "object 4", edited("pose_y", mirrored)),
        ("missing depth", "aligned_depth", lambda root: first(root, "aligned_depth_to_color_000001.png").unlink()),
        ("incomplete label", "joints without pose_m", scaled("pose_m", 0)),
        ("unknown segment", "[9]", edited("seg", dot)),
        ("doubtful world poses", "not there", lambda root: first(root, "pose.npz").unlink()),
        ("doubtful world poses", "(2, 3, 7)", other_world_poses),
        ("left-over file", "color_000002", lambda root: first(root, COLOR).with_name("color_000002.jpg").touch()),
    ],
)  # fmt: skip
def test_each_fault_is_found_and_nothing_else(root, kind, where, spoil):
    spoil(root)
    report = check(root)
    assert kind in ERRORS + WARNINGS
    assert report.counts == {kind: 1}
    assert where in report.first[kind][0] and str(root) in report.first[kind][0]


def test_millimetres_everywhere_in_a_label(root):
    path = first(root, LABELS)
    content = arrays(path)
    content["pose_y"][:, :, 3] *= 1000
    content["joint_3d"] *= 1000
    np.savez(path, **content)
    assert check(root).counts == {"wrong units": 3}  # the hand and both objects


def test_missing_labels_are_no_fault(root):
    content = real_labels(0, 0, 0, 0)
    content["joint_3d"][:] = content["joint_2d"][:] = -1
    content["pose_m"][:] = content["pose_y"][:] = 0
    np.savez(first(root, LABELS), **content)
    assert check(root).counts == {}


def test_a_set_without_depth_or_models_is_good(root):
    for path in root.rglob("aligned_depth*"):
        path.unlink()
    assert check(root).counts == {}


def test_many_faults_are_counted_and_the_first_are_shown(root):
    for path in root.rglob("labels_*.npz"):
        path.unlink()
    report = check(root)
    assert report.counts == {"missing file": 2 * 3 * NUM_FRAMES}
    assert report.first["missing file"] == [
        f"{p}: not there; expected the labels of a DexYCB frame" for p in all_labels(root)
    ]


def all_labels(root):
    folders = [folder / serial for folder in sorted((root / SUBJECTS[0]).iterdir()) for serial in SERIALS]
    return [folder / f"labels_{n:06d}.npz" for folder in folders for n in range(NUM_FRAMES)][:FIRST]


@pytest.mark.slow
def test_processes_find_the_same(root):
    for path in sorted(root.rglob("labels_*.npz"))[::2]:
        path.unlink()
    cut(first(root, COLOR))
    alone, together = check(root), check(root, 2)
    assert together.counts == alone.counts and together.first == alone.first and together.frames == alone.frames


def test_a_folder_without_sequences(tmp_path):
    with pytest.raises(UserError, match="no sequences"):
        survey(tmp_path)


def test_a_subject_of_dexycb_without_all_its_sequences_is_a_warning(root):
    (root / SUBJECTS[0]).rename(root / "20200709-subject-01")
    report = check(root)
    assert report.counts == {"incomplete subject": 1} and report.count(WARNINGS) == 1
    (line,) = report.first["incomplete subject"]
    assert line.endswith("20200709-subject-01: 2 sequence folders; the splits s0 and s3 count 100")
    (root / "generator.json").write_text("{}")
    assert check(root).counts == {}
