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
from amt.robot.model import Robot
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
# Against a fingertip's place: a pinch, a touched object, pads that go through each other, links, neighbours.
PINCH_WEIGHT, CONTACT_WEIGHT, PAD_WEIGHT, COLLISION_WEIGHT, SPACING_WEIGHT = 20.0, 20.0, 20.0, 3.0, 0.5
# Links are 27 mm wide, 20 mm deep: their middles keep this distance; neighbouring tips this one across (metres).
LINK_DISTANCE, FINGER_SPACING = 0.022, 0.0245

LIMIT_MARGIN = 0.005  # radians kept from every joint limit: commands are strictly inside

# Fingers slightly curled, thumb opposed: the middle of what a relaxed hand does.
REST_HAND = (0.0, 0.4, 0.4, 0.4) * 3 + (0.8, 0.3, 0.4, 0.4)

_THUMB = 3
# Pairs of points (finger, point) that must not meet: thumb tip and links of the fingers, thumb link and their tips.
_COLLIDING = [((_THUMB, TIP), (f, point)) for f in range(3) for point in (KNUCKLE, LAST)]
_COLLIDING += [((_THUMB, LAST), (f, TIP)) for f in range(3)]
_PINCHING = [((_THUMB, TIP), (f, TIP)) for f in range(3)]


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
def hand_residual(robot: Robot) -> Residual:
    """r(q [16], HandTargets of one frame): tips, last bones, pinches, contacts, collisions, rest pose."""

    def residual(q: Float[Array, " 16"], target: HandTargets) -> tuple[Array, Array]:
        hand = fingers(robot, q)
        rest = (q - jnp.asarray(REST_HAND, q.dtype)) * REST_WEIGHT
        parts = [
            ((hand.points[:, TIP] - target.tips).ravel(), _per_finger(hand.d_points[:, TIP])),
            (
                (hand.directions - target.directions).ravel() * DIRECTION_LEVER,
                _per_finger(hand.d_directions) * DIRECTION_LEVER,
            ),
            _pinches(hand, target),
            _contacts(hand, target),
            _collisions(hand),
            _spacing(hand, 1.0 if robot.side == "right" else -1.0),
            (rest, jnp.eye(len(REST_HAND), dtype=q.dtype) * REST_WEIGHT),
        ]
        return tuple(jnp.concatenate(rows) for rows in zip(*parts, strict=True))

    return residual


def palm_tips(
    robot: Robot, q: Float[Array, "*batch 16"]
) -> tuple[Float[Array, "*batch 4 3"], Float[Array, "*batch 4 3"]]:
    """Vectors wrist to tip and directions of the last bones, in the palm frame, in the order of FINGERS."""
    hand = fingers(robot, q)
    return hand.points[..., TIP, :], hand.directions


def _pinches(hand: Fingers, target: HandTargets) -> tuple[Array, Array]:
    """Pads of thumb and finger touch in a pinch, and never go through each other."""
    distance, J = _distances(hand, _PINCHING)
    short = distance - 2 * TIP_RADIUS
    weight = jnp.sqrt(jnp.where(short > 0, target.pinch * PINCH_WEIGHT, PAD_WEIGHT))
    return weight * short, weight[:, None] * J


def _contacts(hand: Fingers, target: HandTargets) -> tuple[Array, Array]:
    apart = hand.points[:, TIP] - target.contacts
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1) + 1e-12)
    weight = jnp.sqrt(jnp.maximum(target.contact_weight, 1e-12) * CONTACT_WEIGHT)
    rows = jnp.einsum("fx,fxk->fk", apart / distance[:, None], hand.d_points[:, TIP])
    return weight * (distance - TIP_RADIUS), _per_finger(weight[:, None, None] * rows[:, None])


def _collisions(hand: Fingers) -> tuple[Array, Array]:
    distance, J = _distances(hand, _COLLIDING)
    close = distance < LINK_DISTANCE
    weight = jnp.where(close, COLLISION_WEIGHT**0.5, 0.0).astype(distance.dtype)
    return weight * (distance - LINK_DISTANCE), weight[:, None] * J


def _spacing(hand: Fingers, index_side: float) -> tuple[Array, Array]:
    """Neighbouring fingertips keep the width of a finger between them; the index is at +y or -y."""
    across, d_across = (index_side * x[:3, TIP, 1] for x in (hand.points, hand.d_points))
    rows = jnp.eye(4, dtype=across.dtype)[:3, :, None] * d_across[:, None]
    short = across[:-1] - across[1:] - FINGER_SPACING
    weight = jnp.where(short < 0, SPACING_WEIGHT**0.5, 0.0).astype(across.dtype)
    return weight * short, weight[:, None] * (rows[:-1] - rows[1:]).reshape(2, -1)


def _distances(hand: Fingers, pairs: list) -> tuple[Array, Array]:
    """Distances of pairs of points [n], and their Jacobian [n,16]."""
    (f, i), (g, j) = np.moveaxis(np.array(pairs), 0, -1)
    apart = hand.points[f, i] - hand.points[g, j]
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1) + 1e-12)
    unit = apart / distance[:, None]
    eye = np.eye(4)
    rows = [
        jnp.asarray(eye[finger], unit.dtype)[:, :, None]
        * jnp.einsum("nx,nxk->nk", unit, hand.d_points[finger, point])[:, None]
        for finger, point in ((f, i), (g, j))
    ]
    return distance, (rows[0] - rows[1]).reshape(len(pairs), -1)


def _per_finger(J: Float[Array, "4 rows 4"]) -> Float[Array, "4*rows 16"]:
    """Rows that only the finger's own joints move, among the hand's 16."""
    return (jnp.eye(4, dtype=J.dtype)[:, None, :, None] * J[:, :, None, :]).reshape(-1, 16)
