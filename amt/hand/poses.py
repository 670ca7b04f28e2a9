"""Hand poses from flexion and spread angles, and random ones within the range of motion.

Ranges follow clinical goniometry (MCP -20..90, PIP 0..105, DIP 0..70 degrees; fingers spread about 15
degrees), relative to the nearly flat rest pose of the MakeHuman hand. A pose is [16,3] axis-angle, each joint
relative to its parent.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.hand import skeleton

SPREAD_AXIS = np.array([0.0, 1.0, 0.0])  # positive turns a finger towards the thumb's side
# By the first joint of a finger: index, middle, ring, little.
SPREAD_SHARE = {1: 1.0, 4: 0.3, 10: -0.4, 7: -1.0}


def flexion_axes(
    joints: Float[np.ndarray, "16 3"],
    tips: Float[np.ndarray, "5 3"],
    vertices: Float[np.ndarray, "778 3"],
    weights: Float[np.ndarray, "778 16"],
) -> Float[np.ndarray, "16 3"]:
    """Unit axes in the canonical frame; a positive angle about one bends its joint to the palm.

    Fingers: across the bone and the palm's normal (-y). Thumb: the direction, orthogonal to the distal bone,
    in which the distal segment is widest, that is along the nail.
    """
    axes = np.zeros((16, 3))
    axes[0] = (0.0, 0.0, 1.0)
    ends = dict(zip(skeleton.TIP_PARENTS, tips, strict=True))
    for chain in zip(*skeleton.LEVELS, strict=True):
        for joint in chain:
            end = ends[joint] if joint in ends else joints[joint + 1]
            axes[joint] = np.cross(end - joints[joint], (0.0, -1.0, 0.0))
    bone = tips[0] - joints[15]
    bone /= np.linalg.norm(bone)
    distal = vertices[weights.argmax(1) == 15]
    distal = distal - distal.mean(0)
    widest = np.linalg.svd(distal - np.outer(distal @ bone, bone), full_matrices=False)[2][0]
    to_palm = np.array([0.2, -0.4, -1.0])
    axes[13:] = widest * np.sign(np.cross(widest, bone) @ to_palm)
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def finger_pose(
    axes: Float[np.ndarray, "16 3"], finger: int, flexion: tuple[float, float, float], spread: float
) -> Float[np.ndarray, "3 3"]:
    """The joints of the finger whose first joint is `finger`: three flexions and a spread, in radians."""
    pose = axes[finger : finger + 3] * np.asarray(flexion)[:, None]
    spread = Rotation.from_rotvec(SPREAD_AXIS * spread)
    pose[0] = (spread * Rotation.from_rotvec(pose[0])).as_rotvec()
    return pose


def thumb_pose(
    axes: Float[np.ndarray, "16 3"], flexion: tuple[float, float, float], abduction: float, twist: float
) -> Float[np.ndarray, "3 3"]:
    """The joints of the thumb: three flexions, then abduction (to the palm) and twist of the first."""
    along = np.array([-1.0, 0.0, 0.6]) / np.hypot(1.0, 0.6)
    across = np.cross(axes[13], along)
    pose = axes[13:] * np.asarray(flexion)[:, None]
    first = Rotation.from_rotvec(pose[0]) * Rotation.from_rotvec(across / np.linalg.norm(across) * abduction)
    pose[0] = (first * Rotation.from_rotvec(along * twist)).as_rotvec()
    return pose


def random_pose(axes: Float[np.ndarray, "16 3"], rng: np.random.Generator) -> Float[np.ndarray, "16 3"]:
    """Fingers that mostly bend together, some gestures with straight fingers, a free thumb."""
    pose = np.zeros((16, 3))
    bend = rng.uniform(-0.2, 1.3) if rng.random() < 0.7 else 0.0
    difference = rng.uniform(0.05, 0.5)
    spread = rng.uniform(-0.3, 0.1)  # the rest pose is spread already: at -0.3 the fingers are parallel
    straight = (rng.random(4) < 0.35) & (rng.random() < 0.35)
    for (finger, share), is_straight in zip(SPREAD_SHARE.items(), straight, strict=True):
        mcp = np.clip(bend + rng.normal(0, difference), -0.35, 1.55)
        pip = np.clip(mcp * rng.uniform(0.5, 1.3) + rng.normal(0, 0.25), -0.05, 1.8)
        if is_straight:
            mcp, pip = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.25)
        dip = np.clip(pip * rng.uniform(0.4, 0.9), -0.1, 1.2)
        # A bent finger cannot spread: the collateral ligaments are tight.
        side = (spread * share + rng.normal(0, 0.07)) * max(0.0, 1 - mcp / 1.6)
        pose[finger : finger + 3] = finger_pose(axes, finger, (mcp, pip, dip), side)
    thumb = (rng.uniform(-0.35, 0.6), rng.uniform(-0.2, 0.9), rng.uniform(-0.3, 1.2))
    pose[13:] = thumb_pose(axes, thumb, rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5))
    return pose
