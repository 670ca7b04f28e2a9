"""What happens in one generated sequence: hand and object poses over time; world z up, table at z = 0."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from amt.data.synthetic import grasps
from amt.data.synthetic.simulation import Contacts
from amt.data.ycb import OBJECTS, USED_IDS
from amt.geometry.primitives import BOX

TRIES = 30
TABLE = -0.003  # metres: how far the hand may reach below the table's surface
SUNK = 0.004  # metres: how far a closed hand may sink into its object


@dataclasses.dataclass
class Motion:
    """N frames: `joints` and `vertices` in the world, the hand's parameters, and every object's pose."""

    joints: Float[np.ndarray, "n 21 3"]
    vertices: Float[np.ndarray, "n 778 3"]
    global_orient: Float[np.ndarray, "n 3 3"]
    hand_pose: Float[np.ndarray, "n 15 3"]
    wrist: Float[np.ndarray, "n 3"]
    object_R: Float[np.ndarray, "n k 3 3"]
    object_t: Float[np.ndarray, "n k 3"]
    ycb_ids: list[int]
    grasped: int  # index into ycb_ids, -1 for a gesture
    side: str = "right"  # of a left hand, `global_orient` is the left model's, `hand_pose` the mirrored (right) hand's
    contacts: list[Contacts] | None = None  # of every frame, where they were simulated
    grasp: dict | None = None  # what is known of a simulated grasp, and how many were discarded before it


def sample(
    rng: np.random.Generator,
    shape: grasps.HandShape,
    num_frames: int,
    gesture_share: float,
    objects: Sequence[int] = USED_IDS,
) -> Motion:
    """A grasp that approaches, closes and lifts, or, with that probability, a gesture of the free hand.

    `objects` are the YCB ids that there are.
    """
    count = min(int(rng.integers(2, 5)), len(objects))
    ids = [int(i) for i in rng.choice(objects, count, replace=False)]
    clutter = [_resting(rng, *OBJECTS[i].primitive, 0.35) for i in ids]
    if rng.random() < gesture_share:
        orient, wrist, pose = gesture(rng, shape, num_frames)
        R, t, grasped = _still(clutter, num_frames), _still_t(clutter, num_frames), -1
    else:
        grasped = int(rng.integers(len(ids)))
        orient, wrist, pose, R, t = _grasp(rng, shape, num_frames, ids[grasped], clutter, grasped)
    joints, vertices = shape.pose(pose)
    turn = orient.swapaxes(-1, -2)
    return Motion(
        joints=joints @ turn + wrist[:, None],
        vertices=vertices @ turn + wrist[:, None],
        global_orient=orient,
        hand_pose=pose,
        wrist=wrist,
        object_R=R,
        object_t=t,
        ycb_ids=ids,
        grasped=grasped,
    )


def _resting(rng, half, axis, spread):
    """A pose on the table: an axis up (mostly the upright one), any yaw, somewhere near the middle."""
    up = 2 if rng.random() < 0.6 else int(rng.integers(3))
    if axis == BOX and min(half) < 0.02:
        up = int(np.argmin(half))
    R = np.roll(np.eye(3), 2 - up, axis=0)  # row 2 picks the axis that points up
    R = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)).as_matrix() @ R
    position = np.array([*rng.uniform(-spread, spread, 2), half[up]])
    return R, position


def _still(poses, n):
    return np.repeat(np.stack([R for R, _ in poses])[None], n, 0)


def _still_t(poses, n):
    return np.repeat(np.stack([t for _, t in poses])[None], n, 0)


def gesture(rng: np.random.Generator, shape: grasps.HandShape, n: int):
    """A free hand above the table: orientations [n,3,3], wrist [n,3] and poses [n,15,3]."""
    keys = int(rng.integers(2, 6))
    times = np.linspace(0, 1, keys)
    start = Rotation.random(random_state=rng)
    rotations = Rotation.concatenate([Rotation.from_rotvec(rng.normal(0, 0.5, 3)) * start for _ in times])
    positions = np.array([0, 0, rng.uniform(0.15, 0.45)]) + rng.normal(0, 0.06, (keys, 3))
    poses = np.stack([grasps.gesture(rng, shape.axes) for _ in times])
    t = np.linspace(0, 1, n)
    pose = PchipInterpolator(times, poses)(t)
    orient = Slerp(times, rotations)(t).as_matrix()
    wrist = PchipInterpolator(times, positions)(t)
    wrist = wrist - orient @ np.array([-0.09, 0, 0])
    return orient, wrist + [0, 0, _below_table(shape, orient, wrist, pose).max()], pose


def _below_table(shape, orient, wrist, pose):
    """How far each frame's hand reaches deeper than `TABLE`, metres."""
    z = np.einsum("nvj,nj->nv", shape.vertices(pose), orient[:, 2]) + wrist[:, 2:]
    return np.clip(TABLE - z.min(1), 0, None)


