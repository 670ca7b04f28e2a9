"""Human hand motion to robot joint commands.

The arm follows the human wrist's position and palm orientation; the Allegro's fingers follow the human index,
middle, ring and thumb tips relative to the palm, the directions of the last finger bones, and pinches.
The whole trajectory is solved at once (`solver.solve_trajectory`), warm-started frame by frame.

Limitations. The wrist path is not scaled, so that the hand goes where the human's went. Self-collision is
only kept away from when the base is placed; it is not a constraint of the trajectory.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.robot.human import LEVEL_CAMERA, fit_scale, hand_targets
from amt.robot.kinematics import forward
from amt.robot.model import NUM_ARM_JOINTS, Robot, load_robot
from amt.robot.placement import place_base
from amt.robot.residuals import REST_HAND, arm_residual, hand_residual, palm_tips
from amt.robot.solver import limit_rate, solve_trajectory, track
from amt.structs import HandPose, Trajectory

LIMIT_MARGIN = 0.005  # radians kept from every joint limit: commands are strictly inside
BUCKET = 64  # trajectories are padded to multiples of this, so that lengths share a compilation
ARM_STIFFNESS, HAND_STIFFNESS = 5e-3, 3e-3  # square metres per square radian between frames, at smoothness 1


def retarget(
    hand: HandPose,
    robot: Robot | None = None,
    scale: float | str = "fit",
    *,
    fps: float = 30.0,
    T_world_camera: Float[np.ndarray, "*T 4 4"] | None = None,
    T_base_world: Float[np.ndarray, "4 4"] | None = None,
    base_height: float | None = None,
    smoothness: float = 1.0,
    steps: int = 20,
) -> Trajectory:
    """Joint commands that make the robot do what the hand does, one per frame of `hand` (batch shape [T]).

    Only `hand.joints` (camera frame, metres), `is_left` and `valid` are used.

    scale: 'fit' multiplies the vectors wrist to fingertip by robot finger length over human finger length, so
        that open stays open and a fist stays a fist; a number multiplies by that number: 1.0 puts the robot's
        fingertips where the human's were, as far as they reach.
    fps: frames per second of `hand`; the commands' rate.
    T_world_camera: one transform, or one per frame; the world has z up. None: a level camera facing +x.
    T_base_world: where the robot stands. None: searched, so that the motion is in reach (`placement`).
    base_height: z of the robot's mounting plane (its table) in the world; None searches it, too.
    smoothness: multiplies the cost of joint motion between frames.
    steps: iterations of the whole-trajectory solve.

    Commands are strictly inside the joint limits and keep the joints' maximum velocities. While `hand.valid`
    is False the robot holds its last command (before the first valid frame: the first one). A left hand (most
    valid frames `is_left`) is mirrored through the camera's plane x = 0 and then followed as a right hand,
    because the robot's hand is a right one: the robot does the mirror image of the motion.

    Raises UserError when no frame is valid, for joints that are not finite, and for arguments out of range.
    """
    robot = robot or load_robot()
    joints, valid = _world_joints(hand, T_world_camera)
    if not fps > 0:
        raise UserError(f"retarget: fps must be positive, got {fps}")
    if not smoothness > 0:
        raise UserError(f"retarget: smoothness must be positive, got {smoothness}")
    if T_base_world is not None and np.shape(T_base_world) != (4, 4):
        raise UserError(f"retarget: T_base_world must be [4,4], got {list(np.shape(T_base_world))}")
    if not valid.any():
        raise UserError("retarget: no frame has a valid hand, so there is nothing to follow")
    seen = np.flatnonzero(valid)
    targets = hand_targets(joints[seen], _scale(robot, joints[seen], scale))

    lower, upper = (robot.limits + [[LIMIT_MARGIN, -LIMIT_MARGIN]]).astype(np.float32).T
    arm, fingers = slice(0, NUM_ARM_JOINTS), slice(NUM_ARM_JOINTS, None)
    position, rotation = targets.wrist_pos, targets.wrist_rot
    limits = np.stack([lower[arm], upper[arm]], axis=-1)
    T_base_world, q_arm = place_base(robot, position, rotation, limits, T_base_world, base_height)

    # Pad by repeating the last frame with weight 0. The longer a gap, the less its ends attract each other.
    padded = np.minimum(np.arange(-(-len(seen) // BUCKET) * BUCKET), len(seen) - 1)
    weight = (np.arange(len(padded)) < len(seen)).astype(np.float32)
    gap = np.maximum(np.diff(seen[padded], prepend=seen[0]), 1)
    stiffness = (smoothness / gap).astype(np.float32)
    R = T_base_world[:3, :3]
    wrist = (position @ R.T + T_base_world[:3, 3], R @ rotation)
    wrist = tuple(jnp.asarray(x[padded]) for x in wrist)
    tips = jax.tree.map(lambda x: jnp.asarray(x[padded]), targets)

    solve_arm, solve_hand = arm_residual(robot), hand_residual(robot)
    q_arm = track(solve_arm, wrist, jnp.asarray(q_arm), lower[arm], upper[arm])
    q_arm = solve_trajectory(
        solve_arm, wrist, q_arm, weight, jnp.asarray(stiffness * ARM_STIFFNESS), lower[arm], upper[arm], steps
    )
    q_hand = jnp.broadcast_to(jnp.asarray(REST_HAND, jnp.float32), (len(padded), len(REST_HAND)))
    q_hand = solve_trajectory(
        solve_hand,
        tips,
        q_hand,
        weight,
        jnp.asarray(stiffness * HAND_STIFFNESS),
        lower[fingers],
        upper[fingers],
        steps,
    )
    # A gap counts as one frame here: the robot stands still in it and has one frame to move afterwards.
    rate = jnp.asarray(robot.max_velocity * 0.999 / fps, jnp.float32)
    qpos = np.asarray(limit_rate(jnp.concatenate([q_arm, q_hand], axis=-1), rate))[: len(seen)]

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
    scale: float | str = "fit",
    *,
    T_world_camera: Float[np.ndarray, "*T 4 4"] | None = None,
) -> dict[str, Float[np.ndarray, " T"]]:
    """How far the commands are from what was asked, per frame; NaN where no hand was seen.

    `wrist_position_mm`, `wrist_rotation_deg`; fingertips in the palm frame, means over the four fingers:
    `fingertip_position_mm` (against the scaled human tips), `fingertip_vector_deg` (wrist to tip) and
    `fingertip_direction_deg` (the last bone). Give the arguments that `retarget` was given.
    """
    robot = robot or load_robot()
    joints, valid = _world_joints(hand, T_world_camera)
    seen = np.flatnonzero(valid)
    target = hand_targets(joints[seen], _scale(robot, joints[seen], scale))
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
) -> Float[np.ndarray, "T 5 3"]:
    """The human's own fingertips (thumb to little finger) in the robot's base frame, mirrored for a left
    hand."""
    tips = _world_joints(hand, T_world_camera)[0][:, [4, 8, 12, 16, 20]]
    return tips @ T_base_world[:3, :3].T + T_base_world[:3, 3]


def _world_joints(hand: HandPose, T_world_camera) -> tuple[np.ndarray, np.ndarray]:
    """Joints of a right hand in the world [T,21,3], and validity [T]."""
    joints, valid = np.array(hand.joints, np.float32), np.asarray(hand.valid, bool)
    if joints.ndim != 3 or joints.shape[1:] != (21, 3) or valid.shape != joints.shape[:1]:
        raise UserError(f"retarget: hand.joints must be [T,21,3] and hand.valid [T], got {joints.shape}, {valid.shape}")
    bad = np.flatnonzero(valid & ~np.isfinite(joints).all((1, 2)))
    if bad.size:
        raise UserError(f"retarget: hand.joints of frame {bad[0]} are not finite although the frame is valid")
    if np.asarray(hand.is_left)[valid].sum() > valid.sum() / 2:
        joints[..., 0] *= -1
    T = np.asarray(LEVEL_CAMERA if T_world_camera is None else T_world_camera, np.float32)
    if T.shape not in ((4, 4), (len(joints), 4, 4)):
        raise UserError(f"retarget: T_world_camera must be [4,4] or [{len(joints)},4,4], got {list(T.shape)}")
    return joints @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3], valid


def _reached(robot: Robot, qpos: np.ndarray) -> tuple[np.ndarray, ...]:
    """T_base_wrist [T,4,4], and tips and directions in the palm frame [T,4,3], for commands [T,22]."""
    padded = np.resize(qpos, (-(-len(qpos) // BUCKET) * BUCKET, qpos.shape[1]))
    return tuple(np.asarray(x, np.float64)[: len(qpos)] for x in _poses(robot, jnp.asarray(padded, jnp.float32)))


@functools.partial(jax.jit, static_argnames="robot")
def _poses(robot, qpos):
    return forward(robot, qpos, ("wrist",))["wrist"], *palm_tips(robot, qpos[:, NUM_ARM_JOINTS:])


def _scale(robot: Robot, joints: np.ndarray, scale: float | str) -> float:
    if scale == "fit":
        return fit_scale(robot, joints)
    if isinstance(scale, str) or not 0 < scale < np.inf:
        raise UserError(f"retarget: scale must be 'fit' or a positive number, got {scale!r}")
    return float(scale)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosine = np.sum(a * b, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
