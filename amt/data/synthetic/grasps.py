"""Hand poses by kinematics alone: gestures, and fingers that close on an object until they touch it.

Poses are axis-angle [15, 3] in the MANO order; the hand frame is that of `amt.hand`: fingers along -x, back
of the hand +y, thumb side +z.
"""

import jax
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.geometry import primitives
from amt.hand import HandModel

FINGERS = {"index": 0, "middle": 3, "little": 6, "ring": 9}  # first row of each finger's three joints
THUMB = 12
MAX_FLEXION = np.array([1.5, 1.75, 1.2])
PENETRATION = -0.002  # metres that skin may sink into an object
LEVELS = 24  # candidates evaluated in one batch
PUSHES = 20  # steps, each as far as the skin is sunk: on a slanted face the first is too short


class HandShape:
    """One subject's hand: poses in, vertices out, in fixed batches of `LEVELS` so that it compiles once.

    Fingers close by every `stride`-th vertex.
    """

    def __init__(self, hand: HandModel, betas: Float[np.ndarray, " 10"], stride: int = 1):
        self.hand, self.stride = hand, stride
        self.betas = np.asarray(betas, np.float32)
        self.axes = np.asarray(hand.flexion_axes)[1:]
        # The joint row of every vertex that `vertices` gives, -1 on the palm.
        self.owner = np.asarray(hand.weights)[::stride].argmax(1) - 1

    def vertices(self, poses: Float[np.ndarray, "n 15 3"]) -> Float[np.ndarray, "n v 3"]:
        """Vertices to close by, in the hand frame, wrist at the origin."""
        return self.pose(poses)[1][:, :: self.stride]

    def pose(self, poses):
        """Joints [n,21,3] and vertices [n,778,3] in the hand frame, wrist at the origin."""
        n = len(poses)
        rotations = Rotation.from_rotvec(np.reshape(poses, (-1, 3))).as_matrix().reshape(n, 15, 3, 3)
        root = np.tile(np.eye(3), (n, 1, 1, 1))
        rotations = np.concatenate([root, rotations], 1).astype(np.float32)
        pad = -n % LEVELS
        rotations = np.concatenate([rotations, np.repeat(rotations[-1:], pad, 0)])
        outs = [_pose(self.hand, chunk, self.betas) for chunk in np.split(rotations, len(rotations) // LEVELS)]
        joints, vertices = (np.concatenate([np.asarray(o[k]) for o in outs])[:n] for k in (0, 1))
        return joints - joints[:, :1], vertices - joints[:, :1]


@jax.jit
def _pose(hand, rotations, betas):
    n = rotations.shape[0]
    joints, vertices, _ = hand.from_rotations(
        rotations, jax.numpy.broadcast_to(betas, (n, 10)), jax.numpy.zeros((n, 3))
    )
    return joints, vertices


def thumb(rng: np.random.Generator, axes: Float[np.ndarray, "15 3"]) -> Float[np.ndarray, "3 3"]:
    """A random thumb: flexion, abduction and twist at its base, flexion further out."""
    return thumbs(rng, axes, 1)[0]


def thumbs(rng: np.random.Generator, axes: Float[np.ndarray, "15 3"], n: int) -> Float[np.ndarray, "{n} 3 3"]:
    """So many of them."""
    flexion = axes[THUMB]
    bone = np.array([-1, 0, 0.6]) / np.hypot(1, 0.6)
    low, high = [-0.35, -0.6, -0.5, -0.2, -0.3], [0.6, 0.6, 0.5, 0.9, 1.2]
    angles = rng.uniform(low, high, (n, 5))[..., None]
    base = (
        Rotation.from_rotvec(flexion * angles[:, 0])
        * Rotation.from_rotvec(np.cross(flexion, bone) * angles[:, 1])
        * Rotation.from_rotvec(bone * angles[:, 2])
    )
    return np.stack([base.as_rotvec(), axes[THUMB + 1] * angles[:, 3], axes[THUMB + 2] * angles[:, 4]], axis=1)


def gesture(rng: np.random.Generator, axes: Float[np.ndarray, "15 3"]) -> Float[np.ndarray, "15 3"]:
    """A free hand: a common curl with scatter, spread fingers, now and then some fingers straight."""
    pose = np.zeros((15, 3))
    curl = rng.uniform(-0.2, 1.3) if rng.random() < 0.7 else 0.0
    scatter, spread = rng.uniform(0.05, 0.5), rng.uniform(-0.1, 0.25)
    straight = rng.random(4) < 0.35 if rng.random() < 0.35 else np.zeros(4, bool)
    for i, first in enumerate((0, 3, 9, 6)):  # index, middle, ring, little
        mcp = np.clip(curl + rng.normal(0, scatter), -0.35, 1.55)
        pip = np.clip(mcp * rng.uniform(0.5, 1.3) + rng.normal(0, 0.25), -0.05, 1.8)
        if straight[i]:
            mcp, pip = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.25)
        sideways = (spread * (1.5 - i) / 1.5 + rng.normal(0, 0.07)) * max(0.0, 1 - mcp / 1.6)
        base = Rotation.from_rotvec([0, -sideways, 0]) * Rotation.from_rotvec(axes[first] * mcp)
        pose[first] = base.as_rotvec()
        pose[first + 1] = axes[first + 1] * pip
        pose[first + 2] = axes[first + 2] * np.clip(pip * rng.uniform(0.4, 0.9), -0.1, 1.2)
    pose[THUMB:] = thumb(rng, axes)
    return pose


def open_hand(rng: np.random.Generator, closed: Float[np.ndarray, "15 3"], n: int) -> Float[np.ndarray, "{n} 15 3"]:
    """Hands on their way to a grasp: the same joints, far less flexed, and any thumb between closed and straight."""
    opened = closed * rng.uniform(0.05, 0.3, (n, 15, 1))
    opened[:, THUMB:] = closed[THUMB:] * rng.uniform(0, 1, (n, 1, 1))
    return opened


def place_in_hand(rng: np.random.Generator, half: Float[np.ndarray, " 3"], axis: int):
    """A random pose of an object before the palm: `R_hand_object`, its centre in the hand frame.

    The object's longest side lies across the palm; of the others the thinner one points into it.
    """
    long = int(np.argmax(half)) if axis == primitives.BOX else (axis if half[axis] > 0.8 * half.max() else -1)
    if long < 0:  # a flat cylinder: a bowl or a tuna can is held by its rim
        long = (axis + 1 + int(rng.integers(2))) % 3
    rest = [k for k in range(3) if k != long]
    thin = min(rest, key=lambda k: half[k])
    across = np.array([rng.normal(0, 0.3), rng.normal(0, 0.15), 1.0]) * rng.choice([-1, 1])
    across /= np.linalg.norm(across)
    into = np.array([0, -1.0, 0]) - across * -across[1]
    into /= np.linalg.norm(into)
    R = np.zeros((3, 3))
    R[:, long], R[:, thin] = across, into * rng.choice([-1, 1])
    wide = 3 - long - thin
    R[:, wide] = np.cross(R[:, (wide + 1) % 3], R[:, (wide + 2) % 3])
    if axis == long:
        R = R @ Rotation.from_rotvec(np.eye(3)[axis] * rng.uniform(0, 2 * np.pi)).as_matrix()
    gap = rng.uniform(0, 0.02)
    center = np.array([-rng.uniform(0.075, 0.125), -0.016 - half[thin] - gap, rng.uniform(-0.02, 0.02)])
    return R, center + across * rng.uniform(-0.5, 0.5) * max(0.0, half[long] - 0.03)


def make_room(
    rng: np.random.Generator,
    shape: HandShape,
    R_hand_object: Float[np.ndarray, "3 3"],
    center: Float[np.ndarray, " 3"],
    half: Float[np.ndarray, " 3"],
    axis: int,
) -> Float[np.ndarray, " 3"]:
    """The object's centre pushed out of the palm until it fits before the straight hand, its thumb aside."""
    poses = np.zeros((LEVELS, 15, 3))
    poses[:, THUMB:] = thumbs(rng, shape.axes, LEVELS)
    vertices = shape.vertices(poses)
    for _ in range(PUSHES):
        clearance = distance(vertices, R_hand_object, center, half, axis).min(1).max()
        if clearance >= PENETRATION:
            break
        center = center + [0, clearance, 0]
    return center


def distance(vertices, R_hand_object, center, half, axis) -> Float[np.ndarray, "n v"]:
    """Signed distance of vertices in the hand frame to the object's surface."""
    return primitives.signed_distance((vertices - center) @ R_hand_object, half, np.asarray(axis))


def close_on(
    rng: np.random.Generator,
    shape: HandShape,
    R_hand_object: Float[np.ndarray, "3 3"],
    center: Float[np.ndarray, " 3"],
    half: Float[np.ndarray, " 3"],
    axis: int,
    up: Float[np.ndarray, " 3"],
    height: float,
) -> Float[np.ndarray, "15 3"]:
    """Close every finger joint by joint until its skin touches the object or the table; the best of `LEVELS` thumbs.

    `up` is the table's normal in the hand frame, `height` the wrist's above it.
    """

    def clearances(vertices):
        to_object = distance(vertices, R_hand_object, center, half, axis)
        return to_object, np.minimum(to_object, vertices @ up + height)

    pose = rng.normal(0, 0.02, (15, 3))
    for first in FINGERS.values():
        pose[first] += [0, rng.normal(0, 0.08), 0]
    limits = {first: MAX_FLEXION * rng.uniform(0.6, 1.0) for first in FINGERS.values()}
    for k in range(3):
        candidates = np.repeat(pose[None], LEVELS, 0)
        for first in FINGERS.values():
            angles = np.linspace(0, limits[first][k], LEVELS)
            candidates[:, first + k] += angles[:, None] * shape.axes[first + k]
        _, clearance = clearances(shape.vertices(candidates))
        for first in FINGERS.values():
            moved = (shape.owner >= first + k) & (shape.owner <= first + 2)
            touches = clearance[:, moved].min(1) < PENETRATION
            last_free = int(np.argmax(touches)) - 1 if touches.any() else LEVELS - 1
            pose[first + k] = candidates[max(last_free, 0), first + k]
    candidates = np.repeat(pose[None], LEVELS, 0)
    candidates[:, THUMB:] = thumbs(rng, shape.axes, LEVELS)
    to_object, clearance = clearances(shape.vertices(candidates))
    sunk = np.clip(PENETRATION - clearance.min(1), 0, None)
    touch = np.abs(np.sort(to_object[:, shape.owner == THUMB + 2], 1)[:, :4]).mean(1)
    return candidates[int(np.argmin(10 * sunk + touch))]
