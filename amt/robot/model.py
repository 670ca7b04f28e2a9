"""The robot by name: a UR5e with an Allegro hand, as arrays that both JAX kinematics and MuJoCo scenes
use.

Frames. `base` has z up and its origin on the mounting plane. `palm` is the Allegro's own frame: fingers along
+z, index finger at +y, the palm looks along +x, origin between the knuckles. `wrist` is parallel to `palm` at
the bottom of the palm, where the hand is mounted. `ff_tip, mf_tip, rf_tip, th_tip` (index, middle, ring,
thumb) sit in the centre of the spherical end of each finger, z along the last bone. The left hand is the right one
mirrored in its palm's plane y = 0, with the same joint names; `SPREADING` joints turn the other way for it, as in
Menagerie's `left_hand.xml` (and on the hardware): there the mirrored pose has the opposite angle, elsewhere the same.

Mount. The palm's bottom stands 5 mm in front of the UR5e's flange (an adapter plate), without a twist: palm z
is the flange's z.

Figures: MuJoCo Menagerie `universal_robots_ur5e` (BSD-3) and `wonik_allegro` (BSD-2), in `robot_facts.json`.
"""

import dataclasses
import functools
import json
from importlib import resources

import numpy as np
from jaxtyping import Float, Int

from amt.errors import UserError

# UR5e data sheet: 180 deg/s on every joint.
ARM_MAX_VELOCITY = float(np.pi)
# Allegro data sheet: 0.11 s per 60 deg without load, 9.5 rad/s. Two thirds of it leave torque for the load.
HAND_MAX_VELOCITY = float(2 * np.pi)

PALM_HEIGHT = 0.095  # from the bottom of the palm to the knuckles
ADAPTER_THICKNESS = 0.005

FINGERS = ("ff", "mf", "rf", "th")
# Abduction of index, middle and ring: about +z of the palm in either hand, so that a mirror image negates it.
SPREADING = ("ffj0", "mfj0", "rfj0")
NUM_ARM_JOINTS = 6
NUM_JOINTS = 22

# Each named frame: its body, and its origin in that body (the frame is parallel to the body).
FRAMES = {
    "palm": ("palm", (0.0, 0.0, 0.0)),
    "wrist": ("palm", (0.0, 0.0, -PALM_HEIGHT)),
    "ff_tip": ("ff_tip", (0.0, 0.0, 0.029)),
    "mf_tip": ("mf_tip", (0.0, 0.0, 0.029)),
    "rf_tip": ("rf_tip", (0.0, 0.0, 0.029)),
    "th_tip": ("th_tip", (0.0, 0.0, 0.043)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Robot:
    """A tree of bodies, each with at most one hinge; joints in robot order, bodies parents first.

    `side` is its hand's, right or left. `body_joint` is -1 for a body that is fixed to its parent; `body_axis` is the
    hinge's axis in the body's frame. Compared and hashed by identity, so that it can be a static argument of `jax.jit`.
    """

    side: str
    joint_names: tuple[str, ...]
    limits: Float[np.ndarray, "22 2"]
    max_velocity: Float[np.ndarray, " 22"]
    body_names: tuple[str, ...]
    body_parent: Int[np.ndarray, " bodies"]
    body_pos: Float[np.ndarray, "bodies 3"]
    body_quat: Float[np.ndarray, "bodies 4"]
    body_joint: Int[np.ndarray, " bodies"]
    body_axis: Float[np.ndarray, "bodies 3"]
    facts: dict

    def joint(self, name: str) -> int:
        """The index of a joint in robot order; ValueError for an unknown name."""
        return self.joint_names.index(name)


SIDES = ("right", "left")


def read_facts(side: str = "right") -> dict:
    """The figures of both machines, joined into one tree: `bodies`, `joints`, `actuators`, `geoms`."""
    text = resources.files("amt.robot").joinpath("robot_facts.json").read_text()
    data = json.loads(text)
    arm, hand = data["ur5e"], data["allegro_right"] if side == "right" else _mirrored(data["allegro_right"])
    site = next(site for site in arm["sites"] if site["name"] == "attachment_site")
    palm = dict(hand["bodies"][0])
    # The site's z points along the body's y: the palm stands off along it.
    palm["parent"], palm["quat_wxyz"] = site["body"], site["quat_wxyz"]
    palm["pos"] = [0.0, site["pos"][1] + ADAPTER_THICKNESS + PALM_HEIGHT, 0.0]
    return {
        "bodies": arm["bodies"] + [palm] + hand["bodies"][1:],
        "joints": arm["joints"] + hand["joints"],
        "actuators": arm["actuators"] + hand["actuators"],
        "geoms": arm["collision_primitives"] + hand["collision_primitives"],
    }


@functools.cache
def load_robot(side: str = "right") -> Robot:
    """UR5e + Allegro, `right` or `left` hand. The same object every time. UserError for another side."""
    if side not in SIDES:
        raise UserError(f"robot: side {side!r} is not one of {', '.join(SIDES)}")
    facts = read_facts(side)
    bodies, joints = facts["bodies"], facts["joints"]
    names = tuple(body["name"] for body in bodies)
    joint_of = {joint["body"]: index for index, joint in enumerate(joints)}
    axis_of = {joint["body"]: joint["axis"] for joint in joints}
    num_hand = len(joints) - NUM_ARM_JOINTS
    return Robot(
        side=side,
        joint_names=tuple(joint["name"] for joint in joints),
        limits=np.array([joint["range"] for joint in joints]),
        max_velocity=np.array([ARM_MAX_VELOCITY] * NUM_ARM_JOINTS + [HAND_MAX_VELOCITY] * num_hand),
        body_names=names,
        body_parent=np.array([-1 if b["parent"] == "world" else names.index(b["parent"]) for b in bodies]),
        body_pos=np.array([body["pos"] for body in bodies]),
        body_quat=np.array([_unit(body["quat_wxyz"]) for body in bodies]),
        body_joint=np.array([joint_of.get(name, -1) for name in names]),
        body_axis=np.array([axis_of.get(name, [0.0, 0.0, 1.0]) for name in names]),
        facts=facts,
    )


def _mirrored(hand: dict) -> dict:
    """The left hand: in the plane y = 0. An axis is no vector: for the hinge's angle to stay, it flips x and z."""
    signs = {"pos": (1, -1, 1), "com": (1, -1, 1), "axis": (-1, 1, -1)}
    signs |= {"quat_wxyz": (1, -1, 1, -1), "inertia_quat_wxyz": (1, -1, 1, -1)}

    def flip(record):
        return {k: [s * x for s, x in zip(signs[k], v, strict=True)] if k in signs else v for k, v in record.items()}

    def turn(record, name):
        """The other way round where the joint spreads: its axis, and what it and its actuator are limited to."""
        if name not in SPREADING:
            return record
        axis = {"axis": [-x for x in record["axis"]]} if "axis" in record else {}
        return record | axis | {k: [-x for x in record[k][::-1]] for k in ("range", "ctrlrange") if k in record}

    flipped = {part: [flip(r) for r in hand[part]] for part in ("bodies", "joints", "collision_primitives")}
    joints = [turn(record, record["name"]) for record in flipped["joints"]]
    return hand | flipped | {"joints": joints, "actuators": [turn(r, r["joint"]) for r in hand["actuators"]]}


def _unit(quat: list[float]) -> np.ndarray:
    return np.array(quat) / np.linalg.norm(quat)
