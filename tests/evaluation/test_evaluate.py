"""The way through a data set: nothing depends on devices and batches, and columns are those of plain NumPy."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial import procrustes

from amt.data.dexycb import DexYCB
from amt.data.quarantine import Quarantine
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.columns import Measure, joint_visible
from amt.evaluation.evaluate import Reading, Video, ahead, evaluate, grouped, speeds
from amt.evaluation.samples import ARRAYS
from amt.evaluation.summary import summarise
from tests.data import layout
from tests.evaluation import tiny
from tests.evaluation.official.conftest import UNLABELLED, labels

RELATIVE = np.random.default_rng(0).normal(0, 0.04, (21, 3))
RELATIVE[0] = 0
MEAN = TrainingMean(RELATIVE, RELATIVE, RELATIVE, 0.5 + 2 * RELATIVE[:, :2], np.array([0.02, 0.03, 0.05]), 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three videos of four frames, one of which has no labelled hand."""
    root = tmp_path_factory.mktemp("data")
    layout.write(root, layout.SUBJECTS[2:], num_frames=4, make=labels, size=(640, 480))
    return DexYCB(root, "s0", "test", with_seg=True)


def run(source, folder, devices, batch_size):
    predictor, told = tiny.predictor(devices), []
    measure = Measure(source, MEAN, predictor, {"split": "s0"})
    reading = Reading(batch_size, 0.3, Quarantine(folder))
    samples, unreadable = evaluate(predictor, source, source.clips(), measure, reading, told.append)
    assert told == [4, 4, 4] and unreadable == 0
    return samples


@pytest.fixture(scope="module")
def one(source, tmp_path_factory):
    """On one device, a video at a time."""
    return run(source, tmp_path_factory.mktemp("one"), 1, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "batch_size"), [(2, 32), (8, 7)])
def test_any_number_of_devices_and_any_batch_give_the_same_table(source, one, tmp_path, devices, batch_size):
    samples = run(source, tmp_path, devices, batch_size)
    ours, theirs = summarise(samples), summarise(one)
    for name, value in theirs.items():
        if isinstance(value, float):
            # Single precision: an aligned error of untrained weights was seen to move by 1.1e-5.
            assert ours[name] == pytest.approx(value, rel=5e-5, abs=1e-6, nan_ok=True), name
    for name in ARRAYS:
        a, b = getattr(samples, name), getattr(one, name)
        if a.dtype.kind == "f":  # single precision, through looks at crops that hang on the looks before
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max()), err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.slow
def test_every_labelled_frame_has_a_row_that_says_which_it_is(source, one):
    camera, frame = UNLABELLED
    assert one.index.tolist() == [i for i in range(12) if i != 4 * camera + frame]
    for row, i in enumerate(one.index):
        sequence, camera, frame = source.locate(int(i))
        assert (one.sequence[row], one.subject[row]) == (sequence.folder.name, sequence.folder.parent.name)
        assert (one.camera[row], one.frame[row], one.clip[row]) == (layout.SERIALS[camera], frame, camera)
        sample = source.labels(int(i))
        np.testing.assert_array_equal(one.true_joints_m[row], sample["joints_3d"])
        assert one.object_id[row] == 18 and one.rate_hz[row] == 30 and one.grasp_kind[row] == ""
        assert one.image_size_px[row].tolist() == [640, 480] and one.visible_by_seg[row]


