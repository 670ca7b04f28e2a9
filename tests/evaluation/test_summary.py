"""Figures, groups and intervals out of a table, against loops over its frames."""

import dataclasses
import json

import numpy as np
import pytest

from amt import metrics
from amt.evaluation.bootstrap import DRAWS, Bootstrap
from amt.evaluation.samples import with_motion
from amt.evaluation.summary import GROUPED, SHARES, groupings, summarise
from tests.evaluation.tables import table


@pytest.fixture(scope="module")
def samples():
    made = table(videos=6, frames=5, cameras=2)
    made.figures["add_s_mm"][made.object_id == 0] = np.nan
    return made


@pytest.fixture(scope="module")
def figures(samples):
    return summarise(samples)


def test_figures_are_means_of_the_frames_that_have_one(samples, figures):
    for name, values in samples.figures.items():
        assert figures[name] == pytest.approx(np.nanmean(values), rel=1e-12)
    for name, (ours, theirs) in SHARES.items():
        if ours in samples.figures and theirs in samples.figures:
            assert figures[name] == pytest.approx(samples.figures[ours].mean() / samples.figures[theirs].mean())
    assert figures["median_mpjpe_mm"] == np.median(samples.figures["mpjpe_mm"]) and figures["samples"] == 30
    right, predicted = (samples.counts[f"contact_{name}_5mm"].sum() for name in ("right", "predicted"))
    assert figures["contact_precision_5mm"] == pytest.approx(right / predicted)
    errors, seen = samples.root_relative_joint_error_mm, samples.joint_visible
    assert figures["visible_joint_mpjpe_mm"] == pytest.approx(errors[seen].mean(), rel=1e-6)
    assert figures["hidden_joint_mpjpe_mm"] == pytest.approx(errors[~seen].mean(), rel=1e-6)
    json.dumps(figures)


def test_a_figure_that_no_frame_has_is_none(samples):
    bare = samples.take(samples.object_id == 0)
    assert np.isnan(summarise(bare)["add_s_mm"])


def test_intervals_are_those_of_drawing_whole_recordings_by_hand(samples, figures):
    """Frames of both cameras of a recording stay together."""
    bootstrap = Bootstrap.of(samples)
    names = sorted({*zip(samples.subject, samples.sequence, strict=True)})
    assert bootstrap.draws.shape == (DRAWS, len(names)) and (bootstrap.draws.sum(1) == len(names)).all()
    values, drawn = samples.figures["add_s_mm"], []
    frames = [np.flatnonzero((samples.subject == s) & (samples.sequence == q)) for s, q in names]
    for draw in bootstrap.draws.astype(int):
        rows = np.concatenate([np.repeat(frames[k], times) for k, times in enumerate(draw)])
        drawn.append(np.nanmean(values[rows]) if np.isfinite(values[rows]).any() else np.nan)
    expected = np.nanquantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(figures["intervals"]["add_s_mm"], expected, rtol=1e-9)
    low, high = figures["intervals"]["contact_f1_5mm"]
    assert low < figures["contact_f1_5mm"] < high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Recordings differ in their level, and have frames that do not: 40 data sets with a mean of 50."""
    hits = 0
    for seed in range(40):
        rng, made = np.random.default_rng(seed), table(videos=40, frames=3, seed=seed)
        made.figures["mpjpe_mm"][:] = 50 + np.repeat(rng.normal(0, 10, 40), 3) + rng.normal(0, 1, 120)
        bootstrap = Bootstrap.of(made)
        total, drawn = bootstrap.totals({"mpjpe_mm": made.figures["mpjpe_mm"], "n": np.ones(120)})
        low, high = bootstrap.interval(drawn["mpjpe_mm"] / drawn["n"])
        assert 3 < high - low < 9  # 2 x 1.96 x 10 / sqrt(40) = 6.2; frames alone would give 3.6
        hits += low < 50 < high
    assert hits >= 35


def test_one_recording_has_no_interval(samples):
    one = summarise(samples.take(samples.clip == 0))
    assert np.isnan(one["intervals"]["mpjpe_mm"]).all() and one["mpjpe_mm"] > 0
    assert "of 1 recordings" in one["bootstrap"]


def test_the_seed_alone_decides(samples, figures):
    np.testing.assert_equal(summarise(samples)["intervals"], figures["intervals"])
    assert (Bootstrap.of(samples, seed=1).draws != Bootstrap.of(samples).draws).any()


def test_groups_hold_every_frame_once_and_their_own_figures(samples, figures):
    assert set(figures["groups"]) == set(groupings(samples))
    for name, groups in figures["groups"].items():
        values = groupings(samples)[name]
        assert sum(group["samples"] for group in groups) == len(samples)
        for group in groups:
            rows = values == group["value"]
            assert group["samples"] == rows.sum() > 0
            for figure in set(GROUPED) & set(samples.figures):
                known = samples.figures[figure][rows]
                expected = np.nanmean(known) if np.isfinite(known).any() else np.nan
                assert group[figure] == pytest.approx(expected, nan_ok=True)


def test_groups_are_named_by_what_the_labels_say(samples):
    found = groupings(samples)
    assert set(found["side"][samples.is_left]) == {"left"}
    assert set(found["object"][samples.object_id == 1]) == {"002_master_chef_can"}
    assert set(found["grasp"][samples.object_id == 0]) == {"no object"}
    assert set(found["grasp"][(samples.object_id > 0) & (samples.touches == 1)]) == {"touching"}
    share, text = samples.visible_share, found["visibility"]
    assert (text[(share >= 0.5) & (share < 0.75)] == "0.5 to 0.75").all() and (text[share >= 0.9] == ">= 0.9").all()


def test_joints_have_their_own_errors(samples, figures):
    assert [joint["joint"] for joint in figures["joints"]][:3] == ["wrist", "thumb_mcp", "thumb_pip"]
    for k, joint in enumerate(figures["joints"]):
        assert joint["root_relative_mm"] == pytest.approx(samples.root_relative_joint_error_mm[:, k].mean(), rel=1e-6)
        assert joint["pa_mm"] == pytest.approx(samples.aligned_joint_error_mm[:, k].mean(), rel=1e-6)
        low, high = joint["intervals"]["absolute_mm"]
        assert low < joint["absolute_mm"] < high


def test_motion_is_the_jitter_of_each_video(samples):
    """A frame is missing in one video: no acceleration goes over the gap."""
    moved = with_motion(samples.take(np.arange(len(samples)) != 7))
    values = moved.figures["jitter_m_s2"]
    assert np.isfinite(values).sum() == 5 * 3 and np.isnan(values[moved.clip == 1]).all()
    for k in (0, 2, 5):
        mine = moved.clip == k
        for name, joints in (("jitter_m_s2", moved.joints_m), ("true_jitter_m_s2", moved.true_joints_m)):
            expected = metrics.jitter(joints[mine], np.ones(5, bool), 30.0)
            assert np.nanmean(moved.figures[name][mine]) == pytest.approx(float(expected), rel=1e-4)
    still = moved.figures["relative_jitter_m_s2"][1], moved.figures["jitter_m_s2"][1]
    assert still[0] != still[1]
    assert np.isnan(with_motion(samples.take([0, 1])).figures["jitter_m_s2"]).all()


def test_a_collapse_shows_in_the_spread(samples):
    same = dataclasses.replace(samples, joints_m=np.broadcast_to(samples.joints_m[:1], samples.joints_m.shape))
    assert summarise(same)["spread_ratio"] < 1e-3 < 0.5 < summarise(samples)["spread_ratio"]
