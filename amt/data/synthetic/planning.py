"""Where a hand goes to grip an object: a site between thumb and fingers, approached from above or from the side.

A posture is 21 hinge angles in the order of `articulated.joint_names`. Along its opening, from 0 (closed) to 1 (wide),
the gap between the pads of thumb and fingers grows; the hand is placed so that this gap lies around the site.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.data.synthetic.shapes import Site

# Flexion of mcp, pip, dip of every finger, then the thumb's five hinges, from closed to wide open. Found by minimising
# the angles between the pads and the line that joins them, for gaps of 8, 30, 55, 85, 110 and 130 mm.
PINCH = (
    (1.12, 0.15, 0.10, 0.12, -1.11, -1.20, 0.31, -0.30),
    (0.95, 0.15, 0.10, 0.11, -1.25, -1.20, 0.28, -0.30),
    (0.70, 0.21, 0.10, -0.02, -1.40, -1.02, 0.37, -0.30),
    (0.39, 0.15, 0.13, 0.00, -1.40, -1.02, 0.27, -0.30),
    (0.15, 0.24, 0.10, -0.01, -1.40, -0.94, 0.11, -0.26),
    (0.19, 0.15, 0.13, -0.05, -1.40, -0.75, -0.20, 0.04),
)
POWER = (
    (0.03, 1.09, 0.36, 0.22, -0.24, -1.20, -0.14, -0.30),
    (0.00, 1.00, 0.10, 0.19, -0.58, -1.20, 0.02, -0.30),
    (0.00, 0.94, 0.10, 0.17, -0.96, -1.20, 0.03, -0.20),
    (0.00, 0.93, 0.10, 0.06, -1.40, -1.03, 0.08, -0.07),
    (0.01, 0.92, 0.10, 0.01, -1.40, -0.73, -0.18, 0.03),
    (0.00, 0.89, 0.10, 0.02, -1.40, -0.34, -0.20, 0.04),
)
# Beyond contact the fingers' targets go on closing by BEYOND, and curl: much around a body, hardly in a pinch.
BEYOND = 0.35
POWER_SQUEEZE = (0.5, 0.6, 0.4, 0.3, 0.5, 0.0, 0.3, 0.4)
PINCH_SQUEEZE = (0.3, 0.05, 0.05, 0.1, 0.25, 0.0, 0.1, 0.1)
CONTACT_CLOSING = 0.5  # how far the fingers are closed, 0..1, where the pads meet the site
SPREAD = (-0.08, 0.0, 0.12, 0.05)  # index, middle, little, ring: nearly parallel, the rest pose is spread
MAX_UP = 0.2  # how far upwards a hand may reach, z of the unit approach
MIN_CLEARANCE, MAX_CLEARANCE = 0.015, 0.045  # metres by which the open hand is wider than the site
ROOM_BELOW = 0.03  # metres that a finger or the thumb needs between object and table
MAX_DEPTH = 0.06  # metres from an object's near side to the pads


@dataclasses.dataclass(frozen=True)
class Plan:
    """A grasp in the world: where pads and object meet, where the hand comes from, how far it opens before it closes.

    The wrist moves while the fingers close, so that the middle between the pads stays at `point`.
    """

    R: Float[np.ndarray, "3 3"]
    point: Float[np.ndarray, " 3"]
    approach: Float[np.ndarray, " 3"]  # unit, the way the hand reaches
    gripper: "Gripper"
    opening: float  # of the gripper before it closes
    contact: float  # its opening where the pads meet the site
    noise: Float[np.ndarray, " 21"]  # what is added to its postures
    strength: float  # share of the fingers' greatest torque

    @property
    def side(self) -> str:
        """`top` where the hand comes down at more than 45 degrees, else `side`."""
        return "top" if self.approach[2] < -np.sqrt(0.5) else "side"

    def wrist(self, closing: float) -> Float[np.ndarray, " 3"]:
        """Where the wrist is when the fingers are closed so far, but for the table."""
        middle, _ = self.gripper.at(self._opening(min(closing, CONTACT_CLOSING)))
        return self.point - self.R @ middle

    def posture(self, closing: float) -> Float[np.ndarray, " 21"]:
        """The fingers' targets from open (0) to squeezing (1)."""
        beyond = max(closing / CONTACT_CLOSING - 1, 0.0)
        return self.gripper.posture(self._opening(closing)) + beyond * self.gripper.squeeze + self.noise

    def _opening(self, closing):
        if closing <= CONTACT_CLOSING:
            return self.opening + closing / CONTACT_CLOSING * (self.contact - self.opening)
        return max(self.contact - BEYOND * (closing / CONTACT_CLOSING - 1), 0.0)