def _hold(rng, shape, half, axis):
    """An object on the table and an opened and a closed hand at it: the first of `TRIES` that fits, or the best."""
    best, least = None, np.inf
    for _ in range(TRIES):
        R_wo, t_wo, R_ho, t_ho = _reach(rng, half, axis)
        t_ho = grasps.make_room(rng, shape, R_ho, t_ho, half, axis)
        orient = R_wo @ R_ho.T
        wrist = t_wo - orient @ t_ho
        closed = grasps.close_on(rng, shape, R_ho, t_ho, half, axis, orient[2], wrist[2])
        poses = np.concatenate([closed[None], grasps.open_hand(rng, closed, grasps.LEVELS - 1)])
        vertices = shape.vertices(poses)
        sunk = -grasps.distance(vertices, R_ho, t_ho, half, axis).min(1) - SUNK
        excess = np.maximum(sunk, TABLE - (vertices @ orient[2] + wrist[2]).min(1)).clip(0)
        opened = 1 + int(np.argmin(excess[1:]))
        if (worst := max(excess[0], excess[opened])) < least:
            best, least = (R_wo, t_wo, R_ho, t_ho, orient, wrist, poses[opened], closed), worst
        if worst == 0:
            break
    return best


def _reach(rng, half, axis):
    """The object's pose on the table and in a hand whose wrist and knuckles are above the table."""
    for _ in range(TRIES):
        R_wo, t_wo = _resting(rng, half, axis, 0.1)
        R_ho, t_ho = grasps.place_in_hand(rng, half, axis)
        orient = R_wo @ R_ho.T
        wrist = t_wo - orient @ t_ho
        knuckles = wrist + orient @ np.array([-0.1, 0, 0])
        if orient[2, 0] > -0.25 and wrist[2] > 0.03 and knuckles[2] > 0.025 and orient[2, 1] > -0.5:
            break
    return R_wo, t_wo, R_ho, t_ho


def _grasp(rng, shape, n, ycb_id, clutter, k):
    half, axis = OBJECTS[ycb_id].primitive
    R_wo, t_wo, R_ho, t_ho, orient, wrist, opened, closed = _hold(rng, shape, half, axis)
    back = orient @ np.array([0.05, 1.0, 0.0]) * rng.uniform(0.06, 0.15) + [0, 0, rng.uniform(0, 0.08)]
    lift = np.array([*rng.normal(0, 0.06, 2), rng.uniform(0.08, 0.25)])
    turned = Rotation.from_rotvec(rng.normal(0, 0.6, 3)) * Rotation.from_matrix(orient)
    before = Rotation.from_rotvec(rng.normal(0, 0.3, 3)) * Rotation.from_matrix(orient)
    times = np.array([0.0, 0.35, 0.5, 1.0])
    key_rotations = Rotation.concatenate([before, *[Rotation.from_matrix(orient)] * 2, turned])
    key_positions = np.stack([wrist + back, wrist, wrist, wrist + lift])
    t = np.linspace(0, 1, n)
    R_wh = Slerp(times, key_rotations)(t).as_matrix()
    position = PchipInterpolator(times, key_positions)(t)
    pose = PchipInterpolator(times, np.stack([opened, opened, closed, closed]))(t)

    R, position_o = _still(clutter, n), _still_t(clutter, n)
    carried = t > 0.5
    R[:, k], position_o[:, k] = R_wo, t_wo
    R[carried, k] = R_wh[carried] @ R_ho
    position_o[carried, k] = position[carried] + R_wh[carried] @ t_ho
    object_below = np.clip(np.abs(R[:, k, 2]) @ half - position_o[:, k, 2], 0, None)
    moving = carried | (t < 0.35)
    rise = np.where(moving, np.maximum(_below_table(shape, R_wh, position, pose), object_below), 0)
    position[:, 2] += rise
    position_o[carried, k, 2] += rise[carried]
    return R_wh, position, pose, R, position_o
