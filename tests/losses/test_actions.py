"""Terms of behaviour cloning by hand, with the robot's kinematics from MuJoCo C."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt.losses.actions import ActionLabels, action_losses
from amt.robot import build_scene, load_robot
from amt.structs import Actions
from tests.robot.hands import smooth_motion

ROBOT = load_robot()
Q = smooth_motion(12, seed=3).astype(np.float32).reshape(1, 3, 4, 22)


def perfect():
    """Actions of 3 frames and 4 steps that are right, and what they should be."""
    grasp = np.tile(np.arange(4) % 2, (1, 3, 1)).astype(np.int32)
    eye = np.tile(np.eye(3, dtype=np.float32), (1, 3, 4, 1, 1))
    ones, x = np.ones((1, 3, 4), np.float32), np.tile(np.float32([1, 0, 0]), (1, 3, 4, 1))
    logits = (40 * np.eye(10)[grasp]).astype(np.float32)
    labels = ActionLabels(Q, 0 * x, eye, grasp, ones, x, ones, np.ones((1, 3), bool), np.ones((1, 3), bool))
    return Actions(Q, 0 * x, eye, logits, ones, x, ones, 40 * ones), labels


def tips(q):
    model = build_scene().compile()
    data = mujoco.MjData(model)
    data.qpos[:22] = q
    mujoco.mj_kinematics(model, data)
    return np.stack([data.site(f"{f}_tip").xpos for f in ("ff", "mf", "rf", "th")]), data.site("wrist").xpos.copy()


def test_what_is_right_costs_nothing():
    actions, labels = perfect()
    found = action_losses(actions, labels, ROBOT)
    still = found.pop("action_velocity")
    assert all(float(value) == pytest.approx(0, abs=2e-5) for value in found.values()), found
    bent = Q[:, :, 2:] - 2 * Q[:, :, 1:-1] + Q[:, :, :-2]
    assert float(still) == pytest.approx(np.sqrt((bent**2).mean()), rel=1e-4)


def test_errors_by_hand():
    actions, labels = perfect()
    off = Q + np.float32(0.02) * np.r_[np.ones(6), np.zeros(16)].astype(np.float32)
    made = action_losses(actions.replace(commands=off, force=actions.force + 20.0, approach=-actions.approach,
                                         aperture=actions.aperture + 0.05, position=actions.position + 0.1),
                         labels, ROBOT)  # fmt: skip
    assert float(made["action_arm"]) == pytest.approx(0.5 * 0.02**2 / 0.1, rel=1e-3)
    assert float(made["action_fingers"]) == 0
    pairs = [(tips(a), tips(b)) for a, b in zip(off.reshape(-1, 22), Q.reshape(-1, 22), strict=True)]
    moved = np.mean([np.linalg.norm(a[0] - b[0], axis=-1).mean() for a, b in pairs])
    wrist = np.mean([np.linalg.norm(a[1] - b[1]) for a, b in pairs])
    assert float(made["action_tips"]) == pytest.approx(10 * moved, rel=1e-3)
    assert float(made["action_wrist"]) == pytest.approx(10 * wrist, rel=1e-3)
    assert float(made["action_force"]) == pytest.approx(np.log(22 / 2) - 0.5)
    assert float(made["action_approach"]) == pytest.approx(2)
    assert float(made["action_aperture"]) == pytest.approx(0.5, rel=1e-4)
    assert float(made["action_position"]) == pytest.approx(np.sqrt(3), rel=1e-4)


def test_a_whole_turn_of_an_arm_joint_is_none():
    actions, labels = perfect()
    turned = Q + np.float32(2 * np.pi) * np.eye(22, dtype=np.float32)[5]
    found = action_losses(actions.replace(commands=turned), labels, ROBOT)
    assert float(found["action_arm"]) == pytest.approx(0, abs=1e-6)
    assert float(found["action_tips"]) == pytest.approx(0, abs=1e-4)
    bent = Q + np.float32(2 * np.pi) * np.eye(22, dtype=np.float32)[9]
    assert float(action_losses(actions.replace(commands=bent), labels, ROBOT)["action_fingers"]) > 0.3


def test_frames_that_teach_nothing_have_no_gradient():
    """All masked: every term but the confidence's is 0, and every gradient finite."""
    actions, labels = perfect()
    labels = labels.replace(valid=np.zeros((1, 3), bool), lifts=np.zeros((1, 3), bool))

    def summed(actions):
        found = action_losses(actions, labels, ROBOT)
        return sum(found.values()), found

    (_, found), gradient = jax.value_and_grad(summed, has_aux=True)(jax.tree.map(jnp.asarray, actions))
    assert float(found.pop("action_confidence")) == pytest.approx(40)
    assert max(map(float, found.values())) <= 1e-6
    assert float(jnp.abs(gradient.commands).max()) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
