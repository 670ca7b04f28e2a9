"""What a rollout is judged by: named terms, each with its unit, and their weighted sum."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from amt.geometry.rotations import from_quaternion
from amt.physics.model import Model, State
from amt.physics.tree import frames
from amt.robot.model import FINGERS, FRAMES, NUM_JOINTS

FREE_FORCE = 10.0  # newtons of one contact that cost nothing
FREE_DEPTH = 0.001  # metres, likewise: soft contacts need some
FREE_RANGE = 0.95  # share of a joint's range, likewise
WEIGHTS = {
    "object_position": 10.0,
    "object_rotation": 0.5,
    "fingertips": 2.0,
    "wrist_position": 2.0,
    "wrist_rotation": 0.2,
    "slip": 0.2,
    "effort": 0.01,
    "limits": 1.0,
    "penetration": 20.0,
    "force": 0.01,
}


@struct.dataclass
class Goal:
    """What the first object and the hand should do after each command, in the base frame; `valid` masks the times."""

    object_pos: Float[Array, "T 3"]
    object_rot: Float[Array, "T 3 3"]
    tips: Float[Array, "T 4 3"]  # index, middle, ring, thumb
    wrist_pos: Float[Array, "T 3"]
    wrist_rot: Float[Array, "T 3 3"]
    valid: Bool[Array, " T"]


def terms(model: Model, states: State, controls: Float[Array, "T 22"], goal: Goal) -> dict[str, Float[Array, ""]]:
    """Means over the times that count.

    object_position, fingertips, wrist_position: distance to the goal, m. object_rotation, wrist_rotation: 1 - cos of
    the angle to it. slip: speed of what presses on the object, m/s. effort: square of command minus joint angle, rad^2.
    limits: rad beyond 95% of a joint's range. penetration: m beyond 1 mm. force: N beyond 10, summed over contacts.
    """
    reached = jax.vmap(lambda q: hand_frames(model, q[:NUM_JOINTS]))(states.qpos)
    pose = states.qpos[:, NUM_JOINTS : NUM_JOINTS + 7]
    R = from_quaternion(pose[:, 3:])
    touch, q = states.touch, states.qpos[:, :NUM_JOINTS]
    low, high = (jnp.asarray(x, q.dtype) for x in model.tree.limits.T)
    middle, free = (low + high) / 2, (high - low) / 2 * FREE_RANGE
    pressing = jnp.maximum(touch.force, 0.0)
    share = pressing / (jnp.sum(pressing, axis=-1, keepdims=True) + 1.0)
    found = {
        "object_position": _distance(pose[:, :3], goal.object_pos),
        "object_rotation": _turned(R, goal.object_rot),
        "fingertips": jnp.mean(_distance(reached.tips, goal.tips), axis=-1),
        "wrist_position": _distance(reached.wrist_pos, goal.wrist_pos),
        "wrist_rotation": _turned(reached.wrist_rot, goal.wrist_rot),
        "slip": jnp.sum(share * touch.slip, axis=-1),
        "effort": jnp.mean((controls - q) ** 2, axis=-1),
        "limits": jnp.mean(jnp.maximum(jnp.abs(q - middle[None]) - free[None], 0.0), axis=-1),
        "penetration": jnp.sum(jnp.maximum(-touch.dist - FREE_DEPTH, 0.0), axis=-1),
        "force": jnp.sum(jnp.maximum(pressing - FREE_FORCE, 0.0), axis=-1),
    }
    count = jnp.maximum(jnp.sum(goal.valid.astype(q.dtype)), 1.0)
    return {name: jnp.sum(jnp.where(goal.valid, value, 0.0)) / count for name, value in found.items()}


def total(found: Mapping[str, Float[Array, ""]], weights: Mapping[str, float]) -> Float[Array, ""]:
    """The weighted sum; every term needs a weight and every weight a term (KeyError)."""
    if found.keys() != weights.keys():
        raise KeyError(f"terms {sorted(found)} and weights {sorted(weights)} differ")
    return sum(weights[name] * found[name] for name in found)


@struct.dataclass
class HandFrames:
    """Of one pose of the robot, in the base frame."""

    tips: Float[Array, "4 3"]
    wrist_pos: Float[Array, " 3"]
    wrist_rot: Float[Array, "3 3"]


def hand_frames(model: Model, q: Float[Array, " 22"]) -> HandFrames:
    """Fingertips' and wrist's frames (`amt.robot.FRAMES`) by the tree's kinematics."""
    at = frames(model.tree, q)
    names = [f"{finger}_tip" for finger in FINGERS]
    body, place = zip(*(model.places[FRAMES[name][0]] for name in (*names, "wrist")), strict=True)
    body = np.array(body)
    offset = [np.array(p) + np.array(R) @ FRAMES[n][1] for (p, R), n in zip(place, (*names, "wrist"), strict=True)]
    points = at.pos[body] + jnp.einsum("kij,kj->ki", at.rot[body], jnp.asarray(np.array(offset), q.dtype))
    turn = jnp.asarray(np.array(place[-1][1]), q.dtype)
    return HandFrames(points[:4], points[4], at.rot[body[4]] @ turn)


def _distance(a: Array, b: Array) -> Array:
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1) + 1e-8)


def _turned(R: Array, goal: Array) -> Array:
    return (3 - jnp.einsum("tij,tij->t", R, goal)) / 2
