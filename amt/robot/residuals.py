"""What the solver minimises: residuals in metres of the arm (6 joints) and of the hand (16 joints), with Jacobians.

The two are independent: the arm carries the palm, and fingertip targets are given in the palm's frame.
The factories are cached, because a residual function is a static argument of the compiled solver.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.robot.chains import KNUCKLE, LAST, TIP, Fingers, fingers, wrist
from amt.robot.guards import arm_guards
from amt.robot.human import HandTargets
from amt.robot.model import FRAMES, Robot
from amt.robot.solver import Residual

# A rotation error of 1 rad weighs as much as this many metres.
ROTATION_LEVER = 0.1
# A last bone that points elsewhere: 1 rad weighs as much as this many metres.
DIRECTION_LEVER = 0.002
# No room left (a guard of 1) weighs as much as this many metres.
GUARD_LEVER = 0.02
# A slight pull to the rest pose decides what the targets leave open (metres per radian).
REST_WEIGHT = 2e-3
# Fingertips are round: the radius of their surface (metres).
TIP_RADIUS = 0.012
# Against a fingertip's place: a pinch, a touched object, bones that are too close.
PINCH_WEIGHT, CONTACT_WEIGHT, COLLISION_WEIGHT = 20.0, 20.0, 40.0
# What middles of bones keep from each other (metres). Links are boxes 27.5 mm wide and 20 mm deep, the last ones end
# round: a little more than the width side by side, less between the thumb and the fingers' faces. Tips may touch.
NEIGHBOUR_DISTANCE, THUMB_DISTANCE, TIP_DISTANCE = 0.0305, 0.0285, 2 * TIP_RADIUS
# A round end and the middle of the other finger's last box; where that is along the bone.
BOX_DISTANCE, FINGER_BOX, THUMB_BOX = 0.0295, 0.008, 0.0157

LIMIT_MARGIN = 0.005  # radians kept from every joint limit: commands are strictly inside

# Fingers slightly curled, thumb opposed: the middle of what a relaxed hand does.
REST_HAND = (0.0, 0.4, 0.4, 0.4) * 3 + (0.8, 0.3, 0.4, 0.4)

_THUMB = 3
# Bones are (finger, the point where one starts): the two outer ones of each finger.
_BONES = (KNUCKLE, LAST)
_NEIGHBOURS = [((f, i), (f + 1, j)) for f in range(2) for i in _BONES for j in _BONES]
_OPPOSED = [((_THUMB, i), (f, j)) for f in range(3) for i in _BONES for j in _BONES]
_ENDS = [((_THUMB, LAST), (f, LAST)) for f in range(3)]
_KEPT = np.array(
    [NEIGHBOUR_DISTANCE] * len(_NEIGHBOURS) + [TIP_DISTANCE if pair in _ENDS else THUMB_DISTANCE for pair in _OPPOSED]
)
_FINGER_BOX, _THUMB_BOX = FINGER_BOX / FRAMES["ff_tip"][1][2], THUMB_BOX / FRAMES["th_tip"][1][2]


def joint_box(robot: Robot) -> Float[np.ndarray, "22 2"]:
    """What commands keep to."""
    return robot.limits + [[LIMIT_MARGIN, -LIMIT_MARGIN]]


@functools.cache
def wrist_residual(robot: Robot) -> Residual:
    """r(q [6], (position, rotation)) of the wrist frame against targets in the base frame: 12 rows."""

    def residual(q: Float[Array, " 6"], target: tuple[Array, Array]) -> tuple[Array, Array]:
        position, R, d_position, d_R = wrist(robot, q)
        # The Frobenius distance of two rotations is sqrt(2) times their angle, to first order.
        lever = ROTATION_LEVER / 2**0.5
        r = jnp.concatenate([position - target[0], (R - target[1]).ravel() * lever])
        return r, jnp.concatenate([d_position, d_R.reshape(9, -1) * lever])

    return residual


@functools.cache
def arm_residual(robot: Robot) -> Residual:
    """`wrist_residual`, and the arm's guards: singular poses, the table, its own column and links."""
    follow = wrist_residual(robot)

    def guards(q):
        shortfalls = arm_guards(robot, q) * GUARD_LEVER
        return shortfalls, shortfalls

    def residual(q: Float[Array, " 6"], target: tuple[Array, Array]) -> tuple[Array, Array]:
        r, J = follow(q, target)
        d_shortfalls, shortfalls = jax.jacfwd(guards, has_aux=True)(q)
        return jnp.concatenate([r, shortfalls]), jnp.concatenate([J, d_shortfalls])

    return residual


@functools.cache
def reach_residual(robot: Robot) -> Residual:
    """r(q [16], HandTargets of one frame): tips, last bones, rest pose."""
    return functools.partial(_stacked, robot, (_reach,))


@functools.cache
def hand_residual(robot: Robot) -> Residual:
    """`reach_residual`, and pinches, contacts and collisions."""
    return functools.partial(_stacked, robot, (_reach, _pinches, _contacts, _collisions))


def _stacked(robot: Robot, terms: tuple, q: Float[Array, " 16"], target: HandTargets) -> tuple[Array, Array]:
    hand = fingers(robot, q)
    rest = (q - jnp.asarray(REST_HAND, q.dtype)) * REST_WEIGHT, jnp.eye(len(REST_HAND), dtype=q.dtype) * REST_WEIGHT
    parts = [*(term(hand, target) for term in terms), rest]
    return tuple(jnp.concatenate(rows) for rows in zip(*parts, strict=True))


