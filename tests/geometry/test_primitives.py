"""Distances against meshes and closed forms; symmetries against the shapes themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.data.ycb import OBJECTS
from amt.geometry.primitives import BOX, signed_distance, symmetries

HALF = np.array([0.03, 0.05, 0.08])
SURFACE = 2e-6  # the 1e-12 under the distance's square root


def cylinder_half(axis):
    half = np.full(3, 0.03)
    half[axis] = 0.08
    return half


def mesh(axis):
    trimesh = pytest.importorskip("trimesh")
    if axis == BOX:
        return trimesh.creation.box(2 * HALF)
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3)[[2, 0, 1]] if axis == 0 else np.eye(3)[[1, 2, 0]] if axis == 1 else np.eye(3)
    return trimesh.creation.cylinder(0.03, 0.16, sections=512, transform=turn)


@pytest.mark.parametrize("axis", [0, 1, 2, BOX])
def test_distance_equals_that_of_a_mesh(axis):
    half = HALF if axis == BOX else cylinder_half(axis)
    shape = mesh(axis)
    np.testing.assert_allclose(shape.extents / 2, half, rtol=1e-4)
    points = np.random.default_rng(axis).uniform(-0.12, 0.12, (400, 3))
    nearest, gap, _ = pytest.importorskip("trimesh").proximity.closest_point_naive(shape, points)
    ours = signed_distance(points, half, np.asarray(axis))
    np.testing.assert_allclose(np.abs(ours), gap, atol=5e-6)  # a cylinder of 512 sides is 0.6 um too small
    inside = (np.abs(points) < half).all(-1)
    if axis != BOX:
        across = np.delete(points, axis, 1)
        inside = (np.linalg.norm(across, axis=-1) < 0.03) & (np.abs(points[:, axis]) < 0.08)
    np.testing.assert_array_equal(ours < 0, inside)


def test_known_distances():
    points = np.array([[0.04, 0, 0], [0, 0, 0], [0.06, 0.09, 0.08], [0.03, 0.05, 0.2]])
    box = signed_distance(points, HALF, np.asarray(BOX))
    np.testing.assert_allclose(box, [0.01, -0.03, 0.05, 0.12], atol=SURFACE)
    cylinder = signed_distance(points[:2], cylinder_half(1), np.asarray(1))
    np.testing.assert_allclose(cylinder, [0.01, -0.03], atol=SURFACE)


def test_batches_of_boxes_and_cylinders_in_jax_equal_numpy():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 0.1, (4, 50, 3)).astype(np.float32)
    axis = np.arange(4)
    half = np.stack([cylinder_half(0), cylinder_half(1), cylinder_half(2), HALF]).astype(np.float32)
    ours = jax.jit(signed_distance)(jnp.asarray(points), jnp.asarray(half), jnp.asarray(axis))
    assert isinstance(signed_distance(points, half, axis), np.ndarray)
    for k in range(4):
        np.testing.assert_allclose(ours[k], signed_distance(points[k], half[k], axis[k]), atol=1e-7)


@pytest.mark.parametrize("axis", [0, BOX])
def test_the_gradient_is_a_unit_vector_and_finite_everywhere(axis):
    half = HALF if axis == BOX else cylinder_half(axis)
    points = np.random.default_rng(1).uniform(-0.12, 0.12, (200, 3))
    special = np.concatenate([np.zeros((1, 3)), half * np.eye(3), half[None]])
    everywhere = jnp.asarray(np.concatenate([points, special]).astype(np.float32))

    def total(p):
        return signed_distance(p, jnp.asarray(half, jnp.float32), jnp.asarray(axis)).sum()

    gradient = np.asarray(jax.grad(total)(everywhere))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(np.linalg.norm(gradient[:200], axis=-1), 1, atol=1e-3)


@pytest.mark.parametrize("ycb_id", [1, 2, 18])
def test_symmetries_leave_the_shape_as_it_is(ycb_id):
    half, axis = OBJECTS[ycb_id].primitive
    rotations = symmetries(axis)
    assert rotations.shape == (24, 3, 3)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    np.testing.assert_allclose(rotations[0], np.eye(3), atol=1e-7)
    points = np.random.default_rng(2).uniform(-0.2, 0.2, (100, 3))
    before = signed_distance(points, half.astype(float), np.asarray(axis))
    for R in rotations:
        turned = signed_distance(points @ R.T.astype(float), half.astype(float), np.asarray(axis))
        np.testing.assert_allclose(turned, before, atol=1e-6)


@pytest.mark.parametrize(("axis", "distinct"), [(0, 24), (1, 24), (2, 24), (BOX, 4)])
def test_symmetries_are_a_group(axis, distinct):
    """Distinct, and the product of any two is one of them: none is forgotten."""
    rotations = np.unique(np.round(symmetries(axis), 4) + 0.0, axis=0)
    assert len(rotations) == distinct
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 3, 3)
    gaps = np.abs(products[:, None] - rotations[None]).max((-2, -1)).min(1)
    assert gaps.max() < 1e-3


def test_any_turn_of_a_cylinder_is_near_a_listed_one():
    """Twelve steps: at most 15 degrees away."""
    turns = Rotation.from_rotvec(np.linspace(0, 2 * np.pi, 50)[:, None] * np.eye(3)[2])
    listed = Rotation.from_matrix(symmetries(2))
    angles = np.array([(listed * turn.inv()).magnitude().min() for turn in turns])
    assert angles.max() <= np.pi / 12 + 1e-6
