"""Grasps in MuJoCo: a hand reaches, closes until contact stops its fingers, lifts and holds; objects stand on a table.

World frame: z up, the table's top is z = 0. A grasp that drops its object or reaches into it does not count.
"""

import dataclasses
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation, Slerp

from amt.data.synthetic import articulated, models, planning
from amt.data.synthetic.articulated import HAND_BIT, OBJECT_BIT
from amt.data.synthetic.shapes import add_parts
from amt.hand import HandModel

TIMESTEP = 0.0015  # seconds
TICK = 4  # steps between new targets of wrist and fingers
REACH, CLOSE, LIFT, HOLD = 0.7, 0.45, 0.65, 0.6  # seconds of a sequence
DURATION = REACH + CLOSE + LIFT + HOLD
BACKING = (0.0, 0.006, 0.012)  # metres that a hand is drawn back where it does not fit
OPENINGS = 4  # from the planned to the widest, tried in turn where it does not fit
MAX_RAISED = 0.025  # metres that the table may keep a hand above its place
FOREARM_ABOVE = 0.03  # metres that the forearm's axis stays above the table
MIN_LIFT = 0.05  # metres that an object is lifted throughout the hold
MAX_SLIP, MAX_TURN = 0.015, 0.35  # metres and radians that it moves in the hand from the end of the lift to the end
MAX_SOFT = 0.004  # metres that capsules may sink into an object
FIRM = 0.05  # newtons from which a contact counts
MAX_FORCE = 40.0  # newtons of one contact: beyond, the hand is jammed between object and table
FAILURES = ("pushed", "missed", "dropped", "slipped", "penetrated", "jammed")


class Contacts:
    """Contacts of the hand with objects at one moment, in the world: `forces` act on the object, newtons.

    `normals` point out of the object; `body` is one of the 16 joints, `object` an index of the objects.
    """

    def __init__(self, points, normals, forces, body, object):
        self.points = np.asarray(points, np.float64).reshape(-1, 3)
        self.normals = np.asarray(normals, np.float64).reshape(-1, 3)
        self.forces = np.asarray(forces, np.float64).reshape(-1, 3)
        self.body, self.object = np.asarray(body, np.int32), np.asarray(object, np.int32)


@dataclasses.dataclass
class Trial:
    """What happened in a simulated grasp, at N moments; `failure` is one of `FAILURES`, or None.

    `xmat` and `wrist` are the 16 bodies' world matrices and the wrist's place.
    """

    failure: str | None
    xmat: Float[np.ndarray, "n 16 9"] | None = None
    wrist: Float[np.ndarray, "n 3"] | None = None
    object_R: Float[np.ndarray, "n k 3 3"] | None = None
    object_t: Float[np.ndarray, "n k 3"] | None = None
    contacts: list[Contacts] | None = None


class Fitted(NamedTuple):
    """A plan and the wrist's way while the fingers close to `closings` (0..1): `wrists` [m,3]."""

    plan: planning.Plan
    closings: Float[np.ndarray, " m"]
    wrists: Float[np.ndarray, "m 3"]


