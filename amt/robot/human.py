"""What the human hand asks of the robot: palm pose and fingertips, from 21 joints alone.

The human palm frame is built like the robot's `wrist` frame: origin in the wrist joint, z towards the middle
knuckle, x out of the palm, and so y towards the index finger of a right hand, away from that of a left one. Little
finger: the Allegro has none, it is left out.

A `HandFit` says how the one lies in the other. The Allegro's thumb sits lower in its palm and is shorter for its
fingers than a human's; laid wrist on wrist, scaled thumb tips are out of its reach. So the human's wrist goes to a
point of the robot's palm, and its palm is tilted, by a rigid transform per hand that `alignment` finds. The robot's
fingertips then go to human wrist + scale x (human tip - human wrist), and the arm makes up for the transform.
Functions take numpy or JAX arrays and answer in kind.
"""

import flax.struct
import numpy as np
from jaxtyping import Float

from amt.robot.kinematics import quat_to_matrix
from amt.robot.model import FINGERS, FRAMES, Robot
from amt.structs import Array

# 21-joint indices: the knuckle (mcp), dip and tip of index, middle, ring, thumb: the robot's finger order.
TIPS = np.array([8, 12, 16, 4])
DIPS = np.array([7, 11, 15, 3])
WRIST, INDEX_MCP, MIDDLE_MCP, LITTLE_MCP = 0, 5, 9, 17

# A level camera that looks along the world's +x: image down is world -z, image right is world -y.
LEVEL_CAMERA = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


# Thumb and finger closer than this (human tips, metres) are a pinch, softly: the width of the change.
PINCH_DISTANCE, PINCH_WIDTH = 0.033, 0.0012
# A contact belongs to the finger whose tip is nearest, within this many metres.
CONTACT_REACH = 0.03


@flax.struct.dataclass
class HandFit:
    """Robot fingertip in the `wrist` frame = rotation @ (scale x human tip in the human palm frame) + offset."""

    scale: Float[Array, ""]
    rotation: Float[Array, "3 3"]
    offset: Float[Array, " 3"]


@flax.struct.dataclass
class HandTargets:
    """`wrist_pos`, `wrist_rot` of the robot in the frame of the joints; tips and last-bone directions in its palm's.

    Fingers in robot order: index, middle, ring, thumb. `tips` are vectors wrist to tip, already scaled. `pinch` is
    how much thumb and index, middle, ring are a pinch, 0..1. `contacts` are points of an object, in the palm frame
    from the wrist and not scaled, that each finger's surface should touch; `contact_weight` is 0 where there is none.
    """

    wrist_pos: Float[Array, "*batch 3"]
    wrist_rot: Float[Array, "*batch 3 3"]
    tips: Float[Array, "*batch 4 3"]
    directions: Float[Array, "*batch 4 3"]
    pinch: Float[Array, "*batch 3"]
    contacts: Float[Array, "*batch 4 3"]
    contact_weight: Float[Array, "*batch 4"]


def hand_targets(
    robot: Robot,
    joints: Float[Array, "*batch 21 3"],
    fit: HandFit,
    contacts: Float[Array, "*batch 4 3"] | None = None,
    contact_weight: Float[Array, "*batch 4"] | None = None,
) -> HandTargets:
    """Targets from joints of a hand of the robot's side in a base frame, metres; finite for degenerate ones, too."""
    xp = joints.__array_namespace__()
    palm = palm_rotation(joints, robot.side)
    # Rows are vectors: v @ R is R^T v, from the base frame to the palm's; @ rotation.T goes on to the robot's.
    into = palm @ xp.swapaxes(fit.rotation, -1, -2)
    human_wrist = joints[..., WRIST, :]
    tips = (joints[..., TIPS, :] - human_wrist[..., None, :]) @ into * fit.scale
    offset = xp.broadcast_to(fit.offset, tips.shape)
    bones = (joints[..., TIPS, :] - joints[..., DIPS, :]) @ into
    apart = joints[..., TIPS[:3], :] - joints[..., TIPS[3:], :]
    distance = ((apart**2).sum(-1) + 1e-12) ** 0.5
    pinch = 1 / (1 + xp.exp(xp.clip((distance - PINCH_DISTANCE) / PINCH_WIDTH, -50, 50)))
    if contacts is None or contact_weight is None:
        contacts, contact_weight = xp.zeros_like(tips), xp.zeros_like(tips[..., 0])
    return HandTargets(
        wrist_pos=human_wrist - xp.squeeze(into @ fit.offset[:, None], -1),
        wrist_rot=into,
        tips=tips + offset,
        directions=_unit(bones),
        pinch=pinch,
        contacts=(contacts - human_wrist[..., None, :]) @ into + offset,
        contact_weight=contact_weight,
    )


def finger_contacts(
    joints: Float[np.ndarray, "T 21 3"],
    points: Float[np.ndarray, "T c 3"],
    confidence: Float[np.ndarray, "T c"],
) -> tuple[Float[np.ndarray, "T 4 3"], Float[np.ndarray, "T 4"]]:
    """For each finger in robot order the contact point nearest its tip, and its confidence; 0 where there is none."""
    distance = np.linalg.norm(joints[:, TIPS, None] - points[:, None], axis=-1)
    distance = np.where(confidence[:, None] > 0, distance, np.inf)
    nearest = distance.argmin(-1)
    near = np.take_along_axis(distance, nearest[..., None], axis=-1)[..., 0] < CONTACT_REACH
    weight = np.where(near, np.take_along_axis(confidence, nearest, axis=1), 0.0)
    chosen = np.take_along_axis(points, nearest[..., None], axis=1)
    return np.where(near[..., None], chosen, 0.0), weight


def palm_rotation(joints: Float[Array, "*batch 21 3"], side: str) -> Float[Array, "*batch 3 3"]:
    """R_world_palm (or R_camera_palm: the frame of `joints`) of a right or left hand."""
    xp = joints.__array_namespace__()
    z = _unit(joints[..., MIDDLE_MCP, :] - joints[..., WRIST, :])
    first, last = (INDEX_MCP, LITTLE_MCP) if side == "right" else (LITTLE_MCP, INDEX_MCP)
    x = _unit(xp.cross(joints[..., first, :] - joints[..., last, :], z))
    return xp.stack([x, xp.cross(z, x), z], axis=-1)


def fit_scale(robot: Robot, joints: Float[np.ndarray, "T 21 3"]) -> float:
    """Robot finger length over human finger length, both from the wrist along the bones to the tip.

    The mean over index, middle and ring; the median over frames.
    """
    reach = [np.linalg.norm(_rest_position(robot, f"{f}_tip") - _rest_position(robot, "wrist")) for f in FINGERS[:3]]
    chains = [[WRIST, first, first + 1, first + 2, first + 3] for first in (5, 9, 13)]
    bones = [np.linalg.norm(np.diff(joints[:, chain], axis=1), axis=-1).sum(-1) for chain in chains]
    return float(np.mean(reach) / max(np.median(np.mean(bones, axis=0)), 1e-3))


def _rest_position(robot: Robot, frame: str) -> np.ndarray:
    """Where a frame is with every joint at 0: the fingers are straight."""
    name, point = FRAMES[frame]
    point, body = np.array(point), robot.body_names.index(name)
    while body >= 0:
        point = quat_to_matrix(robot.body_quat[body]) @ point + robot.body_pos[body]
        body = robot.body_parent[body]
    return point


def _unit(vector: Array) -> Array:
    return vector / ((vector**2).sum(-1, keepdims=True) + 1e-12) ** 0.5
