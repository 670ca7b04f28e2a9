"""The articulated hand moves as the skinned hand does, and its capsules are where the skin is."""

import mujoco
import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.synthetic import articulated, planning
from amt.hand import skeleton


@pytest.fixture(scope="module", params=[0, 1])
def posed(request):
    """(hand, betas, model, data) of a subject."""
    hand = hand_model.load()
    betas = np.clip(np.random.default_rng(request.param).normal(0, 1, 10), -2, 2) * request.param
    spec = mujoco.MjSpec()
    articulated.add_hand(spec, hand, betas)
    model = spec.compile()
    return hand, betas, model, mujoco.MjData(model)


def bodies(model):
    return [model.body(f"hand{k}").id for k in range(16)]


def test_joints_of_the_skin_are_where_the_bodies_are(posed):
    hand, betas, model, data = posed
    rng = np.random.default_rng(3)
    limits = np.array([model.joint(name).range for name in articulated.joint_names()])
    for _ in range(10):
        data.qpos[:3] = rng.normal(size=3)
        data.qpos[3:7] = rng.normal(size=4)
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qpos[7:] = rng.uniform(*limits.T)
        mujoco.mj_kinematics(model, data)
        rotations = articulated.joint_rotations(data.xmat[bodies(model)]).astype(np.float32)
        joints, _, T = hand.from_rotations(rotations, betas.astype(np.float32), np.zeros(3, np.float32))
        wrist = data.xpos[bodies(model)[0]]
        joints = np.asarray(joints)[np.argsort(skeleton.JOINTS_16_TO_21)][:16]
        np.testing.assert_allclose(joints - joints[0] + wrist, data.xpos[bodies(model)], atol=1e-5)
        np.testing.assert_allclose(np.asarray(T)[:, :3, :3].reshape(16, 9), data.xmat[bodies(model)], atol=1e-5)


def test_hinges_are_named_in_the_order_of_qpos_and_have_limits_in_radians(posed):
    _, _, model, _ = posed
    names = articulated.joint_names()
    assert [model.joint(i + 1).name for i in range(21)] == names == [model.actuator(i).name for i in range(21)]
    np.testing.assert_allclose(model.joint("index_mcp").range, articulated.FINGER_LIMITS["mcp"])
    np.testing.assert_allclose(model.joint("thumb_ip").range, articulated.THUMB_LIMITS["ip"])
    assert (model.actuator_forcerange[:, 1] > 0).all() and model.actuator_forcelimited.all()


def test_capsules_are_measured_from_the_skin(posed):
    """The skin of every finger lies within millimetres of the capsules' surface."""
    hand, betas, *_ = posed
    vertices, _, _ = articulated.rest_shape(hand, betas)
    owner = np.asarray(hand.weights).argmax(1)
    distance = np.min([c.distance(vertices) for c in articulated.capsules(hand, betas)], axis=0)
    for joint in range(1, 16):
        assert np.median(np.abs(distance[owner == joint])) < (0.004 if joint == articulated.THUMB else 0.002)
    palm = (owner == 0) & (vertices[:, 0] < -0.03)
    assert np.median(np.abs(distance[palm])) < 0.004


def test_pads_look_to_the_palm(posed):
    hand, betas, *_ = posed
    _, places, normals = articulated.pads(hand, betas)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert (normals[1:, 1] < -0.5).all()  # the back of the hand is +y
    assert normals[0, 2] < -0.5  # the thumb's looks away from the thumb's side


def test_the_wrist_follows_its_target(posed):
    _, _, model, data = posed
    mujoco.mj_resetData(model, data)
    data.mocap_pos[0] = [0.01, 0.0, 0.02]
    for _ in range(300):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.xpos[model.body("hand0").id], data.mocap_pos[0], atol=1e-3)


def test_grips_stay_within_the_limits_and_open_as_they_say(posed):
    hand, betas, model, data = posed
    limits = np.array([model.joint(name).range for name in articulated.joint_names()])
    for keys in (planning.PINCH, planning.POWER):
        gaps = []
        for key in keys:
            posture = planning.full_posture(key)
            assert (posture >= limits[:, 0] - 1e-9).all() and (posture <= limits[:, 1] + 1e-9).all()
            data.qpos[:7], data.qpos[7:] = [0, 0, 0, 1, 0, 0, 0], posture
            mujoco.mj_kinematics(model, data)
            joints, places, _ = articulated.pads(hand, betas)
            ids = [model.body(f"hand{k}").id for k in joints]
            pads = np.einsum("nij,nj->ni", data.xmat[ids].reshape(-1, 3, 3), places) + data.xpos[ids]
            gaps.append(np.linalg.norm(pads[0] - pads[1:3].mean(0)))
        np.testing.assert_allclose(gaps, [0.008, 0.03, 0.055, 0.085, 0.11, 0.13], atol=0.025)  # hands differ
        assert (np.diff(gaps) > 0).all()
