"""Both hands against MuJoCo Menagerie's, whose kinematic chains are built here from a table of their figures.

Figures: google-deepmind/mujoco_menagerie, wonik_allegro/right_hand.xml and left_hand.xml (BSD-2, Copyright (c) 2016
SimLab), read on their own, not by way of `robot_facts.json`.
"""

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt.robot import build_scene, forward, load_robot
from amt.robot.kinematics import body_poses
from amt.robot.meshes import looks

# Each body: its name, its place in its parent, and its joint's axis and range. The tips have none.
FINGER = (
    ("proximal", "0 0 0.0164", "0 1 0", (-0.196, 1.61)),
    ("medial", "0 0 0.054", "0 1 0", (-0.174, 1.709)),
    ("distal", "0 0 0.0384", "0 1 0", (-0.227, 1.618)),
)
SPREAD = ("0 0 1", (-0.47, 0.47))  # class "base": the same axis in both files
LEANING = {
    "+y": ("0 0.0435 -0.001542", "0.999048 -0.0436194 0 0"),
    "-y": ("0 -0.0435 -0.001542", "0.999048 0.0436194 0 0"),
}
MIDDLE = ("0 0 0.0007", "1 0 0 0")
BASES = {
    "right": {"ff": LEANING["+y"], "mf": MIDDLE, "rf": LEANING["-y"]},
    "left": {"ff": LEANING["-y"], "mf": MIDDLE, "rf": LEANING["+y"]},
}
THUMBS = {
    "right": (
        ("base", "-0.0182 0.019333 -0.045987", "0.477714 -0.521334 -0.521334 -0.477714", "-1 0 0", (0.263, 1.396)),
        ("proximal", "-0.027 0.005 0.0399", "1 0 0 0", "0 0 1", (-0.105, 1.163)),
        ("medial", "0 0 0.0177", "1 0 0 0", "0 1 0", (-0.189, 1.644)),
        ("distal", "0 0 0.0514", "1 0 0 0", "0 1 0", (-0.162, 1.719)),
    ),
    "left": (
        ("base", "-0.0182 -0.019333 -0.045987", "0.477714 0.521334 -0.521334 0.477714", "1 0 0", (0.263, 1.396)),
        ("proximal", "-0.027 -0.005 0.0399", "1 0 0 0", "0 0 -1", (-0.105, 1.163)),
        ("medial", "0 0 0.0177", "1 0 0 0", "0 1 0", (-0.189, 1.644)),
        ("distal", "0 0 0.0514", "1 0 0 0", "0 1 0", (-0.162, 1.719)),
    ),
}
TIPS = {"ff": 0.029, "mf": 0.029, "rf": 0.029, "th": 0.043}  # ends of the capsules "fingertip" and "thumbtip"
# Visual geoms whose quat is not the identity.
TURNED = {"right": {}, "left": {"palm": (1, -1, 0, 0), "th_base": (0, 1, 0, 0)}}


def chain(side, finger):
    """(body, pos, quat, axis, range) of one finger, from the palm outwards."""
    if finger == "th":
        return THUMBS[side]
    return (("base", *BASES[side][finger], *SPREAD), *((n, pos, "1 0 0 0", a, r) for n, pos, a, r in FINGER))


def menagerie(side):
    bodies = ""
    for finger, length in TIPS.items():
        inner = f'<body name="{finger}_tip"><site name="{finger}_tip" pos="0 0 {length}"/></body>'
        for k, (name, pos, quat, axis, (low, high)) in reversed(list(enumerate(chain(side, finger)))):
            joint = f'<joint name="{finger}j{k}" axis="{axis}" range="{low} {high}"/><geom size="0.01"/>'
            inner = f'<body name="{finger}_{name}" pos="{pos}" quat="{quat}">{joint}{inner}</body>'
        bodies += inner
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><compiler angle="radian"/><worldbody><body name="palm">{bodies}</body></worldbody></mujoco>'
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_body_is_where_menagerie_has_it(side):
    """Our kinematics and our MuJoCo scene; the frames of the bodies, too, on which Menagerie's meshes hang."""
    robot, model = load_robot(side), menagerie(side)
    scene = build_scene(robot=robot).compile()
    data, ours = mujoco.MjData(model), mujoco.MjData(scene)
    bodies = tuple(name for name in robot.body_names if name[:3] in ("ff_", "mf_", "rf_", "th_"))
    low, high = robot.limits.T
    for q in np.random.default_rng(0).uniform(low, high, (20, 22)):
        for name, angle in zip(robot.joint_names[6:], q[6:], strict=True):
            data.joint(name).qpos[0] = angle
        ours.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_kinematics(scene, ours)
        poses = body_poses(robot, jnp.asarray(q, jnp.float32), bodies, root="palm")
        tips = forward(robot, jnp.asarray(q, jnp.float32), root="palm")
        R, t = ours.body("palm").xmat.reshape(3, 3), ours.body("palm").xpos
        for name in bodies:
            body = data.body(name)
            np.testing.assert_allclose(poses[name][1], body.xpos, atol=1e-6)
            np.testing.assert_allclose(poses[name][0], body.xmat.reshape(3, 3), atol=2e-6)
            np.testing.assert_allclose(R.T @ ours.body(name).xmat.reshape(3, 3), body.xmat.reshape(3, 3), atol=1e-7)
        for finger in TIPS:
            wanted = data.site(f"{finger}_tip").xpos
            np.testing.assert_allclose(tips[f"{finger}_tip"][:3, 3], wanted, atol=1e-6)
            np.testing.assert_allclose(R.T @ (ours.site(f"{finger}_tip").xpos - t), wanted, atol=1e-7)


@pytest.mark.parametrize("side", ["right", "left"])
def test_limits_and_actuators_are_menageries(side):
    robot, model = load_robot(side), build_scene(robot=load_robot(side)).compile()
    ranges = [joint[-1] for finger in TIPS for joint in chain(side, finger)]
    axes = [joint[-2] for finger in TIPS for joint in chain(side, finger)]
    np.testing.assert_array_equal(robot.limits[6:], ranges)
    np.testing.assert_array_equal(model.jnt_range[6:22], ranges)
    np.testing.assert_array_equal(model.actuator_ctrlrange[6:22], ranges)
    np.testing.assert_array_equal(model.jnt_axis[6:22], [np.array(axis.split(), float) for axis in axes])
    assert [model.actuator(i).name for i in range(6, 22)] == [f"{f}a{k}" for f in TIPS for k in range(4)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_meshes_lie_in_their_bodies_as_in_menagerie(side):
    for look in looks(side)[20:]:
        np.testing.assert_array_equal(look.quat, TURNED[side].get(look.body, (1, 0, 0, 0)))
