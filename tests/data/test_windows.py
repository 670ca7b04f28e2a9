"""Windows of sequences, against single samples put together by hand."""

import numpy as np
import pytest

from amt.data.dexycb import DexYCB
from amt.data.windows import Windows
from amt.errors import UserError
from tests.data.layout import SUBJECTS, change, labels, write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two sequences of 7 and 3 frames, seen by 3 cameras."""
    root = tmp_path_factory.mktemp("windows")
    write(root, SUBJECTS[:1], 2, 7)
    change(root / SUBJECTS[0] / "20250709_141451" / "meta.yml", num_frames=3)
    return root


def joints(sequence, camera, frames):
    return np.concatenate([labels(0, sequence, camera, f)["joint_3d"] for f in frames])


def test_windows_of_every_camera_in_turn(root):
    windows = Windows(DexYCB(root, "s1", "train"), 3, 2)
    expected = [(0, c, range(f, f + 3)) for c in range(3) for f in (0, 2, 4)] + [(1, c, range(3)) for c in range(3)]
    assert len(windows) == len(expected)
    for i, (sequence, camera, frames) in enumerate(expected):
        window = windows[i]
        np.testing.assert_array_equal(window["joints_3d"], joints(sequence, camera, frames))
        np.testing.assert_array_equal(window["K"][:, 0, 0], [600 + camera] * 3)
        assert len(window["color"]) == 3 and all(isinstance(jpeg, bytes) for jpeg in window["color"])
        assert window["is_left"].tolist() == [sequence == 1] * 3


def test_windows_of_all_cameras_at_once(root):
    source = DexYCB(root, "s1", "train")
    windows = Windows(source, 3, 4, all_cameras=True)
    assert len(windows) == 3
    for i, (sequence, frames) in enumerate([(0, range(3)), (0, range(4, 7)), (1, range(3))]):
        expected = np.stack([joints(sequence, camera, frames) for camera in range(3)])
        np.testing.assert_array_equal(windows[i]["joints_3d"], expected)
        np.testing.assert_array_equal(windows[i]["K"][:, 0, 0, 0], [600, 601, 602])
    assert windows[1]["color"][2][1] == source[2 * 7 + 5]["color"]


def test_only_the_cameras_of_the_part(tmp_path):
    write(tmp_path, SUBJECTS[:1], 1, 4)
    whole = DexYCB(tmp_path, "s2", "train")
    whole.runs = [run for run in whole.runs if run.camera != 1]  # as if camera 1 belonged to another part
    whole._ends = np.cumsum([run.num_frames for run in whole.runs])
    window = Windows(whole, 4, 1, all_cameras=True)[0]
    np.testing.assert_array_equal(window["K"][:, 0, 0, 0], [600, 602])


def test_windows_that_cannot_be(root):
    source = DexYCB(root, "s1", "train")
    with pytest.raises(UserError, match="no sequence has 8 frames; the longest has 7"):
        Windows(source, 8, 1)
    with pytest.raises(UserError, match="stride 0"):
        Windows(source, 2, 0)
    with pytest.raises(IndexError):
        Windows(source, 3, 2)[12]