class Gripper:
    """A subject's hand as a gripper: pads' middle, closing and approach direction over the opening, wrist frame."""

    def __init__(self, keys, squeeze, kinematics):
        """`kinematics` maps a posture to pads' places [5,3] in the wrist's frame and the palm's middle [3]."""
        self.keys = np.array([full_posture(k) for k in keys])
        self.opening = np.linspace(0, 1, 21)
        rows = [kinematics(self.posture(s)) for s in self.opening]
        thumb = np.array([pads[0] for pads, _ in rows])
        fingers = np.array([pads[1:3].mean(0) for pads, _ in rows])
        palm = np.array([p for _, p in rows])
        across = fingers - thumb
        self.middle = (fingers + thumb) / 2
        self.gap = np.linalg.norm(across, axis=1)
        self.closing = across / self.gap[:, None]
        reach = self.middle - palm
        reach -= self.closing * (reach * self.closing).sum(1, keepdims=True)
        self.reach = reach / np.linalg.norm(reach, axis=1, keepdims=True)
        self.squeeze = full_posture(squeeze, np.zeros(4))

    def posture(self, opening: float) -> Float[np.ndarray, " 21"]:
        """Between closed (0) and wide (1)."""
        x = np.clip(opening, 0, 1) * (len(self.keys) - 1)
        k = min(int(x), len(self.keys) - 2)
        return self.keys[k] * (1 - x + k) + self.keys[k + 1] * (x - k)

    def opening_for(self, gap: float) -> float | None:
        """The opening with this gap between the pads; None where the hand does not open so far."""
        gaps = np.maximum.accumulate(self.gap)
        return float(np.interp(gap, gaps, self.opening)) if gap <= gaps[-1] else None

    def at(self, opening: float):
        """Middle of the pads and the hand's axes (closing, reach, their cross) as columns, wrist frame."""
        middle = np.array([np.interp(opening, self.opening, self.middle[:, k]) for k in range(3)])
        k = int(round(opening * (len(self.opening) - 1)))
        c, a = self.closing[k], self.reach[k]
        return middle, np.stack([c, a, np.cross(c, a)], 1)


def full_posture(key, spread=SPREAD) -> Float[np.ndarray, " 21"]:
    """All hinges of a hand whose fingers bend together: `key` holds three flexions and the thumb's five."""
    fingers = np.array([[s, *key[:3]] for s in spread])
    return np.concatenate([fingers.ravel(), key[3:]])


def sample(
    rng: np.random.Generator,
    grippers: tuple[Gripper, Gripper],
    sites: list[Site],
    R_world_object: Float[np.ndarray, "3 3"],
    position: Float[np.ndarray, " 3"],
    mass: float,
) -> Plan | None:
    """A random grasp at one of the sites of an object; None where it does not fit or comes from below."""
    gripper = grippers[int(rng.integers(2))]
    site = sites[int(rng.integers(len(sites)))]
    R = R_world_object @ site.R
    if site.round >= 0:
        R = R @ Rotation.from_rotvec(np.eye(3)[site.round] * rng.uniform(0, 2 * np.pi)).as_matrix()
    half = np.array(site.half, np.float64)
    center = position + R_world_object @ site.center
    below = center[2] - np.abs(R[2]) @ half < ROOM_BELOW
    axes = [k for k in range(3) if not (below and abs(R[2, k]) > 0.6)]  # no finger fits between object and table
    axis = min(axes, key=lambda k: half[k]) if rng.random() < 0.7 else int(rng.choice(axes))
    closing = R[:, axis] * rng.choice([-1, 1])
    contact = gripper.opening_for(2 * half[axis] + 0.002)
    if contact is None:
        return None
    opened = gripper.opening_for(2 * half[axis] + rng.uniform(MIN_CLEARANCE, MAX_CLEARANCE)) or 1.0
    first, second = R[:, (axis + 1) % 3], R[:, (axis + 2) % 3]
    angle = rng.uniform(0, 2 * np.pi)
    if site.round < 0 or site.round == axis or rng.random() < 0.3:
        angle = np.pi / 2 * rng.integers(4) + rng.normal(0, 0.2)  # at a face, not at an edge
    approach = np.cos(angle) * first + np.sin(angle) * second
    if approach[2] > MAX_UP:
        return None
    along = np.cross(closing, approach)
    extent, length = _half_way(half, R.T @ approach), _half_way(half, R.T @ along)
    # Pads before the middle of a round body would push it away; on flat sides they need a finger's breadth.
    rolls = site.round >= 0 and site.round != axis and abs(along @ R[:, site.round]) > 0.5
    least = min(extent + 0.006, max(0.03, 0.55 * extent)) if rolls else min(extent + 0.004, 0.025)
    depth = rng.uniform(least, max(least, min(2 * extent - 0.003, MAX_DEPTH)))
    point = center - approach * (extent - depth)
    point += along * rng.uniform(-0.6, 0.6) * max(0.0, length - 0.035)
    _, axes = gripper.at(contact)
    R_wh = np.stack([closing, approach, along], 1) @ axes.T
    R_wh = Rotation.from_rotvec(rng.normal(0, 0.06, 3)).as_matrix() @ R_wh
    return Plan(
        R=R_wh,
        point=point,
        approach=approach,
        gripper=gripper,
        opening=opened,
        contact=contact,
        noise=rng.normal(0, 0.04, 21),
        strength=min(rng.uniform(0.8, 1.2) * (0.15 + 0.8 * mass), 0.8),
    )


def _half_way(half, direction):
    """From a box's middle to its surface."""
    return float((half / np.maximum(np.abs(direction), 1e-9)).min())


def gripper_pair(kinematics) -> tuple[Gripper, Gripper]:
    """The hand that grips with curled and the one that pinches with straighter fingers."""
    return Gripper(POWER, POWER_SQUEEZE, kinematics), Gripper(PINCH, PINCH_SQUEEZE, kinematics)
