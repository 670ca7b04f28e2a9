"""How far away things are, by the object that stands on the table.

How large a stranger's hand is one picture does not say, so that its distance is a guess, and with it that of the object
beside it. But what stands on a table whose place is known is where its line of sight comes down to its height.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from amt.models.temporal import GRIP, Observation

REACH = 0.1  # metres from the grip at which an object counts a factor of e less: it is seen from crops of the hand
RAISED = 0.03  # metres above where it would stand, from which an object no longer says anything
LARGEST = 1.3  # factor of a distance that is believed, either way
KEPT = 0.95  # of what earlier frames weigh, at the next one that says something: nearer to the grasp it is seen better
LEAST = 1e-3  # weight below which a frame is left out
SETTLED = 0.5  # weight from which it is asked whether the object has been raised


class Ground(NamedTuple):
    """By the frames so far: what they weigh together and how much farther than seen things are (logarithm); what they
    weigh together without `KEPT`, and the object's height above the table, metres.
    """

    weight: float = 0.0
    log_scale: float = 0.0
    seen: float = 0.0
    height: float = 0.0

    @property
    def scale(self) -> float:
        return math.exp(self.log_scale)


def next_ground(ground: Ground, seen: Observation, t: int) -> Ground:
    """After frame `t` of what was seen [1,T,...] in a frame whose table is z = 0 and z up, not rescaled.

    A frame's say is the object's confidence, less far from the grip. Once there is an estimate, objects that it finds
    raised have none. The height of an object's middle is that of an ellipsoid of its half extents, the mean so far.
    """
    if not bool(seen.valid[0, t]):
        return ground
    camera, thing = np.asarray(seen.camera_position[0, t]), np.asarray(seen.object_position[0, t])
    away = np.linalg.norm(thing - np.asarray(seen.joints[0, t])[GRIP].mean(0))
    weight = float(seen.object_confidence[0, t]) * math.exp(-((away / REACH) ** 2))
    height = float(np.linalg.norm(np.asarray(seen.object_rotation[0, t])[2] * np.asarray(seen.object_half[0, t])))
    down = float(camera[2] - thing[2])
    if weight < LEAST:
        return ground
    every = ground.seen + weight
    height = ground.height + (height - ground.height) * weight / every
    ground = ground._replace(seen=every, height=height)
    raised = ground.weight > SETTLED and camera[2] - ground.scale * down > height + RAISED
    if raised or down <= 0 or camera[2] <= height:
        return ground
    log_scale = float(np.clip(math.log((camera[2] - height) / down), -math.log(LARGEST), math.log(LARGEST)))
    total = KEPT * ground.weight + weight
    log_scale = ground.log_scale + (log_scale - ground.log_scale) * weight / total
    return ground._replace(weight=total, log_scale=log_scale)


def scales(seen: Observation) -> Float[np.ndarray, " t"]:
    """Of every frame, by itself and those before it: how many times farther than seen [1,t,...] things are."""
    seen, ground, found = jax.tree.map(np.asarray, seen), Ground(), []
    for t in range(seen.valid.shape[1]):
        ground = next_ground(ground, seen, t)
        found.append(ground.scale)
    return np.float32(found)
