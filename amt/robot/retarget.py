"""Human hand motion to robot joint commands.

The arm follows the human wrist's position and palm orientation; the Allegro's fingers follow the human index,
middle, ring and thumb tips relative to the palm, pinches, and contacts with an object. How the human's hand lies in
the robot's is fitted first (`alignment`); then the whole trajectory is solved at once (`follow`).

Limitations. The wrist path is not scaled, so that the hand goes where the human's went. Singular poses, the table and
the robot's own links are kept away from by cost, not by constraint.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.geometry.mirror import mirror_points
from amt.robot.alignment import fit_hand
from amt.robot.follow import Motion, follow
from amt.robot.human import LEVEL_CAMERA, HandFit, finger_contacts, hand_targets
from amt.robot.kinematics import forward
from amt.robot.model import NUM_ARM_JOINTS, Robot, load_robot
from amt.robot.placement import place_base
from amt.robot.residuals import joint_box, palm_tips
from amt.structs import Contacts, HandPose, Trajectory

BUCKET = 64  # trajectories are padded to multiples of this, so that lengths share a compilation


def retarget(
    hand: HandPose,
    robot: Robot | None = None,
    scale: float | str | HandFit = "fit",
    *,
    fps: float = 30.0,
    T_world_camera: Float[np.ndarray, "*T 4 4"] | None = None,
    T_base_world: Float[np.ndarray, "4 4"] | None = None,
    base_height: float | None = None,
    smoothness: float = 1.0,
    max_velocity: float = 3.14,
    contacts: Contacts | None = None,
    steps: int = 6,
) -> Trajectory:
    """Joint commands that make the robot do what the hand does, one per frame of `hand` (batch shape [T]).

    Only `hand.joints` (camera frame, metres), `is_left` and `valid` are used.

    scale: 'fit' multiplies the vectors wrist to fingertip by robot finger length over human finger length, so
        that open stays open and a fist stays a fist; a number multiplies by that number: 1.0 puts the robot's
        fingertips where the human's were, as far as they reach. A `HandFit` (`fit_hand`) is used as it is.
    fps: frames per second of `hand`; the commands' rate.
    T_world_camera: one transform, or one per frame; the world has z up. None: a level camera facing +x.
    T_base_world: where the robot stands. None: searched, so that the motion is in reach (`placement`).
    base_height: z of the robot's mounting plane (its table) in the world; None searches it, too.
    smoothness: multiplies the cost of joint acceleration.
    max_velocity: radians per second that no joint exceeds (nor its own maximum).
    contacts: contacts with objects in the frame of `hand`, [T,c]; each finger's surface goes to the nearest point
        within 3 cm of the human's tip, by confidence.
    steps: iterations of the whole-trajectory solve.

    Commands are strictly inside the joint limits and keep the joints' maximum velocities. While `hand.valid`
    is False the robot holds its last command (before the first valid frame: the first one). A hand of the other
    side than the robot's (`mirrors`) is mirrored through the camera's plane x = 0 first: the robot does the mirror
    image of the motion.

    Raises UserError when no frame is valid, for joints that are not finite, and for arguments out of range.
    """
    robot = robot or load_robot()
    joints, valid = _world_joints(robot, hand, T_world_camera)
    if not fps > 0:
        raise UserError(f"retarget: fps must be positive, got {fps}")
    if not smoothness > 0:
        raise UserError(f"retarget: smoothness must be positive, got {smoothness}")
    if not max_velocity > 0:
        raise UserError(f"retarget: max_velocity must be positive, got {max_velocity}")
    if T_base_world is not None and np.shape(T_base_world) != (4, 4):
        raise UserError(f"retarget: T_base_world must be [4,4], got {list(np.shape(T_base_world))}")
    if not valid.any():
        raise UserError("retarget: no frame has a valid hand, so there is nothing to follow")
    seen = np.flatnonzero(valid)
    limits = joint_box(robot).astype(np.float32)
    fit = _fit(robot, joints[seen], scale)
    targets = hand_targets(robot, joints[seen], fit)
    T_base_world, q_arm = place_base(
        robot, targets.wrist_pos, targets.wrist_rot, limits[:NUM_ARM_JOINTS], T_base_world, base_height
    )
    touched, touch = _contacts(robot, hand, contacts, joints, T_world_camera)

    # Pad by repeating the last frame with weight 0. What spans a gap is not accelerated.
    padded = np.minimum(np.arange(-(-len(seen) // BUCKET) * BUCKET), len(seen) - 1)
    weight = (np.arange(len(padded)) < len(seen)).astype(np.float32)
    steady = np.diff(seen[padded], n=2, prepend=[seen[0] - 2, seen[0] - 1]) == 0
    steady &= np.diff(seen[padded], prepend=seen[0] - 1) == 1
    R, t = T_base_world[:3, :3], T_base_world[:3, 3]
    motion = Motion(
        joints=(joints[seen] @ R.T + t)[padded],
        weight=weight,
        smoothness=(smoothness * steady * weight).astype(np.float32),
        rate=(np.minimum(robot.max_velocity, max_velocity) * 0.999 / fps).astype(np.float32),
        contacts=(touched[seen] @ R.T + t)[padded].astype(np.float32),
        contact_weight=touch[seen][padded].astype(np.float32),
    )
    # A gap counts as one frame here: the robot stands still in it and has one frame to move afterwards.
    qpos = np.asarray(follow(robot, jax.tree.map(jnp.asarray, motion), fit, jnp.asarray(q_arm), steps))[: len(seen)]

    held = np.maximum(np.searchsorted(seen, np.arange(len(valid)), side="right") - 1, 0)
    return Trajectory(
        time=(np.arange(len(valid)) / fps).astype(np.float32),
        qpos=qpos[held],
        valid=valid,
        T_base_world=T_base_world,
        names=robot.joint_names,
    )


def retarget_errors(
    trajectory: Trajectory,
    hand: HandPose,
    robot: Robot | None = None,
    scale: float | str | HandFit = "fit",
    *,
    T_world_camera: Float[np.ndarray, "*T 4 4"] | None = None,
) -> dict[str, Float[np.ndarray, " T"]]:
    """How far the commands are from what was asked, per frame; NaN where no hand was seen.

    `wrist_position_mm`, `wrist_rotation_deg`; fingertips in the palm frame, means over the four fingers:
    `fingertip_position_mm` (against the scaled human tips), `fingertip_vector_deg` (wrist to tip) and
    `fingertip_direction_deg` (the last bone). Give the arguments that `retarget` was given.
    """
    robot = robot or load_robot()
    joints, valid = _world_joints(robot, hand, T_world_camera)
    seen = np.flatnonzero(valid)
    target = hand_targets(robot, joints[seen], _fit(robot, joints[seen], scale))
    wrist, tips, directions = _reached(robot, np.asarray(trajectory.qpos)[seen])
    T = np.asarray(trajectory.T_base_world, np.float64)
    position = target.wrist_pos @ T[:3, :3].T + T[:3, 3]
    rotation = T[:3, :3] @ target.wrist_rot
    trace = np.einsum("tij,tij->t", wrist[:, :3, :3], rotation)
    errors = {
        "wrist_position_mm": 1e3 * np.linalg.norm(wrist[:, :3, 3] - position, axis=-1),
        "wrist_rotation_deg": np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))),
        "fingertip_position_mm": 1e3 * np.linalg.norm(tips - target.tips, axis=-1).mean(-1),
        "fingertip_vector_deg": _angle(tips, target.tips).mean(-1),
        "fingertip_direction_deg": _angle(directions, target.directions).mean(-1),
    }
    full = {name: np.full(len(valid), np.nan) for name in errors}
    for name, value in errors.items():
        full[name][seen] = value
    return full


def human_tips(
    hand: HandPose,
    T_base_world: Float[np.ndarray, "4 4"],
    T_world_camera: Float[np.ndarray, "*T 4 4"] | None = None,
    robot: Robot | None = None,
) -> Float[np.ndarray, "T 5 3"]:
    """The human's own fingertips (thumb to little finger) in the robot's base frame, mirrored where `retarget` is."""
    tips = _world_joints(robot or load_robot(), hand, T_world_camera)[0][:, [4, 8, 12, 16, 20]]
    return tips @ T_base_world[:3, :3].T + T_base_world[:3, 3]


def mirrors(robot: Robot, hand: HandPose) -> bool:
    """Whether the hand (by most of its valid frames) is of the other side, so that the robot does the mirror image."""
    is_left = np.asarray(hand.is_left)[np.asarray(hand.valid, bool)]
    return bool(is_left.sum() > is_left.size / 2) != (robot.side == "left")


def _world_joints(robot: Robot, hand: HandPose, T_world_camera) -> tuple[np.ndarray, np.ndarray]:
    """Joints of a hand of the robot's side in the world [T,21,3], and validity [T]."""
    joints, valid = np.array(hand.joints, np.float32), np.asarray(hand.valid, bool)
    if joints.ndim != 3 or joints.shape[1:] != (21, 3) or valid.shape != joints.shape[:1]:
        raise UserError(f"retarget: hand.joints must be [T,21,3] and hand.valid [T], got {joints.shape}, {valid.shape}")
    bad = np.flatnonzero(valid & ~np.isfinite(joints).all((1, 2)))
    if bad.size:
        raise UserError(f"retarget: hand.joints of frame {bad[0]} are not finite although the frame is valid")
    return _to_world(robot, joints, hand, T_world_camera), valid