class World:
    """A subject's hand and objects on a table. `rest` are the objects' poses (R, t) to start from."""

    def __init__(self, hand: HandModel, betas: Float[np.ndarray, " 10"], ycb_ids: list[int], rest: list):
        self.model = _model(hand, betas, ycb_ids)
        self.data = mujoco.MjData(self.model)
        self.k = len(ycb_ids)
        self.bodies = np.array([self.model.body(f"hand{j}").id for j in range(16)])
        self.objects = np.array([self.model.body(f"o{i}").id for i in ycb_ids])
        self.body_joint = np.full(self.model.nbody, -1)
        self.body_joint[self.bodies] = np.arange(16)
        self.body_object = np.full(self.model.nbody, -1)
        self.body_object[self.objects] = np.arange(self.k)
        self.hand_geoms = np.flatnonzero(self.body_joint[self.model.geom_bodyid] >= 0)
        self.torque = self.model.actuator_forcerange.copy()
        self.pads = articulated.pads(hand, betas)
        _, joints, _ = articulated.rest_shape(hand, betas)
        self.palm = 0.75 * (joints[4] + joints[10]) / 2 + [0, -0.012, 0]
        self.grippers = planning.gripper_pair(self._pads_of)
        self.start = self._settle(rest)

    def _pads_of(self, posture):
        """Places of the pads in the wrist's frame, and the palm's middle."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[7:28] = posture
        mujoco.mj_kinematics(self.model, self.data)
        joints, places, _ = self.pads
        R = self.data.xmat[self.bodies[joints]].reshape(-1, 3, 3)
        return np.einsum("nij,nj->ni", R, places) + self.data.xpos[self.bodies[joints]], self.palm

    def _settle(self, rest):
        """Positions of all joints after the objects came to rest, the hand far away."""
        mujoco.mj_resetData(self.model, self.data)
        self._place_hand(np.array([0.0, 0.0, 2.0]), np.eye(3), np.zeros(21))
        for k, (R, t) in enumerate(rest):
            self.data.qpos[28 + 7 * k : 31 + 7 * k] = t
            self.data.qpos[31 + 7 * k : 35 + 7 * k] = Rotation.from_matrix(R).as_quat(scalar_first=True)
        for _ in range(20):  # what rolls or rocks is stopped again and again
            mujoco.mj_step(self.model, self.data, 20)
            self.data.qvel[:] = 0
        return self.data.qpos.copy()

    def object_pose(self, k: int):
        """(R, t) of an object as the simulation stands."""
        body = self.objects[k]
        return self.data.xmat[body].reshape(3, 3).copy(), self.data.xpos[body].copy()

    def reset(self) -> None:
        """Objects at rest, nothing moving."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self.start
        mujoco.mj_kinematics(self.model, self.data)

    def _place_hand(self, wrist, R, posture):
        quat = Rotation.from_matrix(R).as_quat(scalar_first=True)
        self.data.qpos[:3], self.data.qpos[3:7] = wrist, quat
        self.data.qpos[7:28] = np.clip(posture, *self.model.actuator_ctrlrange.T)
        self.data.mocap_pos[0], self.data.mocap_quat[0] = wrist, quat
        self.data.ctrl[:] = self.data.qpos[7:28]

    def _touching(self) -> bool:
        """Whether the hand, as placed, reaches a millimetre into anything."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        contact = self.data.contact
        if not len(contact.dist):
            return False
        hand = self.body_joint[self.model.geom_bodyid[contact.geom]] >= 0
        return bool((hand.any(1) & ~hand.all(1) & (contact.dist < -0.001)).any())

    def fit(self, plan: planning.Plan, back: float) -> Fitted | None:
        """The plan as it fits: raised off the table, drawn back, opened wider; None where its way in is not free.

        `back` are the metres from which the hand comes.
        """
        self.reset()
        for away in BACKING:
            for opening in np.linspace(plan.opening, 1.0, OPENINGS):
                tried = dataclasses.replace(plan, opening=opening, point=plan.point - away * plan.approach)
                posture, wrist = tried.posture(0.0), self._above_table(tried, 0.0)
                if wrist is None or (plan.R @ [0.2, 0, 0] + wrist)[2] < FOREARM_ABOVE:
                    continue
                if all(
                    self._free(wrist - share * back * plan.approach, plan.R, posture) for share in (0, 0.15, 0.4, 1)
                ):
                    closings = np.linspace(0, planning.CONTACT_CLOSING, 6)
                    wrists = [self._above_table(tried, c) for c in closings]
                    return None if any(w is None for w in wrists) else Fitted(tried, closings, np.array(wrists))
        return None

    def _above_table(self, plan, closing):
        """The wrist for the fingers closed so far, raised off the table; None where it would be far from its object."""
        wrist = plan.wrist(closing)
        self._place_hand(wrist, plan.R, plan.posture(closing))
        raised = max(0.0, 0.001 - self._lowest())
        return wrist + [0, 0, raised] if raised < MAX_RAISED else None

    def _free(self, wrist, R, posture) -> bool:
        self._place_hand(wrist, R, posture)
        return not self._touching()

    def _lowest(self) -> float:
        """Height of the hand's lowest point above the table."""
        mujoco.mj_kinematics(self.model, self.data)
        geoms = self.hand_geoms
        axis = self.data.geom_xmat[geoms].reshape(-1, 3, 3)[:, 2, 2]
        size = self.model.geom_size[geoms]
        return float((self.data.geom_xpos[geoms, 2] - np.abs(axis) * size[:, 1] - size[:, 0]).min())

    def run(self, plan: planning.Plan, k: int, path: "WristPath", times: Float[np.ndarray, " n"]) -> Trial:
        """Simulates a grasp of object `k` and keeps the moments `times`, seconds from the start."""
        model, data = self.model, self.data
        self.reset()
        before = self.object_pose(k)[1]
        model.actuator_forcerange[:] = self.torque * plan.strength
        wrist, R = path(0.0)
        self._place_hand(wrist, R, plan.posture(0.0))
        kept, frame, held_from = [], 0, None
        for tick in range(int(round(DURATION / TIMESTEP / TICK)) + 1):
            now = tick * TICK * TIMESTEP
            while frame < len(times) and times[frame] <= now + 1e-9:
                kept.append(self._snapshot())
                frame += 1
                if np.linalg.norm(kept[-1][-1].forces, axis=1).max(initial=0.0) > MAX_FORCE:
                    return Trial("jammed")
            wrist, R = path(now)
            data.mocap_pos[0] = wrist
            mujoco.mju_mat2Quat(data.mocap_quat[0], np.ascontiguousarray(R).ravel())
            data.ctrl[:] = np.clip(plan.posture(np.clip((now - REACH) / CLOSE, 0, 1)), *model.actuator_ctrlrange.T)
            if failure := self._failure(k, now, before, kept):
                return Trial(failure)
            if held_from is None and now >= REACH + CLOSE + LIFT:
                held_from = self._in_hand(k)
            mujoco.mj_step(model, data, TICK)
        R0, t0 = held_from
        R1, t1 = self._in_hand(k)
        turn = np.linalg.norm(Rotation.from_matrix(R0.T @ R1).as_rotvec())
        if np.linalg.norm(t1 - t0) > MAX_SLIP or turn > MAX_TURN:
            return Trial("slipped")
        xmat, wrist, object_R, object_t, contacts = zip(*kept, strict=True)
        return Trial(None, np.stack(xmat), np.stack(wrist), np.stack(object_R), np.stack(object_t), list(contacts))

    def _failure(self, k, now, before, kept) -> str | None:
        _, t = self.object_pose(k)
        if now < REACH:
            return "pushed" if np.linalg.norm(t - before) > 0.03 else None
        touched, depth, free = self._grip(k)
        if depth > MAX_SOFT:
            return "penetrated"
        gripped = len(touched) > 1 and touched & {0, 13, 14, 15}  # a finger and the thumb or the palm
        if now >= REACH + CLOSE + 0.1 and not gripped:
            return "missed" if now < REACH + CLOSE + 0.2 else "dropped"
        held = t[2] - before[2] >= MIN_LIFT and free
        return "dropped" if now >= REACH + CLOSE + LIFT and not held else None

    def _grip(self, k):
        """Joints that touch object k, the deepest contact of the hand with it, whether nothing else touches it."""
        contact = self.data.contact
        bodies = self.model.geom_bodyid[contact.geom].reshape(-1, 2)
        mine = (bodies == self.objects[k]).any(1) & (contact.dist < 0)
        joints = self.body_joint[bodies[mine]].max(1, initial=-1)
        depth = -contact.dist[mine][joints >= 0].min(initial=0.0)
        return set(joints[joints >= 0].tolist()), float(depth), bool((joints >= 0).all())

    def _in_hand(self, k):
        R_wh, t_wh = self.data.xmat[self.bodies[0]].reshape(3, 3), self.data.xpos[self.bodies[0]]
        R, t = self.object_pose(k)
        return R_wh.T @ R, R_wh.T @ (t - t_wh)

    def _snapshot(self):
        # Positions of the bodies are those of the last step's beginning: bring them up to qpos, and contacts with them.
        mujoco.mj_forward(self.model, self.data)
        data = self.data
        R = data.xmat[self.objects].reshape(-1, 3, 3).copy()
        return (
            data.xmat[self.bodies].copy(),
            data.xpos[self.bodies[0]].copy(),
            R,
            data.xpos[self.objects].copy(),
            (self._contacts()),
        )

    def _contacts(self) -> Contacts:
        points, normals, forces, joints, objects = [], [], [], [], []
        force = np.zeros(6)
        for n in range(self.data.ncon):
            contact = self.data.contact[n]
            a, b = self.model.geom_bodyid[contact.geom]
            hand, other = (a, b) if self.body_joint[a] >= 0 else (b, a)
            if self.body_joint[hand] < 0 or self.body_object[other] < 0:
                continue
            mujoco.mj_contactForce(self.model, self.data, n, force)
            if np.linalg.norm(force[:3]) < FIRM:
                continue
            frame = contact.frame.reshape(3, 3)  # rows: normal from geom 1 to geom 2, two tangents
            sign = 1.0 if hand == b else -1.0  # the normal points to the hand where the hand is geom 2
            points.append(contact.pos.copy())
            normals.append(sign * frame[0])
            forces.append(-sign * (frame.T @ force[:3]))  # mj_contactForce: what geom 1 does to geom 2
            joints.append(self.body_joint[hand])
            objects.append(self.body_object[other])
        return Contacts(points, normals, forces, joints, objects)


