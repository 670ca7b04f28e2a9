"""The default hand as an articulated MuJoCo body: hinges with limits, capsules along the bones, position actuators.

Frames are those of `amt.hand`: every body has the axes of the rest pose and its origin at its joint, so that its
rotation relative to its parent's body is the model's joint rotation. The wrist is free and is pulled by a weld to the
mocap body `target`. Newtons, newton-metres, radians, metres.
"""

import mujoco
import numpy as np
from jaxtyping import Float

from amt.hand import HandModel, skeleton
from amt.hand.poses import SPREAD_AXIS

THUMB = 13  # first of the thumb's joints in the order of the 16
THUMB_BONE = np.array([-1.0, 0.0, 0.6]) / np.hypot(1.0, 0.6)
# Radians: goniometry as in `amt.hand.poses`, whose random poses these limits hold.
FINGER_LIMITS = {"spread": (-0.35, 0.35), "mcp": (-0.35, 1.57), "pip": (-0.05, 1.83), "dip": (-0.1, 1.22)}
THUMB_LIMITS = {
    "flex": (-0.5, 1.0),
    "abduct": (-1.45, 0.6),  # negative: opposed to the fingers
    "twist": (-1.25, 0.6),
    "mcp": (-0.2, 0.95),
    "ip": (-0.3, 1.25),
}
TORQUE = {"spread": 0.3, "mcp": 0.7, "pip": 0.45, "dip": 0.25, "flex": 1.2, "abduct": 1.2, "twist": 0.8, "ip": 0.4}
STIFFNESS = 4.0  # newton-metres per radian of a position actuator
DAMPING = 0.06
ARMATURE = 3e-4  # kg m^2: links weigh 10 to 30 g, without it they need far smaller steps
DENSITY = 1100.0  # kg/m^3, of flesh
PALM_MASS = 0.35  # kg
FRICTION = (1.3, 0.01, 0.0005)  # dry skin, 0.5 to 1.5 and more: Derler and Gerhardt, Tribology Letters 2012
HAND_BIT, OBJECT_BIT, THUMB_BIT = 1, 2, 4  # collision groups: hand and objects, objects and objects, thumb and fingers

FIRST_JOINTS = (1, 4, 7, 10)  # index, middle, little, ring


class Capsule:
    """A segment in the rest pose from `a` to `b` with `radius`, carried by one of the 16 joints."""

    def __init__(self, joint: int, a: np.ndarray, b: np.ndarray, radius: float):
        self.joint, self.a, self.b, self.radius = joint, a, b, radius

    def distance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Signed distance of points in the rest pose."""
        along = self.b - self.a
        t = np.clip((points - self.a) @ along / (along @ along), 0, 1)
        return np.linalg.norm(points - self.a - t[:, None] * along, axis=1) - self.radius


def rest_shape(hand: HandModel, betas: Float[np.ndarray, " 10"]):
    """Vertices [778,3], the 16 joints and the 5 tips of a subject's rest pose, float64."""
    vertices = np.asarray(hand.v_template, np.float64) + np.asarray(hand.shapedirs, np.float64) @ betas
    return vertices, np.asarray(hand.J_regressor, np.float64) @ vertices, vertices[list(hand.tip_vertices)]


def capsules(hand: HandModel, betas: Float[np.ndarray, " 10"]) -> list[Capsule]:
    """Capsules measured from the skin: two along every finger bone, three along each bone of the palm."""
    vertices, joints, tips = rest_shape(hand, betas)
    owner = np.asarray(hand.weights).argmax(1)
    ends = dict(zip(skeleton.TIP_PARENTS, tips, strict=True))
    axes = np.asarray(hand.flexion_axes, np.float64)
    out = []
    for joint in range(1, 16):
        end = ends[joint] if joint in ends else joints[joint + 1]
        skin = vertices[owner == joint]
        halves = ((0.0, 0.5), (0.5, 1.0)) if joint not in (THUMB,) else ((0.35, 0.7), (0.7, 1.0))
        for span in halves:
            out.append(_fit(joint, joints[joint], end, axes[joint], skin, span, joint in ends and span[1] == 1.0))
    palm = vertices[owner == 0]
    for joint in FIRST_JOINTS:
        start = joints[0] + [0, 0, 0.5 * joints[joint][2]]
        along = (joints[joint] - start) / np.linalg.norm(joints[joint] - start)
        strip = palm[np.abs((palm - start) @ np.cross(along, [0.0, 1.0, 0.0])) < 0.009]
        for span in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
            out.append(_fit(0, start, joints[joint], np.array([0.0, 0.0, 1.0]), strip, span, False))
    return out


def _fit(joint, start, end, axis, skin, span, is_tip) -> Capsule:
    """The capsule over a part of a bone: its thickness across the flexion axis is the skin's, its middle too."""
    along = (end - start) / np.linalg.norm(end - start)
    side = axis - along * (axis @ along)
    side /= np.linalg.norm(side)
    palmar = np.cross(along, side)
    length = np.linalg.norm(end - start)
    local = (skin - start) @ np.stack([along, side, palmar], 1)
    margin = 0.15 * length
    part = local[(local[:, 0] > span[0] * length - margin) & (local[:, 0] < span[1] * length + margin)]
    if len(part) < 6:
        part = local
    low, high = np.percentile(part[:, 1:], [15, 85] if joint == 0 else [4, 96], axis=0)
    radius = float((high - low)[1 if joint == 0 else slice(None)].min() / 2)  # a strip of the palm has no sides
    middle = (low + high) / 2
    a = start + along * span[0] * length + side * middle[0] + palmar * middle[1]
    b = start + along * span[1] * length + side * middle[0] + palmar * middle[1]
    if is_tip:
        b = b - along * min(radius, 0.4 * length)
    return Capsule(joint, a, b, radius)


