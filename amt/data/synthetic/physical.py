"""Sequences with simulated grasps: a subject's hand, objects on a table, and the first grasp that holds.

World frame: z up, the table's top is z = 0. The right hand is what is simulated; `mirrored` makes it a left one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt.data.contacts import signed_distance
from amt.data.objects import Mesh, Surface, sample_mesh
from amt.data.synthetic import articulated, grasps, models, motion, planning, simulation
from amt.data.synthetic.simulation import Contacts
from amt.data.ycb import OBJECTS, USED_IDS
from amt.hand import HandModel

MAX_TRIES = 40  # simulated grasps of an object before other objects are taken
MAX_SCENES = 20
SCENES_EACH = 2  # with the object whose turn it is, before any is taken
MAX_PLANS = 1500  # planned grasps of an object, most of which do not fit
MAX_DEPTH = 0.006  # metres that skin may sink into the grasped object's mesh at any frame
BACK = (0.07, 0.13)  # metres that a hand comes
SKIN_EVERY = 2  # frames whose skin is measured
RING = (0.17, 0.38)  # metres from the grasped object at which others stand
LYING = {1: 0.2, 4: 0.3, 5: 0.35, 6: 0.2, 9: 0.2, 12: 0.35, 2: 0.5, 3: 0.5, 7: 0.3, 8: 0.3, 16: 0.5, 21: 0.5}  # shares
MIRROR = np.array([-1.0, 1.0, 1.0])


def sample(
    rng: np.random.Generator,
    hand: HandModel,
    betas: Float[np.ndarray, " 10"],
    num_frames: int,
    gesture_share: float,
    turn: int,
    objects: Sequence[int] = USED_IDS,
) -> motion.Motion:
    """A simulated grasp, or, with that probability, a gesture of the free hand.

    The object to grasp, one of the YCB ids `objects`, goes round with `turn` (the number of the sequence), the hand's
    side alternates and is the other one in the next round: of 20 objects the first 40 sequences without gestures hold
    all in both hands, but for objects that no try holds.

    Raises `RuntimeError` where no grasp held in `MAX_SCENES` scenes of `MAX_TRIES` grasps each.
    """
    shape = grasps.HandShape(hand, betas)
    left = (turn + turn // len(objects)) % 2 == 1
    gestures, discarded = rng.random() < gesture_share, {}
    for scene in range(MAX_SCENES):
        first = objects[turn % len(objects)] if scene < SCENES_EACH else int(rng.choice(objects))
        ids = [first, *(int(i) for i in rng.permutation(objects) if i != first)][: int(rng.integers(2, 5))]
        rest = _stand(rng, ids)
        ids = ids[: len(rest)]
        if gestures:
            played = _gesture(rng, shape, num_frames, ids, rest)
        else:
            played = _grasp(rng, shape, num_frames, ids, rest, discarded)
        if played is not None:
            played = _listed(played, turn)
            return mirrored(played) if left else played
    raise RuntimeError(f"no grasp held in {MAX_SCENES} scenes: {discarded}; please report the seed")


def mirrored(played: motion.Motion) -> motion.Motion:
    """The whole scene mirrored in the world's x = 0: a left hand.

    The hand's parameters stay those of the mirrored (right) hand; `global_orient` is the left model's. An object is
    its own mirror image (`models.MIRROR_AXIS`), so its mirrored pose is a rotation again.
    """
    S = np.diag(MIRROR)
    planes = np.ones((len(played.ycb_ids), 3))
    for plane, ycb_id in zip(planes, played.ycb_ids, strict=True):
        plane[models.MIRROR_AXIS[ycb_id]] = -1
    contacts = played.contacts and [
        Contacts(c.points * MIRROR, c.normals * MIRROR, c.forces * MIRROR, c.body, c.object) for c in played.contacts
    ]
    return dataclasses.replace(
        played,
        joints=played.joints * MIRROR,
        vertices=played.vertices * MIRROR,
        global_orient=S @ played.global_orient @ S,
        wrist=played.wrist * MIRROR,
        object_R=S @ played.object_R * planes[None, :, None, :],
        object_t=played.object_t * MIRROR,
        side="left",
        contacts=contacts,
    )


def _listed(played: motion.Motion, shift: int) -> motion.Motion:
    """The same objects, in turned order: else the grasped one would always be the first."""
    order = np.roll(np.arange(len(played.ycb_ids)), shift)
    place = np.argsort(order)
    contacts = [Contacts(c.points, c.normals, c.forces, c.body, place[c.object]) for c in played.contacts]
    return dataclasses.replace(
        played,
        object_R=played.object_R[:, order],
        object_t=played.object_t[:, order],
        ycb_ids=[played.ycb_ids[k] for k in order],
        grasped=int(place[played.grasped]) if played.grasped >= 0 else -1,
        contacts=contacts,
    )


def surface(ycb_id: int) -> Surface:
    """The surface of an object's model, sampled."""
    shape = models.model(ycb_id).shape
    return sample_mesh(Mesh(shape.vertices, shape.faces))


