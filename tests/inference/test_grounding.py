"""What stands on a table says how far away things are."""

import dataclasses

import numpy as np
import pytest

from amt.inference.grounding import LARGEST, RAISED, scales
from amt.models.temporal import Observation

CAMERA = np.array([-0.5, 0.1, 0.7])
HALF = np.array([0.03, 0.05, 0.04])
UPRIGHT = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])  # its second axis is up


def seen_by(distance, rises=(), **changed):
    """A hand that comes to an object of `HALF` on the table, seen at `distance` times its distance from the camera.

    `rises` are metres by which both are raised in frames after the tenth.
    """
    height = np.concatenate([np.zeros(10), rises])
    t = len(height)
    thing = np.stack([np.zeros(t), np.zeros(t), HALF[1] + height], axis=-1)
    come = np.linspace(0.12, 0, 10)
    joints = thing[:, None] + 0.02 * np.random.default_rng(0).normal(size=(t, 21, 3))
    joints[:10] += come[:, None, None] * [1.0, 0, 1.0]

    def away(points):
        return CAMERA + distance * (points - CAMERA)

    fields = {f.name: np.zeros(t) for f in dataclasses.fields(Observation)}
    fields |= {"joints": away(joints), "object_position": away(thing), "object_rotation": np.tile(UPRIGHT, (t, 1, 1))}
    fields |= {"object_half": np.tile(HALF, (t, 1)), "object_confidence": np.ones(t)}
    fields |= {"camera_position": np.tile(CAMERA, (t, 1)), "valid": np.ones(t, bool)}
    return Observation(**{name: x[None] for name, x in (fields | changed).items()})


@pytest.mark.parametrize("distance", [0.9, 1.0, 1.15])
def test_distances_become_those_of_an_object_on_the_table(distance):
    seen = seen_by(distance)
    found = scales(seen)
    assert found == pytest.approx(np.full(10, 1 / distance), rel=1e-5)
    truth = seen_by(1.0)
    made = seen.rescaled(found[None])
    np.testing.assert_allclose(made.object_position, truth.object_position, atol=1e-6)
    np.testing.assert_allclose(made.joints, truth.joints, atol=1e-6)


def test_an_object_that_is_raised_says_nothing():
    """Once it is clearly above; on its way there it moves the estimate by little."""
    rises = np.linspace(0.002, 0.3, 30)
    found = scales(seen_by(0.9, rises))
    assert np.ptp(found[10:][rises > RAISED]) < 1e-6
    assert np.abs(found * 0.9 - 1).max() < 0.03


def test_later_frames_count_more_and_sizes_are_averaged():
    """Distances that change from one to another are followed; a size that is wrong in turns is none."""
    a, b = seen_by(0.9, np.zeros(60)), seen_by(1.1, np.zeros(60))
    late = np.arange(70)[None] >= 20
    mixed = {n: np.where(late.reshape(1, 70, *[1] * (x.ndim - 2)), getattr(b, n), x) for n, x in vars(a).items()}
    found = scales(Observation(**mixed))
    assert found[19] == pytest.approx(1 / 0.9, rel=1e-4) and found[-1] == pytest.approx(1 / 1.1, rel=0.02)
    half = np.tile(HALF, (70, 1)) * np.where(np.arange(70) % 2, 1.5, 0.5)[:, None]
    assert scales(seen_by(0.9, np.zeros(60), object_half=half))[-1] * 0.9 == pytest.approx(1, rel=0.01)


def test_frames_without_a_hand_or_an_object_say_nothing_and_the_rest_has_bounds():
    t = 10
    for nothing in ({"valid": np.zeros(t, bool)}, {"object_confidence": np.zeros(t)}):
        np.testing.assert_array_equal(scales(seen_by(0.9, **nothing)), np.ones(t))
    assert scales(seen_by(0.5))[-1] == pytest.approx(LARGEST, rel=1e-5)
    above = np.tile([0.0, 0, 0.8], (t, 1))  # than the camera: no line of sight comes down to the table
    np.testing.assert_array_equal(scales(seen_by(1.0, object_position=above)), np.ones(t))


def test_an_estimate_is_of_the_frames_so_far():
    whole = seen_by(0.9, np.linspace(0, 0.1, 20))
    first = Observation(**{name: getattr(whole, name)[:, :14] for name in Observation.__dataclass_fields__})
    np.testing.assert_array_equal(scales(whole)[:14], scales(first))
