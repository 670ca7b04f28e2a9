"""Terms without a label of their own: closed forms, plain NumPy, and gradients where they could be infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from amt import losses
from amt.data.ycb import OBJECTS
from amt.geometry.primitives import signed_distance
from amt.models.layers import attention_entropy
from tests.samples import HAND

FIVE = np.ones(5, bool)


def turned_about_flexion(angles):
    """Rotations [b,16,3,3] whose fingers bend by `angles` [b,15]."""
    R = np.tile(np.eye(3, dtype=np.float32), (len(angles), 16, 1, 1))
    for b, j in np.ndindex(*angles.shape):
        R[b, j + 1] = Rotation.from_rotvec(HAND.flexion_axes[j + 1] * angles[b, j]).as_matrix()
    return R


def test_flexion_is_the_angle_about_the_flexion_axis():
    """And a turn about an axis across it, after it, changes nothing."""
    angles = np.random.default_rng(0).uniform(-3, 3, (4, 15))
    R = turned_about_flexion(angles)
    np.testing.assert_allclose(losses.flexion_angles(R, HAND), angles, atol=1e-3)
    for j in range(15):
        axis = np.asarray(HAND.flexion_axes[j + 1])
        across = np.cross(axis, [0.3, 0.5, -0.8])
        swing = Rotation.from_rotvec(0.7 * across / np.linalg.norm(across)).as_matrix()
        R[:, j + 1] = swing @ R[:, j + 1]
    np.testing.assert_allclose(losses.flexion_angles(R, HAND), angles, atol=1e-3)


def test_half_a_turn_across_the_flexion_axis_is_no_flexion():
    """Exactly half a turn about y of joints that bend about x: there is no twist, and no slope to follow."""
    hand = HAND.replace(flexion_axes=np.tile(np.float32([1, 0, 0]), (16, 1)))
    R = np.tile(np.float32(np.diag([-1, 1, -1])), (1, 16, 1, 1))
    assert not np.asarray(losses.flexion_angles(R, hand)).any()
    assert np.isfinite(jax.jit(jax.grad(lambda R: losses.flexion_angles(R, hand).sum()))(R)).all()


def test_joint_limits_count_what_lies_beyond():
    angles = np.full((5, 15), 1.0, np.float32)
    angles[0, 3], angles[1, 4], angles[2] = -0.3, 0.8 * np.pi + 0.6, 9
    valid = np.array([True, True, False, True, True])
    assert losses.joint_limits(angles, valid) == pytest.approx((0.3 + 0.6) / 15 / 4, rel=1e-4)


def test_penetration_counts_depth_and_lets_touch():
    clearance = np.float32([[0.004, 0.0, -0.02, -0.001], [-0.5, -0.5, -0.5, -0.5]])
    valid = np.array([True, False])
    assert losses.penetration(clearance, valid) == pytest.approx((0.2 + 0.01) / 4, rel=1e-5)
    assert losses.penetration(clearance, valid, 0.002) == pytest.approx(0.18 / 4, rel=1e-5)


def test_only_force_above_ten_newtons_costs():
    force = np.float32([[[0, 6, 8.5], [0, 3, 4], [30, 0, 40]], [[99, 0, 0]] * 3])
    valid = np.array([[True, True, True], [False] * 3])
    expected = (np.hypot(6, 8.5) - 10 + 40) / 3
    assert losses.excess_force(force, valid) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [0.0005, 0.004, 0.05])
def test_diversity_is_the_logarithms_below_the_margin(scale):
    """DESIGN's formula less its value at the margin, by scipy's pairwise distances."""
    rng = np.random.default_rng(1)
    joints = (0.3 + rng.normal(0, scale, (6, 21, 3))).astype(np.float32)
    valid = np.array([True, True, False, True, True, True])
    x = (joints - joints[:, :1])[valid].astype(float)
    variance = x.var(0).mean()
    pairs = pdist(x.reshape(5, -1)).mean() / np.sqrt(21)

    def term(value, margin):
        return max(0.0, -np.log(value + 1e-8) + np.log(margin + 1e-8))

    expected = 0.5 * term(variance, 1e-4) + 0.5 * term(pairs, 1e-2)
    assert losses.diversity(joints, valid) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (expected > 0) == (scale < 0.01)


def test_diversity_drives_samples_apart():
    joints = np.random.default_rng(2).normal(0, 0.001, (4, 21, 3)).astype(np.float32)
    valid = np.ones(4, bool)
    gradient = jax.jit(jax.grad(losses.diversity))(joints, valid)
    assert losses.diversity(joints - 1e-4 * gradient / np.abs(gradient).max(), valid) < losses.diversity(joints, valid)


def test_kl_of_gains_is_the_gaussians():
    """Against the integral of N(0,g^2) log(N(0,g^2) / N(0,1))."""
    gains = {"a": jnp.float32([2.0, 0.7]), "b": {"c": jnp.float32(1.0)}}
    x = np.linspace(-30, 30, 200_001)

    def divergence(g):
        density = np.exp(-0.5 * (x / g) ** 2) / (g * np.sqrt(2 * np.pi))
        log_ratio = -0.5 * (x / g) ** 2 - np.log(g) + 0.5 * x**2
        return np.trapezoid(density * log_ratio, x)

    expected = np.mean([divergence(g) for g in (2.0, 0.7, 1.0)])
    assert losses.kl_gains(gains) == pytest.approx(expected, rel=1e-4)
    assert losses.kl_gains({"a": jnp.ones(3)}) == pytest.approx(0, abs=1e-6)
    assert losses.kl_gains({}) == 0


def test_attention_entropy_of_known_heads():
    """Heads that see 2, all and 4 of 16 keys alike, and one that sees 1 of 4 in another layer."""
    first = np.log(np.float32([[2, 16, 4], [16, 16, 16]]))
    second = np.log(np.float32([[1], [4]]))
    expected = (np.log(2) ** 2 + np.log(4) ** 2 + 0 + np.log(2) ** 2) / 4
    assert losses.attention_entropy([{"a": (first,)}, {"b": (second,)}]) == pytest.approx(expected, rel=1e-4)


def test_velocity_is_the_second_difference():
    """Uniform motion is free; an acceleration of 0.01 m per frame squared is 0.1 dm; masked frames do not count."""
    t = np.arange(6, dtype=np.float32)[None, :, None, None]
    uniform = np.broadcast_to(t * np.float32([0.1, -0.2, 0.3]), (2, 6, 21, 3))
    valid = np.ones((2, 6), bool)
    assert losses.velocity(uniform, valid) < 2e-5
    bent = uniform + 0.005 * t**2 * np.float32([0, 1, 0])
    assert losses.velocity(bent, valid) == pytest.approx(0.1, rel=1e-3)
    broken = bent.copy()
    broken[0, 5], valid[0, 5] = 7, False
    assert losses.velocity(broken, valid) == pytest.approx(0.1, rel=1e-3)


def test_contact_placement_is_the_formula():
    rng = np.random.default_rng(3)
    logit, h, o = rng.normal(0, 2, (3, 4)), rng.uniform(0, 0.08, (3, 4)), rng.uniform(-0.05, 0.05, (3, 4))
    valid = np.array([True, False, True])
    c, to_object = 1 / (1 + np.exp(-logit)), np.abs(o)
    far = np.maximum(np.maximum(h, to_object) - 0.02, 0)
    plain = c * (h + to_object) * 10 + c * far * 10 + (1 - c) * np.exp(-np.minimum(h, to_object) / 0.02)
    found = losses.contact_placement(*(x.astype(np.float32) for x in (logit, h, o)), valid)
    assert found == pytest.approx(plain[valid].mean(), rel=1e-4)


def test_nearest_equals_a_tree():
    rng = np.random.default_rng(4)
    points, vertices = rng.normal(size=(2, 7, 3)).astype(np.float32), rng.normal(size=(2, 50, 3)).astype(np.float32)
    for b, found in enumerate(losses.nearest(points, vertices)):
        np.testing.assert_allclose(found, cKDTree(vertices[b]).query(points[b])[0], rtol=1e-4)


def test_joint_weights_have_mean_one_and_stay_there():
    """Trained on one bad joint, the others' weights hardly move and the bad one's stays away from zero."""
    even = np.asarray(losses.joint_weights())
    assert even.mean() == pytest.approx(1) and even[4] == pytest.approx(1.5 * even[3])
    logits = jnp.asarray(np.random.default_rng(5).normal(0, 3, 21), jnp.float32)
    assert losses.joint_weights(logits).mean() == pytest.approx(1)
    np.testing.assert_allclose(losses.joint_weights(jnp.full(21, 2.5)), even, rtol=1e-6)

    truth = np.zeros((5, 21, 3), np.float32)
    predicted = truth.copy()
    predicted[:, 7, 1] = 0.1

    @jax.jit
    @jax.grad
    def gradient(x):
        return losses.adaptive_mpjpe(predicted, truth, FIVE, x) + losses.weight_evenness(x)

    x = jnp.zeros(21)
    for _ in range(300):
        x = x - 2.0 * gradient(x)
    learned = 21 * jax.nn.softmax(x)
    assert 0.3 < learned[7] < 0.7 and all(0.9 < w < 1.2 for j, w in enumerate(learned) if j != 7)


def test_reprojection_is_smooth_l1_in_crops_and_leaves_out_what_is_behind():
    K = np.float32([[[200, 0, 50], [0, 200, 50], [0, 0, 1]]])
    points = np.float32([[[0, 0, 0.5], [0.1, 0, 0.5], [0.1, 0, -0.5], [0, 0.2, 1.0]]])
    pixels = np.float32([[[50, 51], [100, 50], [50, 50], [50, 50]]])  # off by 1, 40, anything, 40 pixels of 100
    valid = np.array([[True, True, True, False]])
    expected = (0.5 * 0.01**2 / 0.02 + abs(200 * 0.2 + 50 - 100) / 100 - 0.01) / 2
    assert losses.reprojection(points, pixels, K, valid, 100) == pytest.approx(expected, rel=1e-4)


CASES = ("all masked", "identical", "zero rotation", "half a turn", "behind the camera", "batch of one", "ordinary")


def inputs(case):
    """Arguments of every term in one degenerate state."""
    rng = np.random.default_rng(6)
    b = 1 if case == "batch of one" else 3
    joints = rng.normal(0, 0.05, (b, 21, 3)).astype(np.float32) + np.float32([0, 0, 0.5])
    if case == "identical":
        joints = np.zeros_like(joints)
    if case == "behind the camera":
        joints = joints * np.float32([1, 1, -1])
        joints[:, 3] = 0
    valid = np.full(b, case != "all masked")
    angle = np.pi if case == "half a turn" else 0.0 if case == "zero rotation" else 0.5
    R = turned_about_flexion(np.full((b, 15), angle))
    if case == "half a turn":  # one about the flexion axis, one across it: no twist at all
        across = np.cross(HAND.flexion_axes[2], [0.3, 0.5, -0.8])
        R[:, 2] = Rotation.from_rotvec(np.pi * across / np.linalg.norm(across)).as_matrix()
    return joints, R, valid


def every_term(joints, R, logits, gains, valid):
    K = jnp.tile(jnp.float32([[200, 0, 50], [0, 200, 50], [0, 0, 1]])[None], (len(joints), 1, 1))
    each = jnp.broadcast_to(valid[:, None], joints.shape[:2])
    half, axis = (jnp.asarray(x) for x in OBJECTS[1].primitive)
    clearance = signed_distance(joints, half[None], axis[None])
    apart = joints[:, :, None] * 200.0
    sequence = jnp.stack([joints] * 4, axis=1)
    return {
        "mpjpe": losses.adaptive_mpjpe(joints, jnp.zeros_like(joints), valid, logits),
        "evenness": losses.weight_evenness(logits),
        "reprojection": losses.reprojection(joints, jnp.zeros_like(joints[..., :2]), K, each, 100),
        "contact": losses.contact_placement(
            logits[None] + joints[..., 0], losses.nearest(joints, joints[:, :5]), clearance, valid
        ),
        "limits": losses.joint_limits(losses.flexion_angles(R, HAND), valid),
        "penetration": losses.penetration(clearance, valid),
        "force": losses.excess_force(joints * 100.0, each),
        "diversity": losses.diversity(joints, valid),
        "kl": losses.kl_gains({"g": gains}),
        "entropy": losses.attention_entropy(_both(attention_entropy(apart, apart))),
        "velocity": losses.velocity(sequence, jnp.broadcast_to(valid[:, None], sequence.shape[:2])),
    }


def _both(entropy):
    return [jnp.stack([entropy, jnp.full_like(entropy, jnp.log(21.0))])]


VALUES = jax.jit(every_term)
JACOBIAN = jax.jit(jax.jacrev(every_term, argnums=(0, 1, 2, 3)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_finite(case):
    joints, R, valid = inputs(case)
    arguments = (joints, R, np.zeros(21, np.float32), np.float32([0.0, 1.0]), valid)
    values, slopes = VALUES(*arguments), JACOBIAN(*arguments)
    for name in values:
        assert np.isfinite(values[name]), name
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes[name])), name
    if case == "all masked":
        assert not any(v for k, v in values.items() if k not in ("evenness", "kl", "entropy")), values
