"""Contacts against brute force: exact distances, and farthest-point sampling written out."""

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from amt import hand as hand_model
from amt.data.contacts import (
    CONTACT_DISTANCE,
    MAX_DEPTH,
    contact_kinds,
    derive_contacts,
    farthest_points,
    read_contacts,
    sample_contacts,
)
from amt.data.objects import Surface, object_surface
from amt.data.ycb import OBJECTS
from amt.geometry import primitives
from tests.samples import make_sample


@pytest.fixture(scope="module")
def vertices():
    return np.asarray(hand_model.load().v_template, np.float64)


def near(vertices, seed):
    """An object pose that puts the object into the hand."""
    rng = np.random.default_rng(seed)
    center = vertices[rng.integers(778)] + rng.normal(0, 0.01, 3)
    return np.concatenate([Rotation.random(random_state=rng).as_matrix(), center[:, None]], -1)


@pytest.mark.parametrize("ycb_id", [2, 5, 6, 18])
def test_contacts_are_those_of_the_exact_distance(tmp_path, vertices, ycb_id):
    half, axis = OBJECTS[ycb_id].primitive
    surface = object_surface(tmp_path, ycb_id)
    found = 0
    for seed in range(6):
        pose = near(vertices, seed)
        pose[:, 3] += pose[:, :3] @ [0, 0, 0.9 * half[2]]
        every = derive_contacts(vertices, pose, surface, count=778)
        local = ((vertices - pose[:, 3]) @ pose[:, :3]).astype(np.float32)
        exact = primitives.signed_distance(local, half, np.int32(axis))
        slack = 3e-4  # of samples: at most 1.68 mm beside the foot of a perpendicular of 5 mm
        sure = (exact < CONTACT_DISTANCE - slack) & (exact > -MAX_DEPTH + 3e-3)
        maybe = (exact < CONTACT_DISTANCE + slack) & (exact > -MAX_DEPTH - 3e-3)
        chosen = {tuple(p) for p in every.points[every.valid]}
        assert {tuple(p) for p in vertices[sure].astype(np.float32)} <= chosen
        assert chosen <= {tuple(p) for p in vertices[maybe].astype(np.float32)}
        found += len(chosen)
    assert found > 100


def test_farthest_points_by_their_definition():
    points = np.random.default_rng(0).normal(size=(60, 3))
    chosen = farthest_points(points, 12, 7)
    expected = [7]
    while len(expected) < 12:
        gaps = [min(np.linalg.norm(points[i] - points[k]) for k in expected) for i in range(60)]
        expected.append(max(range(60), key=lambda i: gaps[i]))
    assert chosen.tolist() == expected


def test_ten_points_that_spread_over_the_contact(tmp_path, vertices):
    pose, surface = near(vertices, 3), object_surface(tmp_path, 5)
    every = derive_contacts(vertices, pose, surface, count=778)
    ten = derive_contacts(vertices, pose, surface)
    candidates, points = every.points[every.valid], ten.points
    assert ten.points.shape == (10, 3) and ten.valid.all() and len(candidates) > 30
    assert {tuple(p) for p in points} <= {tuple(p) for p in candidates}
    apart = min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i])
    assert KDTree(points).query(candidates)[0].max() <= apart + 1e-6  # what farthest-point sampling guarantees


def test_fewer_contacts_than_asked_for_and_none(tmp_path):
    surface = object_surface(tmp_path, 2)
    half = OBJECTS[2].primitive.half
    on_top = np.array([[0, 0, half[2] + 0.003], [0.01, 0, half[2] + 0.004], [0, 0, half[2] + 0.006]])
    pose = np.eye(4)[:3]
    some = derive_contacts(on_top, pose, surface)
    assert some.valid.tolist() == [True, True] + [False] * 8 and not some.points[2:].any()
    np.testing.assert_allclose(some.points[:2], on_top[:2], atol=1e-7)
    assert not derive_contacts(on_top + [0, 0, 0.01], pose, surface).valid.any()


