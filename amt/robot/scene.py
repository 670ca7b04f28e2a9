"""MuJoCo scenes with the robot, built by name with MjSpec: primitives, so no mesh files are needed (but see `meshes`).

The scene's world is the robot's base frame: metres, z up, the table's top at z = 0.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.robot.meshes import add_meshes
from amt.robot.model import ADAPTER_THICKNESS, FINGERS, FRAMES, PALM_HEIGHT, Robot, load_robot

SHAPES = {"box": 3, "cylinder": 2, "capsule": 2, "sphere": 1}  # shape: how many sizes it has
TABLE_SIZE = (1.2, 1.2, 0.02)  # half sizes; wide enough for the whole reach of the arm
GHOST_RGBA = (0.15, 0.75, 0.35, 0.35)
OBJECT_RGBA = (0.85, 0.45, 0.15, 1.0)
ARM_RGBA, JOINT_RGBA = (0.72, 0.75, 0.8, 1.0), (0.25, 0.45, 0.7, 1.0)
HAND_RGBA, TIP_RGBA = (0.17, 0.18, 0.2, 1.0), (0.85, 0.83, 0.78, 1.0)
THUMB_RGBA = (0.33, 0.2, 0.2, 1.0)  # told apart from the fingers in a picture
# Armature stands for the rotors of the geared finger motors; Menagerie has none, which needs smaller steps.
HAND_ARMATURE = 0.001
CAMERA, HAND_CAMERA = "overview", "hand"
SHOWN, HIDDEN = 0, 3  # groups of geoms
MAX_RENDER_SIZE = 1920, 1080  # pixels, width and height, of the offscreen buffer

# Neighbours that overlap by construction: one joint apart (MuJoCo leaves parent and child out by itself).
_OVERLAPS = [
    ("palm", "ff_proximal"),
    ("palm", "mf_proximal"),
    ("palm", "rf_proximal"),
    ("palm", "th_proximal"),
    ("palm", "wrist_2_link"),
    ("base", "upper_arm_link"),
    ("shoulder_link", "forearm_link"),
    ("forearm_link", "wrist_2_link"),
    ("wrist_1_link", "wrist_3_link"),
    *[(f"{finger}_medial", f"{finger}_tip") for finger in FINGERS],
    *[(f"{finger}_proximal", f"{finger}_distal") for finger in FINGERS],
]


@dataclasses.dataclass(frozen=True)
class Part:
    """One primitive of an object, placed in the object's frame; metres, quaternion wxyz.

    `size` are MuJoCo half sizes: box (x, y, z), cylinder and capsule (radius, half length along z), sphere (radius).
    """

    shape: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """A primitive in the scene, in the base frame, or several of them fixed to each other.

    `shape` and `size` are those of a `Part` in the middle of the object's frame; `parts` are further ones. With `shape`
    empty there are only those. `mass` in kg, of all parts by their volume. A `ghost` is only seen: a translucent mocap
    body without collision. Others move freely.
    """

    name: str
    shape: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.5, 0.0, 0.1)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    mass: float = 0.2
    ghost: bool = False
    rgba: tuple[float, float, float, float] | None = None
    parts: tuple[Part, ...] = ()


def build_scene(
    objects: Iterable[SceneObject] = (),
    robot: Robot | None = None,
    *,
    table: bool = True,
    self_collision: bool = True,
    timestep: float = 0.002,
    meshes: str | Path = "",
) -> mujoco.MjSpec:
    """The robot on a table, with lights, `objects`, and the cameras `overview` and `hand`.

    Compile it with `.compile()`. Joints come first in `qpos`, in robot order; so do the 22 position actuators
    in `ctrl` (radians), with the gains of MuJoCo Menagerie. Gravity is compensated on the robot. Sites carry
    the names of `model.FRAMES`. `self_collision=False` leaves only contacts of the robot with the table and
    objects. `timestep` in seconds. `meshes` is a checkout of MuJoCo Menagerie, whose meshes are then seen instead of
    the robot's primitives; those still are what collides (group 3).
    Raises UserError for an unknown shape, a wrong number of sizes, a name that appears twice or a missing mesh.
    """
    robot = robot or load_robot()
    spec = mujoco.MjSpec()
    spec.modelname = "ur5e_allegro"
    spec.compiler.degree = False
    spec.option.timestep = timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    _add_surroundings(spec, table)
    _add_robot(spec, robot, self_collision, HIDDEN if meshes else SHOWN)
    if meshes:
        add_meshes(spec, robot.side, meshes)
    names = set(robot.body_names) | {"table"}
    for item in objects:
        if item.name in names:
            raise UserError(f"scene: the name {item.name!r} appears twice; every object needs its own name")
        names.add(item.name)
        _add_object(spec, item)
    return spec


def look_from(camera: mujoco.MjsCamera, eye: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"]) -> None:
    """Put a camera at `eye` and turn it to `target`, upright; both in the base frame."""
    back = np.asarray(eye, float) - np.asarray(target, float)
    right = np.cross([0.0, 0.0, 1.0], back)
    up = np.cross(back, right)
    R = np.stack([axis / np.linalg.norm(axis) for axis in (right, up, back)], axis=-1)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, R.ravel())
    camera.pos, camera.quat = eye, quat


def _add_surroundings(spec: mujoco.MjSpec, table: bool) -> None:
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.4, 0.4, 0.4]
    getattr(spec.visual, "global").offwidth, getattr(spec.visual, "global").offheight = MAX_RENDER_SIZE
    spec.visual.quality.shadowsize = 2048
    sky = mujoco.mjtTexture.mjTEXTURE_SKYBOX
    gradient = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
    spec.add_texture(
        name="sky",
        type=sky,
        builtin=gradient,
        rgb1=[0.93, 0.95, 0.97],
        rgb2=[0.7, 0.75, 0.8],
        width=256,
        height=256,
    )
    world = spec.worldbody
    world.add_light(pos=[0.8, -1.0, 2.5], dir=[-0.3, 0.4, -1.0], castshadow=True, diffuse=[0.5, 0.5, 0.5])
    world.add_light(pos=[-1.0, 1.5, 2.0], dir=[0.5, -0.7, -1.0], castshadow=False, diffuse=[0.25, 0.25, 0.25])
    eye = np.array([1.35, -0.9, 0.75])
    look_from(world.add_camera(name=CAMERA, fovy=40.0), eye, np.array([0.3, 0.0, 0.36]))
    closeup = world.add_camera(name=HAND_CAMERA, fovy=15.0, mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY)
    closeup.pos, closeup.targetbody = eye, "palm"
    if table:
        world.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=TABLE_SIZE,
            pos=[0.0, 0.0, -TABLE_SIZE[2]],
            rgba=[0.86, 0.82, 0.75, 1.0],
        )


def _add_robot(spec: mujoco.MjSpec, robot: Robot, self_collision: bool, group: int) -> None:
    facts = robot.facts
    bodies = {"world": spec.worldbody}
    joint_of = {joint["body"]: joint for joint in facts["joints"]}
    for record in facts["bodies"]:
        name = record["name"]
        body = bodies[name] = bodies[record["parent"]].add_body(
            name=name,
            pos=record["pos"],
            quat=record["quat_wxyz"],
            mass=record["mass"],
            ipos=record["com"],
            iquat=record["inertia_quat_wxyz"],
            inertia=record["diag_inertia"],
            explicitinertial=True,
            gravcomp=1.0,
        )
        if joint := joint_of.get(name):
            body.add_joint(
                name=joint["name"],
                axis=joint["axis"],
                range=joint["range"],
                limited=mujoco.mjtLimited.mjLIMITED_TRUE,
                armature=joint["armature"] or HAND_ARMATURE,
                damping=joint["damping"],
            )
    # Robot geoms are of type 2 and meet the world's type 1; they also meet each other if asked to.
    affinity = 3 if self_collision else 1
    for record in facts["geoms"]:
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{record['type'].upper()}")
        bodies[record["body"]].add_geom(
            type=kind,
            size=record["size"],
            pos=record["pos"],
            quat=record["quat_wxyz"],
            rgba=_colour(record),
            contype=2,
            conaffinity=affinity,
            mass=0.0,
            group=group,
        )
    # What is only seen: a shell for the fixed base, and the adapter between flange and palm.
    bodies["base"].add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.075, 0.05, 0],
        pos=[0, 0, 0.05],
        rgba=ARM_RGBA,
        contype=0,
        conaffinity=0,
        group=group,
    )
    bodies["palm"].add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.038, ADAPTER_THICKNESS / 2, 0],
        pos=[0, 0, -PALM_HEIGHT - ADAPTER_THICKNESS / 2],
        rgba=ARM_RGBA,
        contype=0,
        conaffinity=0,
    )
    for frame, (body, offset) in FRAMES.items():
        bodies[body].add_site(name=frame, pos=offset, size=[0.004, 0.004, 0.004], group=4)
    for first, second in _OVERLAPS:
        spec.add_exclude(bodyname1=first, bodyname2=second)
    for record in facts["actuators"]:
        _add_actuator(spec, record)


def _add_actuator(spec: mujoco.MjSpec, record: dict) -> None:
    low, high = record["forcerange"]
    limited, free = mujoco.mjtLimited.mjLIMITED_TRUE, mujoco.mjtLimited.mjLIMITED_FALSE
    spec.add_actuator(
        name=record["name"],
        target=record["joint"],
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=record["gain"] + [0.0] * 9,
        biasprm=record["bias"] + [0.0] * 7,
        ctrlrange=record["ctrlrange"],
        ctrllimited=limited,
        forcerange=[low, high],
        forcelimited=limited if high > low else free,
    )


def _add_object(spec: mujoco.MjSpec, item: SceneObject) -> None:
    parts = (*([Part(item.shape, item.size)] if item.shape else []), *item.parts)
    if not parts:
        raise UserError(f"scene object {item.name!r}: it has neither a shape nor parts")
    for part in parts:
        count = SHAPES.get(part.shape)
        if count is None:
            raise UserError(f"scene object {item.name!r}: shape {part.shape!r} is not one of {', '.join(SHAPES)}")
        if len(part.size) != count or min(part.size) <= 0:
            raise UserError(f"scene object {item.name!r}: {part.shape} needs {count} positive sizes, got {part.size}")
    body = spec.worldbody.add_body(name=item.name, pos=item.pos, quat=item.quat, mocap=item.ghost)
    volume = sum(_volume(part) for part in parts)
    for number, part in enumerate(parts):
        geom = body.add_geom(
            name=item.name if number == 0 else f"{item.name}_part{number}",
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{part.shape.upper()}"),
            size=[*part.size, *[0.0] * (3 - len(part.size))],
            pos=part.pos,
            quat=part.quat,
            rgba=item.rgba or (GHOST_RGBA if item.ghost else OBJECT_RGBA),
        )
        if item.ghost:
            geom.contype = geom.conaffinity = 0
            geom.mass = 0.0
        else:
            geom.mass, geom.contype, geom.conaffinity = item.mass * _volume(part) / volume, 1, 3
    if not item.ghost:
        body.add_freejoint(name=item.name)


def _volume(part: Part) -> float:
    r = part.size[0]
    if part.shape == "box":
        return 8 * float(np.prod(part.size))
    ball = 0.0 if part.shape == "cylinder" else 4 / 3 * np.pi * r**3
    return ball + (2 * np.pi * r**2 * part.size[1] if len(part.size) > 1 else 0.0)


def _colour(record: dict) -> tuple[float, float, float, float]:
    body = record["body"]
    if body.endswith("_tip"):
        return TIP_RGBA
    if body.startswith("th_"):
        return THUMB_RGBA
    if body == "palm" or body[:3] in ("ff_", "mf_", "rf_"):
        return HAND_RGBA
    return JOINT_RGBA if abs(record["quat_wxyz"][1]) > 0.1 else ARM_RGBA
