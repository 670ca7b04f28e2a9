"""The JAX hand against a plain NumPy one, joint by joint, and what the embedded hand promises."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import amt.hand
from amt.hand import poses, skeleton
from tests.precision import double_precision

RNG = np.random.default_rng(0)
HAND = amt.hand.load()
POSE = (RNG.normal(size=(6, 48)) * 0.7).astype(np.float32)
BETAS = RNG.normal(size=(6, 10)).astype(np.float32)
TRANSL = RNG.normal(size=(6, 3)).astype(np.float32)
WITH_CORRECTIVES = dataclasses.replace(HAND, posedirs=RNG.normal(size=(778, 3, 135)).astype(np.float32) * 1e-3)


def numpy_lbs(hand, pose, betas, transl):
    """MANO's equations in float64, one hand, one joint after the other: (21 joints, vertices, T_joint)."""
    arrays = {f.name: getattr(hand, f.name) for f in dataclasses.fields(hand)}
    return lbs(arrays, hand.tip_vertices, pose, betas, transl)


def lbs(arrays, tip_vertices, pose, betas, transl):
    """As `numpy_lbs`, of arrays under MANO's names, of either side."""
    axis_angles = np.concatenate([pose[:3], arrays["hands_mean"] + pose[3:] @ arrays["hands_components"]])
    R = Rotation.from_rotvec(axis_angles.reshape(16, 3)).as_matrix()
    shaped = arrays["v_template"] + arrays["shapedirs"].astype(np.float64) @ betas
    J = arrays["J_regressor"].astype(np.float64) @ shaped
    if arrays["posedirs"] is not None:
        shaped = shaped + arrays["posedirs"].astype(np.float64) @ (R[1:] - np.eye(3)).ravel()
    T = np.zeros((16, 4, 4))
    vertices = np.zeros((778, 3))
    for j, parent in enumerate(skeleton.PARENTS):
        local = np.eye(4)
        local[:3, :3] = R[j]
        local[:3, 3] = J[j] - (J[parent] if j else 0)
        T[j] = T[parent] @ local if j else local
        moved = (shaped - J[j]) @ T[j, :3, :3].T + T[j, :3, 3]
        vertices += arrays["weights"][:, j : j + 1].astype(np.float64) * moved
    T[:, :3, 3] += transl
    vertices += transl
    joints = np.concatenate([T[:, :3, 3], vertices[list(tip_vertices)]])
    return joints[list(skeleton.JOINTS_16_TO_21)], vertices, T


@pytest.mark.parametrize("hand", [HAND, WITH_CORRECTIVES], ids=["default", "pose correctives"])
def test_equals_numpy(hand):
    joints, vertices, T_joint = jax.jit(
        lambda pose, betas, transl: hand.from_rotations(hand.rotations(pose), betas, transl)
    )(POSE, BETAS, TRANSL)
    for k in range(len(POSE)):
        expected = numpy_lbs(hand, POSE[k], BETAS[k], TRANSL[k])
        for ours, theirs in zip((joints[k], vertices[k], T_joint[k]), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)  # metres; float32 at one metre from the camera


def test_float64_is_float64():
    with double_precision():
        joints, vertices = jax.jit(HAND)(*(x.astype(np.float64) for x in (POSE[:1], BETAS[:1], TRANSL[:1])))
        expected = numpy_lbs(HAND, *(x[0].astype(np.float64) for x in (POSE, BETAS, TRANSL)))
        assert joints.dtype == vertices.dtype == np.float64
        np.testing.assert_allclose(joints[0], expected[0], atol=1e-7)  # the stored weights sum to 1 in float32
        np.testing.assert_allclose(vertices[0], expected[1], atol=1e-7)


def test_any_batch_shape():
    hand = jax.jit(HAND)
    batched = hand(POSE, BETAS, TRANSL)
    double = hand(POSE.reshape(2, 3, 48), BETAS.reshape(2, 3, 10), TRANSL.reshape(2, 3, 3))
    single = hand(POSE[0], BETAS[0], TRANSL[0])
    assert [x.shape for x in double] == [(2, 3, 21, 3), (2, 3, 778, 3)]
    for b, d, s in zip(batched, double, single, strict=True):
        np.testing.assert_allclose(d.reshape(b.shape), b, atol=1e-6)
        np.testing.assert_allclose(s, b[0], atol=1e-6)


def test_the_wrist_turns_about_itself_and_translation_comes_last():
    joints, _ = jax.jit(HAND)(POSE, BETAS, TRANSL)
    rest, _ = jax.jit(HAND)(np.zeros_like(POSE), BETAS, np.zeros_like(TRANSL))
    np.testing.assert_allclose(joints[:, 0] - TRANSL, rest[:, 0], atol=1e-6)


def test_pca_round_trip():
    small = POSE * np.float32(0.5)  # every joint's angle below pi, where the axis-angle is unique
    rotations = HAND.rotations(small)
    np.testing.assert_allclose(HAND.to_pca(rotations[:, 1:]), small[:, 3:], atol=1e-5)