def _to_world(robot: Robot, points: np.ndarray, hand: HandPose, T_world_camera) -> np.ndarray:
    """Points [T,n,3] of the camera frame in the world, mirrored if the robot `mirrors` the hand."""
    if mirrors(robot, hand):
        points = mirror_points(points)
    T = np.asarray(LEVEL_CAMERA if T_world_camera is None else T_world_camera, np.float32)
    if T.shape not in ((4, 4), (len(points), 4, 4)):
        raise UserError(f"retarget: T_world_camera must be [4,4] or [{len(points)},4,4], got {list(T.shape)}")
    return points @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3]


def _reached(robot: Robot, qpos: np.ndarray) -> tuple[np.ndarray, ...]:
    """T_base_wrist [T,4,4], and tips and directions in the palm frame [T,4,3], for commands [T,22]."""
    padded = np.resize(qpos, (-(-len(qpos) // BUCKET) * BUCKET, qpos.shape[1]))
    return tuple(np.asarray(x, np.float64)[: len(qpos)] for x in _poses(robot, jnp.asarray(padded, jnp.float32)))


@functools.partial(jax.jit, static_argnames="robot")
def _poses(robot, qpos):
    return forward(robot, qpos, ("wrist",))["wrist"], *palm_tips(robot, qpos[:, NUM_ARM_JOINTS:])


def _fit(robot: Robot, joints: np.ndarray, scale: float | str | HandFit) -> HandFit:
    if isinstance(scale, HandFit):
        return scale
    return fit_hand(robot, joints, scale)


def _contacts(robot: Robot, hand: HandPose, contacts: Contacts | None, joints: np.ndarray, T_world_camera) -> tuple:
    """The point that each finger touches in the world [T,4,3], and its weight [T,4]."""
    if contacts is None:
        return np.zeros((len(joints), 4, 3), np.float32), np.zeros((len(joints), 4), np.float32)
    points, confidence = np.array(contacts.points, np.float32), np.asarray(contacts.confidence, np.float32)
    if points.ndim != 3 or len(points) != len(joints) or confidence.shape != points.shape[:2]:
        raise UserError(
            f"retarget: contacts must have points [{len(joints)},c,3] and confidence [{len(joints)},c], "
            f"got {points.shape}, {confidence.shape}"
        )
    usable = (np.asarray(contacts.kind) != 0) & np.isfinite(points).all(-1)
    points = np.where(usable[..., None], points, 0.0)
    confidence = np.where(usable, confidence, 0.0)
    return finger_contacts(joints, _to_world(robot, points, hand, T_world_camera), confidence)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosine = np.sum(a * b, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
