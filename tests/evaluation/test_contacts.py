"""Figures of contacts against loops over points, with labels of both kinds."""

from types import SimpleNamespace

import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.contacts import no_contacts, sample_contacts
from amt.data.hand_labels import pose_labels
from amt.evaluation.contacts import contact_counter, contact_figures, contact_labels, contacts_of
from amt.geometry import mirror
from amt.structs import Contacts
from tests.samples import HAND, make_sample

TIPS = [4, 8, 12, 16, 20]


def made():
    """Six stacked samples: three simulated, the others by geometry, of which one has no label; both hands."""
    samples = [make_sample(seed, is_left=seed % 2 == 1, contacts=seed < 3) for seed in range(6)]
    for sample in samples:
        sample["object_pose"][0, :, 3] = sample["joints_3d"][[5, 9, 12, 16]].mean(0)
    samples[4]["hand_pose_valid"] = np.bool_(False)
    return samples, {name: np.stack([s[name] for s in samples]) for name in samples[0] if name != "color"}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("no_models")
    samples, labels = made()
    return root, samples, labels, contact_labels(labels, hand_model.load(), root)


def test_the_labelled_hand_stands_where_its_joints_are(case):
    _, samples, labels, _ = case
    _, vertices = pose_labels(HAND, labels)
    tips = vertices[:, list(HAND.tip_vertices)]
    np.testing.assert_allclose(tips, labels["joints_3d"][:, TIPS], atol=1e-4)
    assert not np.allclose(vertices[1], mirror.mirror_points(vertices[1]))


def test_simulated_contacts_are_labels_as_they_are_and_others_come_from_geometry(case):
    root, samples, labels, truth = case
    assert truth.labelled.tolist() == [True, True, True, True, False, True]
    for i, sample in enumerate(samples):
        if i < 3:
            np.testing.assert_array_equal(truth.points[i], sample["contact_points"])
            np.testing.assert_array_equal(truth.kind[i], sample["contact_kind"])
            np.testing.assert_array_equal(truth.force[i], sample["contact_force"])
            assert truth.valid[i].tolist() == sample["contact_valid"].tolist()
        else:
            assert (truth.kind[i] == -1).all() and np.isnan(truth.force[i]).all()
    _, vertices = pose_labels(HAND, labels)
    for i in (3, 5):
        expected = sample_contacts(samples[i], vertices[i], root)
        np.testing.assert_array_equal(truth.points[i], expected.points)
        assert truth.valid[i].tolist() == expected.valid.tolist() and truth.valid[i].any()
    assert not truth.valid[4].any()


def test_an_object_without_a_label_and_a_bare_hand(case):
    root, _, labels, _ = case
    labels = labels | {name: np.stack([no_contacts()[name]] * 6) for name in no_contacts()}
    grasped = np.array([0, -1, 0, 0, 0, 0])
    valid = labels["object_valid"].copy()
    valid[0] = False
    found = contact_labels(labels | {"grasped": grasped, "object_valid": valid}, hand_model.load(), root)
    assert found.labelled.tolist() == [False, True, True, True, False, True]
    assert not found.valid[:2].any() and found.valid[2].any()


def predicted(labels, truth, seed=0):
    """Ten queries around the labels' points, and a wrist that is 3 cm too far, as are they."""
    rng = np.random.default_rng(seed)
    far = np.float32([0, 0, 0.03])
    points = truth.points + rng.normal(0, 0.005, truth.points.shape).astype(np.float32) + far
    confidence = np.where(truth.valid, 0.8, 0.4).astype(np.float32)
    confidence[:, 0], confidence[:, 9] = 0.1, 0.7
    kind = rng.integers(0, 4, confidence.shape)
    force = rng.normal(0, 8, points.shape).astype(np.float32)
    return SimpleNamespace(
        contacts=Contacts(points, confidence, kind, force),
        hand=SimpleNamespace(joints=labels["joints_3d"] + far),
    )


def counted(points, truth, limit):
    """By loops: predicted, right, true, found."""
    near = [[np.linalg.norm(p - t) <= limit for t in truth] for p in points]
    return np.array([len(points), sum(any(r) for r in near), len(truth), sum(any(c) for c in zip(*near, strict=True))])