class WristPath:
    """Where the wrist is at a time: it comes along the approach, gives way to the fingers, lifts, and holds."""

    def __init__(self, rng: np.random.Generator, fitted: Fitted, back: float):
        plan, wrists = fitted.plan, fitted.wrists
        start = wrists[0] - back * plan.approach + [*rng.normal(0, 0.02, 2), rng.uniform(0.0, 0.05)]
        lift = wrists[-1] + [*rng.normal(0, 0.04, 2), rng.uniform(0.09, 0.2)]
        grip = Rotation.from_matrix(plan.R)
        before, after = (Rotation.from_rotvec(rng.normal(0, 0.15, 3)) * grip for _ in range(2))
        closing = REACH + fitted.closings * CLOSE
        self.times = np.concatenate([[0.0], closing, [REACH + CLOSE + 0.1, REACH + CLOSE + LIFT]])
        self.places = np.concatenate([[start], wrists, [wrists[-1], lift]])
        self.smooth = np.array([True, *[False] * len(wrists), True])  # from rest to rest
        self.slerp = Slerp(self.times, Rotation.concatenate([before, *[grip] * (len(wrists) + 1), after]))

    def __call__(self, time: float) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "3 3"]]:
        k = int(np.clip(np.searchsorted(self.times, time, side="right") - 1, 0, len(self.times) - 2))
        share = np.clip((time - self.times[k]) / (self.times[k + 1] - self.times[k]), 0, 1)
        if self.smooth[k]:
            share = share * share * (3 - 2 * share)
        place = self.places[k] + share * (self.places[k + 1] - self.places[k])
        return place, self.slerp(self.times[k] + share * (self.times[k + 1] - self.times[k])).as_matrix()


def _model(hand, betas, ycb_ids: list[int] | Int[np.ndarray, " k"]) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep, option.integrator = TIMESTEP, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10  # else a held object creeps
    option.iterations, option.ls_iterations, option.tolerance = 30, 15, 1e-7
    articulated.add_hand(spec, hand, betas)
    contact = {"solref": [0.003, 1.0], "solimp": [0.95, 0.99, 0.0005, 0.5, 2.0], "condim": 4}
    table = spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
    table.contype, table.conaffinity = 0, HAND_BIT | OBJECT_BIT
    for i in ycb_ids:
        body = spec.worldbody.add_body(name=f"o{i}")
        body.add_freejoint()
        parts, mass = models.model(i).shape.parts, models.MASSES[i]
        settings = {"contype": OBJECT_BIT, "conaffinity": HAND_BIT | OBJECT_BIT, "friction": articulated.FRICTION}
        add_parts(spec, body, parts, mass, **settings, **contact)
    return spec.compile()