def test_the_deepest_comes_first_and_depth_needs_normals(tmp_path):
    surface = object_surface(tmp_path, 2)
    half = OBJECTS[2].primitive.half
    points = np.array([[0, 0, half[2] + 0.003], [0, 0.02, half[2] - 0.008], [0.01, 0, half[2] - 0.001]])
    pose = np.eye(4)[:3]
    np.testing.assert_allclose(derive_contacts(points, pose, surface).points[0], points[1], atol=1e-7)
    cloud = Surface(surface.points, None, surface.tree)
    assert derive_contacts(points, pose, cloud).valid.sum() == 2


def test_a_sample_touches_what_it_grasps(tmp_path, vertices):
    sample = make_sample(0)
    sample["object_pose"][0] = near(vertices, 1)
    found = sample_contacts(sample, vertices, tmp_path)
    expected = derive_contacts(vertices, sample["object_pose"][0], object_surface(tmp_path, 3))
    np.testing.assert_array_equal(found.points, expected.points)
    assert found.valid.any()
    for missing in ({"grasped": np.int32(-1)}, {"object_valid": np.zeros(10, bool)}, {"hand_pose_valid": False}):
        assert not sample_contacts({**sample, **missing}, vertices, tmp_path).valid.any()


def pose(t, axis_angle=(0, 0, 0)):
    return np.concatenate([Rotation.from_rotvec(axis_angle).as_matrix(), np.reshape(t, (3, 1))], -1)[None]


@pytest.mark.parametrize(
    ("force", "before", "after", "kind"),
    [
        (1.9, pose([0, 0, 0]), pose([0, 0, 0]), 1),
        (2.0, pose([0, 0, 0]), pose([0, 0, 0]), 2),
        (9.0, pose([0, 0, 0]), pose([0, 0, 0.0009]), 2),  # 9 mm/s
        (0.1, pose([0, 0, 0]), pose([0, 0, 0.0011]), 3),
        (0.1, pose([0, 0, 0]), pose([0, 0, 0], [0.015, 0, 0]), 1),  # 0.15 rad/s, and a point 5 cm away at 7.5 mm/s
        (0.1, pose([0, 0, 0]), pose([0, 0, 0], [0, 0.021, 0]), 3),  # 0.21 rad/s about an axis through the point
        (0.1, pose([0, 0, 0]), pose([0, 0, 0], [0.019, 0, 0]), 1),
    ],
)
def test_kinds_by_force_and_speed(force, before, after, kind):
    point = np.array([[0, 0.05, 0]])
    found = contact_kinds(point, np.array([[0, -force, 0]]), before, after, before, 0.1)
    assert found.tolist() == [kind]


def test_of_many_simulated_contacts_the_strongest_and_those_farthest_from_it_stay(tmp_path):
    rng, n = np.random.default_rng(5), 40
    points, forces = rng.normal(0, 0.05, (n, 3)).astype(np.float32), rng.normal(0, 3, (n, 3)).astype(np.float32)
    ids, kind = rng.choice([4, 9], n).astype(np.int32), rng.integers(1, 4, n).astype(np.int32)
    np.savez(tmp_path / "contacts.npz", points=points, forces=forces, object=ids, kind=kind)
    found = read_contacts(tmp_path / "contacts.npz", 9)
    held = np.flatnonzero(ids == 9)
    chosen = [max(held, key=lambda i: np.linalg.norm(forces[i]))]
    while len(chosen) < 10:
        chosen.append(max(held, key=lambda i: min(np.linalg.norm(points[i] - points[k]) for k in chosen)))
    np.testing.assert_array_equal(found["contact_points"], points[chosen])
    np.testing.assert_array_equal(found["contact_force"], forces[chosen])
    np.testing.assert_array_equal(found["contact_kind"], kind[chosen])
    assert found["contact_valid"].all() and found["contact_known"]
    nothing = read_contacts(tmp_path / "contacts.npz", 3)
    assert not nothing["contact_valid"].any() and nothing["contact_known"] and not nothing["contact_kind"].any()
