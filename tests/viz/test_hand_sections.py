"""The hand's part of a report against plain counting."""

import re

import numpy as np
import pytest

from amt import metrics
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.summary import summarise
from amt.viz.hand_sections import joints_section, mean_errors_mm, pck_section
from tests.evaluation.tables import table

RNG = np.random.default_rng(3)
MEAN = TrainingMean(
    joints=RNG.normal(0, 0.05, (21, 3)),
    aligned_joints=RNG.normal(0, 0.05, (21, 3)),
    skeleton=RNG.normal(0, 0.05, (21, 3)),
    uv=RNG.random((21, 2)),
    object_offset=np.zeros(3),
    samples=1,
)
SAMPLES = table(3, 7, noise=0.02)
FIGURES = summarise(SAMPLES)
THEIRS = mean_errors_mm(SAMPLES, MEAN)
COLUMNS = (SAMPLES.root_relative_joint_error_mm, SAMPLES.joint_error_mm, SAMPLES.aligned_joint_error_mm)


def test_the_mean_is_compared_as_weights_are():
    errors, truth = THEIRS, SAMPLES.true_joints_m.astype(np.float64)
    for i in (0, 20):
        relative = truth[i] - truth[i, 0]
        np.testing.assert_allclose(
            errors["root_relative"][i], 1000 * np.linalg.norm(MEAN.joints - relative, axis=-1), rtol=1e-5
        )
        x, y = MEAN.skeleton - MEAN.skeleton.mean(0), truth[i] - truth[i].mean(0)
        U, S, Vt = np.linalg.svd(y.T @ x)
        sign = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
        ours = (S * np.diag(sign)).sum() / (x**2).sum() * x @ (U @ sign @ Vt).T
        np.testing.assert_allclose(errors["aligned"][i], 1000 * np.linalg.norm(ours - y, axis=-1), rtol=1e-3)
    # The mean hand with its wrist at the mean wrist: best in the mean over frames that differ in nothing else.
    assert errors["absolute"].shape == (21, 21)
    place = truth[:, 0].mean(0)
    np.testing.assert_allclose(
        errors["absolute"][4], 1000 * np.linalg.norm(MEAN.joints + place - truth[4], axis=-1), rtol=1e-5
    )


def test_curves_say_the_share_below_20_mm_and_the_area():
    charts = pck_section(SAMPLES, THEIRS, FIGURES).charts
    for chart, errors in zip(charts, COLUMNS, strict=True):
        share = (errors <= 20).mean()
        alt = re.search('aria-label="([^"]*)"', chart.svg)[1]
        assert f"{share:.1%} of the joints within 20 mm" in alt
        # The area below a step function up to 50 mm: the mean of what each error leaves of it.
        area = np.clip(1 - errors / 50, 0, None).mean()
        assert float(re.search(r"AUC (0\.\d+)", chart.caption)[1]) == pytest.approx(area, abs=0.006)


def test_every_joint_has_its_error():
    charts = joints_section(THEIRS, FIGURES).charts
    for chart, errors in zip(charts, COLUMNS, strict=True):
        alt = re.search('aria-label="([^"]*)"', chart.svg)[1]
        said = [float(text.rpartition(" ")[2]) for text in alt.partition(": ")[2].split(", ")]
        np.testing.assert_allclose(said, errors.mean(0), atol=0.0501)


def test_areas_stand_beside_the_baselines():
    figures = FIGURES | {"pa_pck_auc_50mm": 0.81234, "mean_skeleton_pa_pck_auc_50mm": 0.5, "absolute_pck_auc_50mm": 0.2}
    (areas,) = pck_section(SAMPLES, THEIRS, figures).tables
    assert areas.rows == [("AUC, absolute, 0 to 50 mm", "0.200", "–"), ("AUC, aligned, 0 to 50 mm", "0.812", "0.500")]


def test_the_area_in_a_caption_is_that_of_the_figures():
    everywhere = np.ones(SAMPLES.joint_error_mm.shape, bool)
    for chart, errors in zip(pck_section(SAMPLES, THEIRS, FIGURES).charts, COLUMNS, strict=True):
        area = float(metrics.pck_auc(errors / np.float32(1000), everywhere))
        assert f"AUC {area:.3f}" in chart.caption