def _stand(rng, ids):
    """A pose (R, t) for the first object and around it for as many of the others as have room."""
    rest, reach = [], []
    for i in ids:
        vertices = models.model(i).shape.vertices
        R = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)).as_matrix() @ _upright(rng, i)
        turned = vertices @ R.T
        radius = float(np.linalg.norm(turned[:, :2], axis=1).max())
        for _ in range(40):
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(*RING) if rest else 0.0
            place = np.array([far * np.cos(angle), far * np.sin(angle), 0.0005 - turned[:, 2].min()])
            gaps = [np.linalg.norm((place - t)[:2]) - radius - r for (_, t), r in zip(rest, reach, strict=True)]
            if all(gap > 0.02 for gap in gaps):
                rest.append((R, place))
                reach.append(radius)
                break
        else:
            break
    return rest


def _upright(rng, ycb_id):
    """A rotation that stands the object as it may stand on a table: upright, lying, or turned over."""
    if rng.random() < LYING.get(ycb_id, 0.0):
        about_x = OBJECTS[ycb_id].primitive.half[1] < OBJECTS[ycb_id].primitive.half[0] or rng.random() < 0.5
        return Rotation.from_euler("x" if about_x else "y", 90, degrees=True).as_matrix()
    flat = models.MIRROR_AXIS[ycb_id] == models.Z_PLANE
    return np.diag([1.0, -1.0, -1.0]) if flat and rng.random() < 0.5 else np.eye(3)


def _gesture(rng, shape, n, ids, rest) -> motion.Motion:
    orient, wrist, pose = motion.gesture(rng, shape, n)
    joints, vertices = shape.pose(pose)
    turn = orient.swapaxes(-1, -2)
    return motion.Motion(
        joints=joints @ turn + wrist[:, None],
        vertices=vertices @ turn + wrist[:, None],
        global_orient=orient,
        hand_pose=pose,
        wrist=wrist,
        object_R=np.repeat(np.stack([R for R, _ in rest])[None], n, 0),
        object_t=np.repeat(np.stack([t for _, t in rest])[None], n, 0),
        ycb_ids=ids,
        grasped=-1,
        contacts=[Contacts([], [], [], [], []) for _ in range(n)],
        grasp={"discarded": 0, "reasons": {}},
    )


def _grasp(rng, shape, n, ids, rest, discarded: dict[str, int]) -> motion.Motion | None:
    """The first grasp of the first object that holds; `discarded` counts the others by their failure."""
    world = simulation.World(shape.hand, shape.betas.astype(np.float64), ids, rest)
    times = np.arange(n) * simulation.DURATION / n
    shown, mass, skin = models.model(ids[0]).shape, models.MASSES[ids[0]], surface(ids[0])
    tries = 0
    for _ in range(MAX_PLANS):
        world.reset()
        plan = planning.sample(rng, world.grippers, shown.sites, *world.object_pose(0), mass)
        back = rng.uniform(*BACK)
        fitted = plan and world.fit(plan, back)
        if not fitted:
            continue
        trial = world.run(fitted.plan, 0, simulation.WristPath(rng, fitted, back), times)
        failure = trial.failure
        if failure is None:
            played = _played(shape, trial, ids)
            depth = _deepest(played, skin)
            if depth <= MAX_DEPTH:
                facts = {"kind": _kind(played), "from": fitted.plan.side, "depth_m": round(depth, 5)}
                facts.update(discarded=sum(discarded.values()), reasons=dict(sorted(discarded.items())))
                return dataclasses.replace(played, grasp=facts)
            failure = "penetrated"
        discarded[failure] = discarded.get(failure, 0) + 1
        tries += 1
        if tries == MAX_TRIES:
            break
    return None


def _played(shape, trial, ids) -> motion.Motion:
    rotations = articulated.joint_rotations(trial.xmat)
    n = len(rotations)
    pose = Rotation.from_matrix(rotations[:, 1:].reshape(-1, 3, 3)).as_rotvec().reshape(n, 15, 3)
    joints, vertices = shape.pose(pose)
    turn = rotations[:, 0].swapaxes(-1, -2)
    return motion.Motion(
        joints=joints @ turn + trial.wrist[:, None],
        vertices=vertices @ turn + trial.wrist[:, None],
        global_orient=rotations[:, 0],
        hand_pose=pose,
        wrist=trial.wrist,
        object_R=trial.object_R,
        object_t=trial.object_t,
        ycb_ids=ids,
        grasped=0,
        contacts=trial.contacts,
    )


def _deepest(played, skin: Surface) -> float:
    """Metres that any vertex of the hand sinks into the grasped object."""
    deepest = 0.0
    for n in range(0, len(played.vertices), SKIN_EVERY):
        local = (played.vertices[n] - played.object_t[n, 0]) @ played.object_R[n, 0]
        deepest = max(deepest, -float(signed_distance(local, skin).min()))
    return deepest


def _kind(played) -> str:
    """`power` where the palm or a finger's first bone holds the object at the end, else `pinch`."""
    bodies = set(played.contacts[-1].body.tolist())
    return "power" if bodies & {0, 1, 2, 4, 5, 7, 8, 10, 11, 13} else "pinch"