def test_gradients_are_finite_and_right():
    target = RNG.normal(size=(21, 3))

    def loss(x):
        joints, vertices = HAND(x[:48], x[48:58], x[58:])
        return jnp.sum((joints - target.astype(x.dtype)) ** 2) + jnp.sum(vertices**2)

    gradient = jax.jit(jax.grad(loss))
    assert np.isfinite(gradient(np.zeros(61, np.float32))).all()  # the rest pose: every rotation may be zero
    flat = np.concatenate([np.zeros(3), np.linalg.solve(HAND.hands_components.T, -HAND.hands_mean), np.zeros(13)])
    assert np.isfinite(gradient(flat.astype(np.float32))).all()
    with double_precision():
        x = np.concatenate([POSE[0], BETAS[0], TRANSL[0]]).astype(np.float64)
        directions = RNG.normal(size=(4, 61))
        evaluate = jax.jit(loss)
        numeric = [(evaluate(x + 1e-6 * d) - evaluate(x - 1e-6 * d)) / 2e-6 for d in directions]
        np.testing.assert_allclose(directions @ jax.jit(jax.grad(loss))(x), numeric, rtol=1e-6)


def test_the_embedded_hand_is_a_right_hand_of_human_size():
    joints, vertices = (
        np.asarray(x[0]) for x in HAND(np.zeros((1, 48), "f4"), np.zeros((1, 10), "f4"), np.zeros((1, 3), "f4"))
    )
    rest = numpy_lbs(dataclasses.replace(HAND, hands_mean=np.zeros(45)), np.zeros(48), np.zeros(10), np.zeros(3))[0]
    tips = rest[list(skeleton.FINGERTIPS_21)]
    assert np.abs(rest[0]).max() < 1e-6
    assert 0.175 < np.linalg.norm(tips[2]) < 0.2
    assert (tips[:, 0] < -0.08).all(), "fingers along -x"
    assert (np.diff(tips[1:, 2]) < 0).all() and tips[0, 2] > tips[1, 2], "z towards the thumb"
    # Seen from the back with the fingers up, a right hand has its thumb on the left.
    assert np.cross(-np.array([1.0, 0, 0]), np.array([0, 1.0, 0])) @ tips[0] < 0
    assert np.isfinite(joints).all() and np.isfinite(vertices).all()
    bent = poses.finger_pose(HAND.flexion_axes, 1, (0.5, 0.5, 0.5), 0.0)
    full = np.zeros((16, 3))
    full[1:4] = bent
    flexed = HAND.from_rotations(
        Rotation.from_rotvec(full).as_matrix().astype("f4")[None], BETAS[:1] * 0, TRANSL[:1] * 0
    )[0]
    assert flexed[0, 8, 1] < rest[8, 1] - 0.02, "positive flexion moves the index tip to the palm (-y)"


def test_the_embedded_arrays_are_a_hand_model():
    np.testing.assert_allclose(HAND.weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(HAND.J_regressor.sum(1), 1, atol=1e-6)
    assert HAND.weights.min() >= 0 and HAND.J_regressor.min() >= 0
    np.testing.assert_allclose(HAND.hands_components @ HAND.hands_components.T, np.eye(45), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(HAND.flexion_axes, axis=1), 1, atol=1e-6)


def test_the_mesh_is_closed_but_for_the_wrist_and_faces_outward():
    directed = collections.Counter((f[i], f[(i + 1) % 3]) for f in HAND.faces.tolist() for i in range(3))
    assert max(directed.values()) == 1, "consistent winding"
    rim = {a: b for a, b in directed if (b, a) not in directed}
    loop = [next(iter(rim))]
    while rim[loop[-1]] != loop[0]:
        loop.append(rim[loop[-1]])
    assert len(loop) == len(rim) == 16, "one loop"
    assert 778 - len(directed | collections.Counter({(b, a): 1 for a, b in directed})) // 2 + 1538 == 1
    lid = [(loop[0], loop[k + 1], loop[k]) for k in range(1, 15)]
    a, b, c = HAND.v_template[np.concatenate([HAND.faces, lid])].astype(np.float64).transpose(1, 0, 2)
    volume = np.sum(a * np.cross(b, c)) / 6
    assert 2e-4 < volume < 5e-4, "positive: outward; an adult hand has about a third of a litre"


def test_random_poses_are_in_reach_of_the_pca():
    pose = np.stack([poses.random_pose(HAND.flexion_axes, RNG)[1:].ravel() for _ in range(200)])
    coefficients = (pose - HAND.hands_mean) @ HAND.hands_components.T
    left_out = pose - HAND.hands_mean - coefficients[:, :15] @ HAND.hands_components[:15]
    assert np.var(left_out) < 0.02 * np.var(pose)


def test_skeleton_tables_agree():
    names_16 = skeleton.JOINT_NAMES_16 + tuple(f"{finger}_tip" for finger in skeleton.FINGERS)
    renamed = {"1": "mcp", "2": "pip", "3": "dip"}
    names = [names_16[k] for k in skeleton.JOINTS_16_TO_21]
    names = [f"{n[:-1]}{renamed[n[-1]]}" if n[-1] in renamed else n for n in names]
    assert tuple(names) == skeleton.JOINT_NAMES_21
    for a, b in skeleton.BONES_21:
        assert a == 0 or skeleton.JOINT_NAMES_21[a].split("_")[0] == skeleton.JOINT_NAMES_21[b].split("_")[0]
    for finger, parent in zip(skeleton.FINGERS, skeleton.TIP_PARENTS, strict=True):
        assert skeleton.JOINT_NAMES_16[parent] == f"{finger}_3"