@pytest.mark.slow
def test_joint_errors_are_those_of_plain_numpy(one):
    """Procrustes by SciPy, whose disparity is of standardised shapes and may mirror: those frames are left out."""
    ours, truth = one.joints_m.astype(float), one.true_joints_m.astype(float)
    absolute = np.linalg.norm(ours - truth, axis=-1) * 1000
    relative = np.linalg.norm((ours - ours[:, :1]) - (truth - truth[:, :1]), axis=-1) * 1000
    np.testing.assert_allclose(one.joint_error_mm, absolute, rtol=1e-4)
    np.testing.assert_allclose(one.root_relative_joint_error_mm, relative, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(one.figures["mpjpe_mm"], relative.mean(-1), rtol=1e-4)
    np.testing.assert_allclose(one.figures["absolute_mpjpe_mm"], absolute.mean(-1), rtol=1e-4)
    compared = 0
    for i in range(len(one)):
        a, b, _ = procrustes(truth[i], ours[i])
        centred = truth[i] - truth[i].mean(0)
        error = np.linalg.norm(a - b, axis=-1) * np.linalg.norm(centred) * 1000
        proper = np.linalg.det(np.linalg.lstsq(ours[i] - ours[i].mean(0), b, rcond=None)[0]) > 0
        if proper:
            np.testing.assert_allclose(one.aligned_joint_error_mm[i], error, rtol=1e-3, atol=1e-2)
            compared += 1
    assert compared >= 3


@pytest.mark.slow
def test_areas_and_shares_are_counted_threshold_by_threshold(one):
    for name, errors, low, high in (
        ("pck_auc_50mm", one.root_relative_joint_error_mm, 0, 50),
        ("absolute_pck_auc_20_50mm", one.joint_error_mm, 20, 50),
        ("pa_pck_auc_20_50mm", one.aligned_joint_error_mm, 20, 50),
        ("pck_2d_auc_30px", one.joint_error_2d_px, 0, 30),
    ):
        limits = np.linspace(low, high, 100)
        shares = (errors[:, :, None] <= limits).mean(1)
        area = np.trapezoid(shares, limits, axis=-1) / (high - low)
        np.testing.assert_allclose(one.figures[name], area, atol=1e-3)  # float32 thresholds, one joint may change sides
    assert one.figures["pa_pck_auc_20_50mm"].max() > 0
    np.testing.assert_allclose(one.figures["pck_2d_share"], (one.joint_error_2d_px <= 22.4).mean(-1))


def test_a_joint_is_visible_where_the_segmentation_shows_a_hand():
    seg = np.zeros((1, 40, 60), np.uint8)
    seg[0, 10:20, 30:50] = 255
    seg[0, 10:20, 50:55] = 3
    joints = np.full((1, 21, 2), 0.0)
    joints[0, :6] = [[35.4, 15.2], [29.6, 9.1], [28.4, 15], [52, 15], [50.4, 15], [49, 45]]
    expected = [True, True, False, False, True, False] + [False] * 15
    assert joint_visible({"joints_2d": joints, "seg": seg}, (60, 40))[0].tolist() == expected
    joints[0, 6:] = [[-0.6, 3], [59.4, 39.4], [59.6, 3]] + [[5, 5]] * 12
    inside = joint_visible({"joints_2d": joints}, (60, 40))[0]
    assert inside[:9].tolist() == [True] * 5 + [False, False, True, False] and inside[9:].all()


def video(count, side=4):
    numbers = np.arange(count)
    return Video(numbers, numbers, numbers >= 0, {"x": numbers}, np.zeros((count, side, side, 3), np.uint8))


def sizes(groups: Iterator[Video]) -> list[int]:
    return [len(group.samples) for group in groups]


def test_videos_are_joined_up_to_a_batch_and_never_cut():
    assert sizes(grouped([video(3), video(3), video(3)], 7)) == [6, 3]
    assert sizes(grouped([video(9), video(2)], 7)) == [9, 2]
    assert sizes(grouped([video(2), video(2, side=5), video(2, side=5)], 7)) == [2, 4]
    assert sizes(grouped([], 7)) == []
    joined = next(grouped([video(2), video(3)], 7))
    assert joined.labels["x"].tolist() == [0, 1, 0, 1, 2] and joined.images.shape == (5, 4, 4, 3)


def test_what_is_begun_ahead_comes_in_order_and_errors_come_through():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        assert list(ahead(pool, lambda x: x * x, range(5), 2)) == [0, 1, 4, 9, 16]
        begun = []
        results = ahead(pool, lambda x: begun.append(x) or 1 // (x - 1), range(9), 2)
        assert next(results) == -1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert max(begun) <= 3


@pytest.mark.slow
def test_inference_alone_is_timed(source, tmp_path):
    predictor, reading = tiny.predictor(1), Reading(7, 0.3, Quarantine(tmp_path))
    measure = Measure(source, MEAN, predictor, {})
    found = speeds(predictor, source, source.clips()[:1], measure, reading)
    assert 0 < found["inference_samples_per_s"] < 1e6
    assert found["share_of_inference_speed"] > 0 and found["share_of_inference_processor_time"] > 0