def pads(hand: HandModel, betas: Float[np.ndarray, " 10"]) -> tuple[list[int], Float[np.ndarray, "5 3"], np.ndarray]:
    """The joints that carry the pads of thumb, index, middle, ring and little finger, and each pad's place and normal.

    Place and normal are in the frame of the joint's body.
    """
    _, joints, _ = rest_shape(hand, betas)
    axes = np.asarray(hand.flexion_axes, np.float64)
    last = {c.joint: c for c in capsules(hand, betas)}  # the one at the tip
    points, normals = [], []
    for joint in skeleton.TIP_PARENTS:
        capsule = last[joint]
        along = capsule.b - capsule.a
        normal = np.cross(axes[joint], along)
        normals.append(normal / np.linalg.norm(normal))
        points.append((capsule.a + capsule.b) / 2 + normals[-1] * capsule.radius - joints[joint])
    return list(skeleton.TIP_PARENTS), np.array(points), np.array(normals)


def joint_names() -> list[str]:
    """Names of the 21 hinges in the order of `qpos`: `index_spread`, `index_mcp`, ..., `thumb_ip`."""
    names = []
    for finger in ("index", "middle", "little", "ring"):
        names += [f"{finger}_{k}" for k in FINGER_LIMITS]
    return names + [f"thumb_{k}" for k in THUMB_LIMITS]


def _hinges(joint: int, axes) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """Name, axis and limits of a joint's hinges, the outermost first."""
    name = skeleton.JOINT_NAMES_16[joint]
    finger, level = name.split("_")
    if finger == "thumb":
        across = np.cross(axes[THUMB], THUMB_BONE)
        root = [("flex", axes[THUMB]), ("abduct", across / np.linalg.norm(across)), ("twist", THUMB_BONE)]
        chosen = {"1": root, "2": [("mcp", axes[joint])], "3": [("ip", axes[joint])]}[level]
        return [(f"thumb_{k}", axis, THUMB_LIMITS[k]) for k, axis in chosen]
    root = [("spread", SPREAD_AXIS), ("mcp", axes[joint])]
    chosen = {"1": root, "2": [("pip", axes[joint])], "3": [("dip", axes[joint])]}[level]
    return [(f"{finger}_{k}", axis, FINGER_LIMITS[k]) for k, axis in chosen]


def add_hand(spec: mujoco.MjSpec, hand: HandModel, betas: Float[np.ndarray, " 10"]) -> None:
    """Adds bodies `hand0`..`hand15`, geoms `hand{joint}_{k}`, the actuators and the mocap body `target` to a scene.

    Bodies are numbered in the order of the 16 joints; hinges and actuators are called as in `joint_names`.
    """
    _, joints, _ = rest_shape(hand, betas)
    axes = np.asarray(hand.flexion_axes, np.float64)
    spec.compiler.degree = False
    target = spec.worldbody.add_body(name="target", mocap=True)
    bodies = [spec.worldbody.add_body(name="hand0", gravcomp=1)]
    bodies[0].add_freejoint(name="wrist")
    bodies[0].explicitinertial = True
    bodies[0].mass, bodies[0].ipos, bodies[0].inertia = PALM_MASS, [-0.05, 0, 0], [3e-4, 5e-4, 5e-4]
    for joint in range(1, 16):
        parent = skeleton.PARENTS[joint]
        body = bodies[parent].add_body(name=f"hand{joint}", pos=joints[joint] - joints[parent], gravcomp=1)
        bodies.append(body)
        for name, axis, limits in _hinges(joint, axes):
            body.add_joint(name=name, axis=axis, range=limits, limited=True, damping=[DAMPING, 0, 0], armature=ARMATURE)
            strength = TORQUE[name.split("_")[1]]
            actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            actuator.set_to_position(kp=STIFFNESS)
            actuator.forcerange, actuator.forcelimited = [-strength, strength], True
            actuator.ctrlrange, actuator.ctrllimited = limits, True
    for k, capsule in enumerate(capsules(hand, betas)):
        thumb = capsule.joint >= THUMB
        bodies[capsule.joint].add_geom(
            name=f"hand{capsule.joint}_{k}",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=np.concatenate([capsule.a, capsule.b]) - np.tile(joints[capsule.joint], 2),
            size=[capsule.radius, 0, 0],
            density=DENSITY,
            friction=FRICTION,
            condim=4,
            contype=HAND_BIT | (THUMB_BIT if thumb else 0),
            conaffinity=0 if thumb or capsule.joint == 0 else THUMB_BIT,
        )
    weld = spec.add_equality(name="wrist", type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY)
    weld.name1, weld.name2 = target.name, bodies[0].name
    weld.data[:11] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]  # anchor, relative pose, share of torque
    weld.solref = [0.006, 1]


def joint_rotations(xmat: Float[np.ndarray, "*n 16 9"]) -> Float[np.ndarray, "*n 16 3 3"]:
    """Rotations of the 16 joints relative to their parents, the wrist's to the world; `xmat` are the bodies'."""
    R = np.reshape(xmat, (*np.shape(xmat)[:-1], 3, 3))
    parents = R[..., np.maximum(skeleton.PARENTS, 0), :, :]
    relative = np.swapaxes(parents, -1, -2) @ R
    relative[..., 0, :, :] = R[..., 0, :, :]
    return relative
