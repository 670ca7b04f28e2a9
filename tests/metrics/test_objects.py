"""ADD, ADD-S, MSSD, MSPD and their recalls against plain NumPy in float64, one sample and one point at a time."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt import metrics
from amt.data.ycb import OBJECTS
from amt.geometry.primitives import symmetries

B, POINTS = 7, 60
K = np.float32([[600, 2, 320], [0, 610, 240], [0, 0, 1]])
IDS = (1, 2, 3, 18, 13, 6, 20)
ERRORS = jax.jit(
    lambda P, T, x, S, K: {
        "add": metrics.add(P, T, x),
        "add_s": metrics.add_s(P, T, x),
        "mssd": metrics.mssd(P, T, x, S),
        "mspd": metrics.mspd_px(P, T, x, S, K),
    }
)


def setting(scatter=0.4):
    """Predicted and true poses, points and symmetries of seven objects."""
    rng = np.random.default_rng(0)
    R = Rotation.random(B, random_state=0)
    Q = R * Rotation.from_rotvec(rng.normal(0, scatter, (B, 3)))
    t = rng.normal(0, 0.1, (B, 3)) + [0, 0, 0.7]
    poses = [np.concatenate([r.as_matrix(), x[..., None]], -1) for r, x in ((Q, t + scatter / 20), (R, t))]
    objects = [OBJECTS[i].primitive for i in IDS]
    points = np.stack([metrics.surface_points(o.half, o.axis, POINTS) for o in objects])
    S = np.stack([symmetries(o.axis) for o in objects])
    return [x.astype(np.float32) for x in (*poses, points, S, np.tile(K, (B, 1, 1)))]


def plain(P, T, points, S, K):
    """The definitions of Hinterstoisser 2012, Xiang 2018 and Hodan 2020, written out."""
    ours = [P[:, :3] @ x + P[:, 3] for x in points]
    theirs = [T[:, :3] @ x + T[:, 3] for x in points]

    def pixel(p):
        u = K @ [p[0], p[1], max(p[2], 0.05)]
        return u[:2] / u[2]

    def worst(s, place):
        moved = [T[:, :3] @ (s @ x) + T[:, 3] for x in points]
        return max(np.linalg.norm(place(a) - place(b)) for a, b in zip(ours, moved, strict=True))

    return {
        "add": np.mean([np.linalg.norm(a - b) for a, b in zip(ours, theirs, strict=True)]),
        "add_s": np.mean([min(np.linalg.norm(a - b) for a in ours) for b in theirs]),
        "mssd": min(worst(s, lambda p: p) for s in S),
        "mspd": min(worst(s, pixel) for s in S),
    }


@pytest.mark.parametrize("case", ["scattered", "behind the camera", "no error"])
def test_errors_equal_plain_ones(case):
    P, T, points, S, k = setting(0.0 if case == "no error" else 0.4)
    if case == "behind the camera":
        P[:, 2, 3] = -0.3
    found = ERRORS(P, T, points, S, k)
    for b in range(B):
        expected = plain(*(x[b].astype(float) for x in (P, T, points, S, k)))
        for name, value in expected.items():
            scale = 1e-2 if name == "mspd" else 1e-6  # pixels, metres: float32 of coordinates of 500 and 0.7
            np.testing.assert_allclose(found[name][b], value, rtol=2e-4, atol=scale, err_msg=name)


def test_a_symmetric_turn_costs_nothing_but_in_add():
    P, T, points, S, k = setting()
    P = T.copy()
    P[..., :3] = T[..., :3] @ S[:, 5]
    found = ERRORS(P, T, points, S, k)
    assert (np.asarray(found["mssd"]) < 1e-5).all() and (np.asarray(found["mspd"]) < 0.01).all()
    assert (np.asarray(found["add"]) > 0.005).all()


def test_any_shape_of_the_batch_is_kept():
    P, T, points, S, k = (np.stack([x[:3], x[3:6]]) for x in setting())
    flat = ERRORS(*setting())
    for name, found in ERRORS(P, T, points, S, k).items():
        np.testing.assert_allclose(np.asarray(found).reshape(-1), flat[name][:6], rtol=1e-4, atol=1e-6)


def test_recall_is_a_share_of_the_diameter():
    errors = np.float32([0.009, 0.011, 0.019, 0.5, 0.0])
    diameters = np.float32([0.1, 0.1, 0.2, 0.2, 0.1])
    valid = np.array([True, True, True, True, False])
    assert metrics.recall(errors, diameters, valid) == pytest.approx(2 / 4)
    assert metrics.recall(errors, diameters, np.zeros(5, bool)) == 0
    plain_average = np.mean([(errors < s * diameters)[valid].mean() for s in np.arange(0.05, 0.51, 0.05)])
    assert metrics.average_recall(errors, diameters, valid) == pytest.approx(plain_average)
