"""What the human hand asks of the robot: palm pose and fingertips, from 21 joints alone.

The human palm frame is built like the robot's `wrist` frame: origin in the wrist joint, z towards the middle
knuckle, y towards the index side, x out of the palm. Little finger: the Allegro has none, it is left out.
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


@flax.struct.dataclass
class HandTargets:
    """`wrist_pos`, `wrist_rot` (R_world_palm) in the world; tips and last-bone directions in the palm frame.

    Fingers in robot order: index, middle, ring, thumb. `tips` are vectors wrist to tip, already scaled.
    """

    wrist_pos: Float[Array, "*batch 3"]
    wrist_rot: Float[Array, "*batch 3 3"]
    tips: Float[Array, "*batch 4 3"]
    directions: Float[Array, "*batch 4 3"]


def hand_targets(joints: Float[Array, "*batch 21 3"], scale: Float[Array, ""] | float) -> HandTargets:
    """Targets from the joints of a right hand in the world, metres. Degenerate joints give finite numbers."""
    xp = joints.__array_namespace__()
    wrist_rot = palm_rotation(joints)
    wrist = joints[..., WRIST, :]
    vectors = xp.einsum("...ji,...fj->...fi", wrist_rot, joints[..., TIPS, :] - wrist[..., None, :])
    bones = xp.einsum("...ji,...fj->...fi", wrist_rot, joints[..., TIPS, :] - joints[..., DIPS, :])
    return HandTargets(wrist, wrist_rot, vectors * scale, _unit(bones))


def palm_rotation(joints: Float[Array, "*batch 21 3"]) -> Float[Array, "*batch 3 3"]:
    """R_world_palm (or R_camera_palm: the frame of `joints`) of a right hand."""
    xp = joints.__array_namespace__()
    z = _unit(joints[..., MIDDLE_MCP, :] - joints[..., WRIST, :])
    x = _unit(xp.cross(joints[..., INDEX_MCP, :] - joints[..., LITTLE_MCP, :], z))
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