def palm_tips(
    robot: Robot, q: Float[Array, "*batch 16"]
) -> tuple[Float[Array, "*batch 4 3"], Float[Array, "*batch 4 3"]]:
    """Vectors wrist to tip and directions of the last bones, in the palm frame, in the order of FINGERS."""
    hand = fingers(robot, q)
    return hand.points[..., TIP, :], hand.directions


def _reach(hand: Fingers, target: HandTargets) -> tuple[Array, Array]:
    tips = (hand.points[:, TIP] - target.tips).ravel()
    directions = (hand.directions - target.directions).ravel() * DIRECTION_LEVER
    J = _per_finger(hand.d_points[:, TIP]), _per_finger(hand.d_directions) * DIRECTION_LEVER
    return jnp.concatenate([tips, directions]), jnp.concatenate(J)


def _pinches(hand: Fingers, target: HandTargets) -> tuple[Array, Array]:
    """Pads of thumb and finger touch in a pinch."""
    distance, J = _distances(hand, _ENDS, np.ones(3), np.ones(3))
    gap = distance - 2 * TIP_RADIUS
    weight = jnp.where(gap > 0, jnp.sqrt(target.pinch * PINCH_WEIGHT), 0.0)
    return weight * gap, weight[:, None] * J


def _contacts(hand: Fingers, target: HandTargets) -> tuple[Array, Array]:
    apart = hand.points[:, TIP] - target.contacts
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1) + 1e-12)
    weight = jnp.sqrt(jnp.maximum(target.contact_weight, 1e-12) * CONTACT_WEIGHT)
    rows = jnp.einsum("fx,fxk->fk", apart / distance[:, None], hand.d_points[:, TIP])
    return weight * (distance - TIP_RADIUS), _per_finger(weight[:, None, None] * rows[:, None])


def _collisions(hand: Fingers, _: HandTargets) -> tuple[Array, Array]:
    """Neighbours, and thumb and fingers, stay out of each other: bones, and round ends and last boxes."""
    bones = _NEIGHBOURS + _OPPOSED
    points = np.array(bones)
    ends = [hand.points[points[:, k, 0], points[:, k, 1] + n] for k in (0, 1) for n in (0, 1)]
    boxes = np.repeat([[1.0, _FINGER_BOX], [_THUMB_BOX, 1.0]], 3, axis=0)
    found = [_distances(hand, bones, *_closest(*ends)), _distances(hand, _ENDS * 2, *boxes.T)]
    distance, J = (jnp.concatenate(rows) for rows in zip(*found, strict=True))
    short = distance - jnp.asarray(np.append(_KEPT, [BOX_DISTANCE] * len(boxes)), distance.dtype)
    weight = jnp.where(short < 0, COLLISION_WEIGHT**0.5, 0.0).astype(distance.dtype)
    return weight * short, weight[:, None] * J


def _closest(
    a: Float[Array, "n 3"], a_end: Float[Array, "n 3"], b: Float[Array, "n 3"], b_end: Float[Array, "n 3"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Where along two segments, 0..1, they are closest (Ericson 2005, "Real-Time Collision Detection", 5.1.9)."""
    along, across, apart = a_end - a, b_end - b, a - b
    aa, bb, ab, at_a, at_b = (
        jnp.sum(x * y, axis=-1)
        for x, y in ((along, along), (across, across), (along, across), (along, apart), (across, apart))
    )
    share = jnp.clip((ab * at_b - at_a * bb) / (aa * bb - ab**2 + 1e-12), 0.0, 1.0)
    other = jnp.clip((ab * share + at_b) / bb, 0.0, 1.0)
    return jnp.clip((ab * other - at_a) / aa, 0.0, 1.0), other


def _distances(hand: Fingers, bones: list, share: Array, other: Array) -> tuple[Array, Array]:
    """Distances [n] of a point on each of two bones, `share` and `other` of the way along, and their Jacobian [n,16].

    The Jacobian is exact for fixed shares, and for those of the closest points, where moving along changes nothing.
    """
    places, rows = [], []
    for (finger, start), way in zip(np.array(bones).transpose(1, 2, 0), (share, other), strict=True):
        way = jnp.asarray(way, hand.points.dtype)[:, None]
        places.append((1 - way) * hand.points[finger, start] + way * hand.points[finger, start + 1])
        moved = hand.d_points[finger, start], hand.d_points[finger, start + 1]
        rows.append((finger, (1 - way)[..., None] * moved[0] + way[..., None] * moved[1]))
    apart = places[0] - places[1]
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1) + 1e-12)
    unit = apart / distance[:, None]
    first, second = (
        jnp.asarray(np.eye(4)[finger], unit.dtype)[:, :, None] * jnp.einsum("nx,nxk->nk", unit, moved)[:, None]
        for finger, moved in rows
    )
    return distance, (first - second).reshape(len(bones), -1)


def _per_finger(J: Float[Array, "4 rows 4"]) -> Float[Array, "4*rows 16"]:
    """Rows that only the finger's own joints move, among the hand's 16."""
    return (jnp.eye(4, dtype=J.dtype)[:, None, :, None] * J[:, :, None, :]).reshape(-1, 16)
