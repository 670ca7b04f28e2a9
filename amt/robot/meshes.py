"""MuJoCo Menagerie's meshes as the robot's look: they are seen, what collides stays the primitives.

Bodies here have the names and frames of Menagerie's `universal_robots_ur5e/ur5e.xml` (BSD-3) and
`wonik_allegro/{right,left}_hand.xml` (BSD-2); the tables are their visual geoms. The files themselves are read from a
checkout of https://github.com/google-deepmind/mujoco_menagerie.
"""

from pathlib import Path
from typing import NamedTuple

import mujoco

from amt.errors import UserError
from amt.robot.chains import HINGES
from amt.robot.model import FINGERS

ARM_FOLDER, HAND_FOLDER = "universal_robots_ur5e/assets", "wonik_allegro/assets"
BLACK, JOINT_GREY = (0.033, 0.033, 0.033, 1.0), (0.278, 0.278, 0.278, 1.0)
LINK_GREY, UR_BLUE = (0.82, 0.82, 0.82, 1.0), (0.49, 0.678, 0.8, 1.0)
HAND_BLACK, HAND_WHITE = (0.2, 0.2, 0.2, 1.0), (0.9, 0.9, 0.9, 1.0)

# Of each body of the arm the stem of its meshes, and the colours of stem_0, stem_1, ...
_ARM = {
    "base": ("base", (BLACK, JOINT_GREY)),
    "shoulder_link": ("shoulder", (UR_BLUE, BLACK, JOINT_GREY)),
    "upper_arm_link": ("upperarm", (LINK_GREY, BLACK, JOINT_GREY, UR_BLUE)),
    "forearm_link": ("forearm", (UR_BLUE, LINK_GREY, BLACK, JOINT_GREY)),
    "wrist_1_link": ("wrist1", (BLACK, UR_BLUE, JOINT_GREY)),
    "wrist_2_link": ("wrist2", (BLACK, UR_BLUE, JOINT_GREY)),
}


class Look(NamedTuple):
    """A mesh on a body: its file in the checkout, and its place in the body's frame (metres, wxyz)."""

    body: str
    file: str
    rgba: tuple[float, float, float, float]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


def looks(side: str) -> list[Look]:
    """Every mesh of the robot with a right or left hand."""
    found = [
        Look(body, f"{ARM_FOLDER}/{stem}_{number}.obj", rgba)
        for body, (stem, colours) in _ARM.items()
        for number, rgba in enumerate(colours)
    ]
    found.append(Look("wrist_3_link", f"{ARM_FOLDER}/wrist3.obj", LINK_GREY))
    # The left hand's own two meshes are drawn in other frames.
    palm, thumb_base = {
        "right": (("base_link", (1.0, 0.0, 0.0, 0.0)), ("link_12.0_right", (1.0, 0.0, 0.0, 0.0))),
        "left": (("base_link_left", (1.0, -1.0, 0.0, 0.0)), ("link_12.0_left", (0.0, 1.0, 0.0, 0.0))),
    }[side]
    for body, (stem, quat) in (("palm", palm), ("th_base", thumb_base)):
        found.append(Look(body, f"{HAND_FOLDER}/{stem}.stl", HAND_BLACK, quat=quat))
    links = [(f"{finger}_{part}", number) for finger in FINGERS[:3] for number, part in enumerate(HINGES)]
    links += [("th_proximal", 13), ("th_medial", 14), ("th_distal", 15)]
    found += [Look(body, f"{HAND_FOLDER}/link_{number}.0.stl", HAND_BLACK) for body, number in links]
    tips = [(f"{finger}_tip", 3, 0.0267) for finger in FINGERS[:3]] + [("th_tip", 15, 0.0423)]
    found += [Look(body, f"{HAND_FOLDER}/link_{n}.0_tip.stl", HAND_WHITE, (0.0, 0.0, z)) for body, n, z in tips]
    return found


def add_meshes(spec: mujoco.MjSpec, side: str, folder: str | Path) -> None:
    """Put the meshes of a checkout on the bodies of a robot's scene. UserError for a file that is missing or broken."""
    known = set()
    for look in looks(side):
        path = Path(folder).expanduser().absolute() / look.file
        name = path.stem
        if name not in known:
            if not path.is_file():
                raise UserError(
                    f"scene: {path} is missing; expected meshes to be a checkout of "
                    "https://github.com/google-deepmind/mujoco_menagerie"
                )
            known.add(name)
            spec.add_mesh(name=name, file=str(path))
        spec.body(look.body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            pos=look.pos,
            quat=look.quat,
            rgba=look.rgba,
            contype=0,
            conaffinity=0,
            mass=0.0,
            group=2,
        )
    try:
        spec.copy().compile()
    except ValueError as error:
        raise UserError(f"scene: MuJoCo cannot read the meshes of {folder}: {error}") from error
