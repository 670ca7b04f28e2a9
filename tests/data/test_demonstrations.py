"""Demonstrations are the same whatever camera saw them, and mirrored ones are mirror images."""

import shutil

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from amt.data.demonstrations import Recording, demonstration, mirrored_object, recording
from amt.data.dexycb import DexYCB
from amt.data.synthetic import models
from amt.data.ycb import USED_IDS
from amt.errors import UserError
from tests.samples import make_sample


@pytest.fixture(scope="module")
def shown(generated):
    """By sequence, what each of its cameras saw."""
    source = DexYCB(generated, "s1", "train")
    found = {}
    for clip, run in zip(source.clips(), source.runs, strict=True):
        seen = demonstration(recording(source, clip))
        found.setdefault(run.sequence, []).append(seen)
    return found


def test_cameras_of_a_sequence_show_the_same(shown):
    for first, *others in shown.values():
        for other in others:
            np.testing.assert_allclose(other.joints, first.joints, atol=1e-5)
            np.testing.assert_allclose(other.object_pos, first.object_pos, atol=1e-5)
            np.testing.assert_allclose(other.object_rot, first.object_rot, atol=1e-5)


@pytest.mark.parametrize("is_left", [False, True])
def test_hands_are_right_ones(is_left):
    """Fingers bend to the side that a right hand's palm looks to."""
    samples = [make_sample(k, is_left=is_left) for k in range(4)]
    T = np.tile(np.eye(4), (4, 1, 1))
    seen = demonstration(Recording(samples, np.arange(4) / 30, T))
    with pytest.raises(UserError, match=r"the hand is 0\.\d+ m below the table; expected z up"):
        demonstration(Recording(samples, np.arange(4) / 30, T @ np.diag([1.0, -1.0, -1.0, 1.0])))
    assert seen.mirrored == is_left
    out = np.cross(seen.joints[:, 5] - seen.joints[:, 17], seen.joints[:, 9] - seen.joints[:, 0])
    curl = (seen.joints[:, [8, 12, 16]] - seen.joints[:, [5, 9, 13]]).mean(1)
    assert np.median(np.einsum("ti,ti->t", out, curl)) > 0


@pytest.mark.parametrize("ycb_id", USED_IDS)
def test_a_mirrored_object_covers_the_mirror_image(ycb_id):
    rng = np.random.default_rng(ycb_id)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    R = R * np.linalg.det(R)
    turned = mirrored_object(R[None], ycb_id)[0]
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)
    points = models.model(ycb_id).shape.vertices
    wanted = points @ R.T * [-1, 1, 1]
    made = points @ turned.T
    distance = np.linalg.norm(wanted[:, None] - made[None], axis=-1).min(1)
    assert distance.mean() < 0.004  # the mesh of a mirrored half need not have the same vertices


def test_the_object_between_frames(shown):
    seen = shown[0][0]
    position, rotation = seen.at(np.array([-1.0, (seen.time[0] + seen.time[1]) / 2, 99.0]))
    np.testing.assert_allclose(position[[0, 2]], seen.object_pos[[0, -1]])
    np.testing.assert_allclose(position[1], seen.object_pos[:2].mean(0), atol=1e-12)
    np.testing.assert_allclose(rotation[[0, 2]], seen.object_rot[[0, -1]], atol=1e-6)


def test_what_is_no_demonstration(generated):
    source = DexYCB(generated, "s1", "train")
    held = next(clip for clip in source.clips() if source[clip.start]["grasped"] >= 0)
    whole = recording(source, held)
    with pytest.raises(UserError, match="two or more"):
        demonstration(whole._replace(samples=whole.samples[:1]))
    whole.samples[1] = whole.samples[1] | {"object_valid": np.zeros(10, bool)}
    with pytest.raises(UserError, match="frame 1 has no pose"):
        demonstration(whole)


def test_the_table_is_where_the_tag_lies(generated, tmp_path):
    """A world that was moved, cameras and tag together, shows the same on the table; without a tag it is refused."""
    root = tmp_path / "moved"
    shutil.copytree(generated, root)
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = Rotation.from_euler("xyz", [2.0, 0.3, 1.0]).as_matrix(), [0.1, -0.4, 0.9]
    for path in root.glob("calibration/extrinsics_*/extrinsics.yml"):
        content = yaml.safe_load(path.read_text())
        for name, row in content["extrinsics"].items():
            T = move @ np.vstack([np.reshape(row, (3, 4)), [0, 0, 0, 1]])
            content["extrinsics"][name] = T[:3].ravel().tolist()
        path.write_text(yaml.safe_dump(content))
    ours, theirs = (DexYCB(folder, "s1", "train") for folder in (generated, root))
    clip = ours.clips()[0]
    a, b = (demonstration(recording(source, clip)) for source in (ours, theirs))
    np.testing.assert_allclose(a.joints, b.joints, atol=1e-5)
    np.testing.assert_allclose(a.object_rot, b.object_rot, atol=1e-5)
    for path in root.glob("calibration/extrinsics_*/extrinsics.yml"):
        content = yaml.safe_load(path.read_text())
        del content["extrinsics"]["apriltag"]
        path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="expected 12 numbers of apriltag"):
        recording(DexYCB(root, "s1", "train"), clip)
