"""The YCB objects: real sizes, and primitives that touch no more than them."""

import numpy as np
import pytest

from amt.data.ycb import OBJECTS, SYMMETRIC_IDS, primitive_table
from amt.geometry.primitives import BOX, signed_distance


def test_names_and_ids():
    assert sorted(OBJECTS) == list(range(1, 22))
    assert OBJECTS[4].name == "005_tomato_soup_can" and OBJECTS[21].name == "061_foam_brick"
    assert {o.id for o in OBJECTS.values() if o.symmetric} == SYMMETRIC_IDS


@pytest.mark.parametrize(
    ("ycb_id", "size_mm", "axis"),
    [
        (2, (60, 160, 230), BOX),  # cracker box
        (4, (66, 66, 101), 2),  # tomato soup can
        (8, (73, 85, 28), BOX),  # gelatin box
        (14, (80, 80, 82), 2),  # mug, without its handle
        (18, (18, 121, 18), 1),  # large marker
        (21, (50, 75, 50), BOX),  # foam brick
    ],
)
def test_sizes_are_those_of_the_object_set(ycb_id, size_mm, axis):
    """Against the dimensions published with the set (Calli et al. 2015, table 1); scans differ by up to 2
    cm."""
    primitive = OBJECTS[ycb_id].primitive
    np.testing.assert_allclose(primitive.half * 2000, size_mm, atol=20)
    assert primitive.axis == axis


def test_the_table_has_every_object_by_id():
    half, axis = primitive_table()
    for ycb_id, thing in OBJECTS.items():
        np.testing.assert_array_equal(half[ycb_id], thing.primitive.half)
        assert axis[ycb_id] == thing.primitive.axis
    assert not half[0].any()


@pytest.mark.parametrize("ycb_id", [2, 4, 18])
def test_diameter_is_the_largest_distance_between_surface_points(ycb_id):
    half, axis, diameter = *OBJECTS[ycb_id].primitive, OBJECTS[ycb_id].primitive.diameter
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3)) * half * 1.001
    inside = points[signed_distance(points, half.astype(float), np.array(axis)) < 0]
    largest = 2 * np.linalg.norm(inside, axis=1).max()
    assert 0.97 * diameter < largest <= diameter * 1.001