def f1(total):
    precision, recall = total[1] / total[0], total[3] / total[2]
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def figures_of(ours, labels, truth, mean, taught):
    return contact_figures({name: x.sum() for name, x in counted_of(ours, labels, truth, mean, taught).items()})


def counted_of(ours, labels, truth, mean, taught):
    contacts = contacts_of(ours, truth, labels["joints_3d"][:, 0], labels["contact_known"], mean)
    return contact_counter(taught)(None, contacts)


def test_all_contacts_are_counted_together(case):
    _, _, labels, truth = case
    ours = predicted(labels, truth)
    mean = SimpleNamespace(joints=np.random.default_rng(1).normal(0, 0.08, (21, 3)))
    mean.joints[0] = 0
    figures = figures_of(ours, labels, truth, mean, True)
    assert figures["contact_frames"] == 5 and figures["contact_simulated_share"] == pytest.approx(3 / 5)

    wrist = ours.hand.joints[:, 0]
    present = (ours.contacts.confidence >= 0.5) & (ours.contacts.kind > 0)
    for limit in (5, 10, 20):
        for name, move in (("", np.zeros(3)), ("relative_", np.array([0, 0, -0.03]))):
            total, tips = np.zeros(4), np.zeros(4)
            for i in np.flatnonzero(truth.labelled):
                there = truth.points[i][truth.valid[i]]
                total += counted(ours.contacts.points[i][present[i]] + move, there, limit / 1000)
                tips += counted(wrist[i] + mean.joints[TIPS] + move, there, limit / 1000)
            for prefix, sums in (("", total), ("mean_", tips)):
                values = [figures[f"{prefix}contact_{k}_{name}{limit}mm"] for k in ("precision", "recall", "f1")]
                np.testing.assert_allclose(values, f1(sums), atol=1e-6)
    assert figures["contact_f1_relative_10mm"] > 0.4 > figures["contact_f1_10mm"]  # 3 cm in depth

    right = pairs = 0
    errors, lengths = [], []
    for i in np.flatnonzero(truth.labelled & labels["contact_known"]):
        there = truth.points[i][truth.valid[i]]
        for k in np.flatnonzero(present[i]):
            gaps = np.linalg.norm(ours.contacts.points[i, k] - [0, 0, 0.03] - there, axis=-1)
            if gaps.min() > 0.02:
                continue
            n = gaps.argmin()
            pairs += 1
            right += ours.contacts.kind[i, k] == truth.kind[i][truth.valid[i]][n]
            force = truth.force[i][truth.valid[i]][n]
            errors.append(np.linalg.norm(ours.contacts.force[i, k] - force))
            lengths.append(np.linalg.norm(force))
    assert pairs > 3
    assert figures["contact_kind_right_share"] == pytest.approx(right / pairs)
    assert figures["contact_force_error_n"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert figures["zero_contact_force_error_n"] == pytest.approx(np.mean(lengths), rel=1e-5)
    above = np.linalg.norm(ours.contacts.force, axis=-1)[present & truth.labelled[:, None]] > 10
    assert figures["contact_force_above_10n_share"] == pytest.approx(above.mean())


def test_what_was_not_taught_has_no_figures(case):
    _, _, labels, truth = case
    ours, mean = predicted(labels, truth), SimpleNamespace(joints=np.zeros((21, 3)))
    figures = figures_of(ours, labels, truth, mean, False)
    for name in ("contact_kind_right_share", "contact_force_error_n", "contact_force_above_10n_share"):
        assert np.isnan(figures[name])
    assert figures["contact_f1_relative_20mm"] > 0.5
    nothing = truth._replace(labelled=np.zeros(6, bool), valid=np.zeros_like(truth.valid))
    nothing = figures_of(ours, labels, nothing, mean, True)
    assert nothing.pop("contact_frames") == 0 and np.isnan(list(nothing.values())).all()


def test_many_sums_at_once_are_as_one_by_one(case):
    _, _, labels, truth = case
    ours, mean = predicted(labels, truth), SimpleNamespace(joints=np.zeros((21, 3)))
    counts = counted_of(ours, labels, truth, mean, True)
    many = contact_figures({name: x.reshape(3, 2).sum(1).astype(float) for name, x in counts.items()})
    for k in range(3):
        one = contact_figures({name: x[2 * k : 2 * k + 2].sum() for name, x in counts.items()})
        np.testing.assert_allclose([x[k] for x in many.values()], list(one.values()))
