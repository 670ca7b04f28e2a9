"""Rotations against scipy, their gradients against finite differences, and both where formulas break."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.geometry import rotations as rot
from tests.precision import double_precision

RNG = np.random.default_rng(0)
AXES = RNG.normal(size=(64, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
ANGLES = np.concatenate([[0, 1e-12, 1e-6, 1e-4, 1e-2, np.pi / 2, 3.0, np.pi - 1e-4, np.pi], RNG.uniform(0, 3.1, 55)])
VECTORS = AXES * ANGLES[:, None]
SPECIAL = Rotation.from_rotvec(VECTORS)
HALF_TURNS = np.stack([np.diag(d).astype(float) for d in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])])


def wxyz(rotation):
    quaternion = np.roll(rotation.as_quat(), 1, -1)
    return quaternion * np.where(quaternion[..., :1] < 0, -1, 1)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    with double_precision() if request.param == np.float64 else contextlib.nullcontext():
        yield request.param


def tolerance(dtype):
    return 1e-6 if dtype == np.float32 else 1e-13  # a few roundings of numbers near one


def test_axis_angle_to_matrix(dtype):
    ours = rot.from_axis_angle(VECTORS.astype(dtype))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, SPECIAL.as_matrix(), atol=tolerance(dtype))


def test_matrix_to_axis_angle(dtype):
    ours = np.asarray(rot.to_axis_angle(SPECIAL.as_matrix().astype(dtype)))
    half_turn = np.isclose(ANGLES, np.pi, atol=1e-6)  # both signs of the axis are right there
    sign = np.where(half_turn[:, None] & (np.sum(ours * VECTORS, 1, keepdims=True) < 0), -1, 1)
    np.testing.assert_allclose(ours * sign, VECTORS, atol=5 * tolerance(dtype))


def test_quaternion_both_ways(dtype):
    quaternions = wxyz(SPECIAL)
    np.testing.assert_allclose(
        rot.from_quaternion(3 * quaternions.astype(dtype)), SPECIAL.as_matrix(), atol=tolerance(dtype)
    )
    ours = np.asarray(rot.to_quaternion(SPECIAL.as_matrix().astype(dtype)))
    assert (ours[:, 0] >= 0).all()
    same = np.abs(np.sum(ours * quaternions, 1))
    np.testing.assert_allclose(same, 1, atol=tolerance(dtype))
    for half_turn in HALF_TURNS:
        back = rot.from_quaternion(rot.to_quaternion(half_turn.astype(dtype)))
        np.testing.assert_allclose(back, half_turn, atol=tolerance(dtype))


def test_6d_round_trip_and_layout(dtype):
    matrices = SPECIAL.as_matrix().astype(dtype)
    six = rot.to_6d(matrices)
    np.testing.assert_array_equal(six[:, :3], matrices[:, :, 0])
    np.testing.assert_array_equal(six[:, 3:], matrices[:, :, 1])
    scaled = six * np.array([2, 2, 2, 0.5, 0.5, 0.5], dtype)[None]
    np.testing.assert_allclose(rot.from_6d(scaled), matrices, atol=2 * tolerance(dtype))


DEGENERATE_6D = [
    [0] * 6,
    [0, 0, 0, 1, 2, 3],
    [1, 2, 3, 0, 0, 0],
    [1, 2, 3, 2, 4, 6],
    [1, 0, 0, -5, 0, 0],
    [1e-30] * 6,
]


def test_6d_is_always_a_rotation(dtype):
    x = np.concatenate([np.array(DEGENERATE_6D), RNG.normal(size=(100, 6)) * 10]).astype(dtype)
    matrices = np.asarray(rot.from_6d(x), np.float64)
    identity = np.broadcast_to(np.eye(3), matrices.shape)
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), identity, atol=4 * tolerance(dtype))
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=4 * tolerance(dtype))


def test_geodesic_angle(dtype):
    start = Rotation.random(64, random_state=1)
    angle = rot.geodesic_angle(start.as_matrix().astype(dtype), (start * SPECIAL).as_matrix().astype(dtype))
    np.testing.assert_allclose(angle, ANGLES, atol=10 * tolerance(dtype))


def test_shapes_are_batched():
    x = jnp.zeros((2, 5, 3))
    R = rot.from_axis_angle(x)
    assert R.shape == (2, 5, 3, 3)
    assert rot.to_axis_angle(R).shape == (2, 5, 3)
    assert rot.from_6d(rot.to_6d(R)).shape == (2, 5, 3, 3)
    assert rot.from_quaternion(rot.to_quaternion(R)).shape == (2, 5, 3, 3)
    assert rot.geodesic_angle(R, R).shape == (2, 5)
    assert rot.to_axis_angle(jnp.eye(3)).shape == (3,)


WEIGHTS = RNG.normal(size=(3, 3))
FUNCTIONS = {
    "from_axis_angle": lambda x: jnp.sum(rot.from_axis_angle(x) * WEIGHTS.astype(x.dtype)),
    "from_6d": lambda x: jnp.sum(rot.from_6d(x) * WEIGHTS.astype(x.dtype)),
    "to_axis_angle": lambda x: jnp.sum(rot.to_axis_angle(x.reshape(3, 3)) * WEIGHTS[0].astype(x.dtype)),
    "from_quaternion": lambda x: jnp.sum(rot.from_quaternion(x) * WEIGHTS.astype(x.dtype)),
    "geodesic_angle": lambda x: rot.geodesic_angle(x.reshape(3, 3), jnp.eye(3, dtype=x.dtype)),
}
GENERIC = {
    "from_axis_angle": list(VECTORS[2:]),
    "from_6d": list(RNG.normal(size=(10, 6))),
    "to_axis_angle": list(SPECIAL.as_matrix()[9:].reshape(-1, 9)),
    "from_quaternion": list(RNG.normal(size=(10, 4))),
    "geodesic_angle": list(SPECIAL.as_matrix()[9:].reshape(-1, 9)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_equal_finite_differences(name):
    with double_precision():
        function = jax.jit(jax.vmap(FUNCTIONS[name]))
        x = np.stack(GENERIC[name])
        steps = 1e-6 * np.eye(x.shape[1])
        numeric = np.stack([(function(x + s[None]) - function(x - s[None])) / 2e-6 for s in steps], 1)
        gradient = jax.jit(jax.vmap(jax.grad(FUNCTIONS[name])))(x)
        np.testing.assert_allclose(gradient, numeric, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_finite_where_formulas_break(dtype, order):
    singular = {
        "from_axis_angle": [np.zeros(3), np.full(3, 1e-30), [np.pi, 0, 0], [0, 1e-4, 0]],
        "from_6d": DEGENERATE_6D,
        "to_axis_angle": [np.eye(3), *HALF_TURNS, *SPECIAL.as_matrix()[:9]],
        "from_quaternion": [[1, 0, 0, 0], [0, 0, 0, 1]],
        "geodesic_angle": [np.eye(3), *HALF_TURNS, *SPECIAL.as_matrix()[:9]],
    }
    for name, points in singular.items():
        x = np.array(points, dtype).reshape(len(points), -1)
        derivative = (jax.grad if order == 1 else jax.hessian)(FUNCTIONS[name])
        assert np.isfinite(jax.jit(jax.vmap(derivative))(x)).all(), name
