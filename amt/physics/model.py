"""From a scene to what the differentiable step takes: the robot's tree, the objects, the hand's contact spheres.

Of the scene's collisions a choice is kept, which is what makes a step cheap: spheres in the palm and along the fingers
against every shape of every object, and objects against the table, which becomes the plane z = 0. `chosen` is the same
choice as a MuJoCo model, with which MuJoCo C computes the same motion.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from amt.errors import UserError
from amt.physics.contacts import BOX, CAPSULE, CYLINDER, NONE
from amt.physics.tree import Tree, read_tree
from amt.robot.kinematics import quat_to_matrix

TIMESTEP = 0.004  # seconds
MAX_CONTACTS = 16  # of the hand with objects at a time; the nearest
KINDS = {
    mujoco.mjtGeom.mjGEOM_BOX: BOX,
    mujoco.mjtGeom.mjGEOM_CYLINDER: CYLINDER,
    mujoco.mjtGeom.mjGEOM_CAPSULE: CAPSULE,
}
# Contact starts from nothing and stiffens over 3 mm. With MuJoCo's own 0.9 its force jumps at the first touch, and
# over 1 mm single precision loses a third digit of the gradient (experiments/gradient_check).
SOLIMP = (0.01, 0.95, 0.003, 0.5, 2.0)
SOLREF = (0.02, 1.0)
TABLE, SPHERE = "table", "touch"


@struct.dataclass
class Model:
    """A scene for `amt.physics.step`. Leaves may differ between samples of a batch, the tree and sizes may not.

    Objects o, shapes g of an object, hand spheres s. Metres, kilograms, newtons. `shape_kind` is one of
    `amt.physics.contacts`; `com` and `inertia` (about it) are in the object's frame; `invweight` is what MuJoCo scales
    a constraint's softness by. `touch_friction` is that of the hand on an object, `rest_friction` that of the table.
    """

    timestep: Float[Array, ""]
    gravity: Float[Array, " 3"]
    mass: Float[Array, " o"]
    com: Float[Array, "o 3"]
    inertia: Float[Array, "o 3 3"]
    invweight: Float[Array, " o"]
    shape_kind: Int[Array, "o g"]
    shape_size: Float[Array, "o g 3"]
    shape_pos: Float[Array, "o g 3"]
    shape_rot: Float[Array, "o g 3 3"]
    touch_friction: Float[Array, " o"]
    rest_friction: Float[Array, " o"]
    solref: Float[Array, " 2"]
    solimp: Float[Array, " 5"]
    limit_solref: Float[Array, " 2"]
    limit_solimp: Float[Array, " 5"]
    tree: Tree = struct.field(pytree_node=False)
    spheres: "Spheres" = struct.field(pytree_node=False)
    places: "Places" = struct.field(pytree_node=False)
    max_contacts: int = struct.field(pytree_node=False, default=MAX_CONTACTS)

    @property
    def num_objects(self) -> int:
        return self.mass.shape[-1]

    @property
    def num_touching(self) -> int:
        """Contacts of the hand that a step takes into account."""
        return min(self.max_contacts, len(self.spheres) * self.shape_kind.shape[-2] * self.shape_kind.shape[-1])


class Places(dict):
    """Where the robot's bodies are, by name: (moving body, (position, rotation) in it), as tuples; hashable."""

    def __hash__(self) -> int:
        return hash(tuple(self.items()))


class Spheres(tuple):
    """The hand's spheres, hashable: (moving body, position in it [3], radius, invweight of the body) each."""

    def column(self, index: int) -> np.ndarray:
        return np.array([row[index] for row in self])


@struct.dataclass
class Touch:
    """The hand's nearest contacts with objects in the last step: distance (m, negative: penetration), force along the
    normal (N) and sliding speed (m/s).
    """

    dist: Float[Array, " k"]
    force: Float[Array, " k"]
    slip: Float[Array, " k"]


@struct.dataclass
class State:
    """`qpos` (22 joint angles, then position and quaternion wxyz of each object), `qvel` (rad/s; of objects m/s in the
    world and rad/s in the object's frame), the last acceleration, from which the solver starts, the hand's contacts,
    and how many have been left out so far because more than `max_contacts` were there at a time.
    """

    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    qacc: Float[Array, " nv"]
    touch: Touch
    num_dropped: Int[Array, ""]


def put(
    scene: mujoco.MjSpec,
    *,
    timestep: float = TIMESTEP,
    solref: tuple[float, ...] = SOLREF,
    solimp: tuple[float, ...] = SOLIMP,
    max_contacts: int = MAX_CONTACTS,
    num_shapes: int | None = None,
    dtype: Any = jnp.float32,
) -> tuple[Model, State]:
    """A scene of `amt.robot.build_scene` and its state at rest, robot at its first pose, objects where they stand.

    solref, solimp: softness of all contacts (MuJoCo's parameters). num_shapes: room for this many shapes an object, so
    that scenes can be stacked; None: as many as the largest object has. Raises UserError for scenes that the equations
    are not valid for (`amt.physics.tree`), without objects, and for objects of other shapes than boxes, cylinders and
    capsules.
    """
    model = chosen(scene, timestep=timestep, solref=solref, solimp=solimp)
    tree, place = read_tree(model)
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    bodies = [int(model.jnt_bodyid[j]) for j in free]
    if not bodies:
        raise UserError("physics: the scene has no object that moves freely; expected one or more")
    shapes = [_shapes(model, body) for body in bodies]
    room = max([len(s) for s in shapes] + [1]) if num_shapes is None else num_shapes
    if any(len(s) > room for s in shapes):
        raise UserError(f"physics: num_shapes={num_shapes}, but an object has {max(map(len, shapes))} shapes")
    empty = (NONE, np.zeros(3), np.zeros(3), np.eye(3))
    padded = [s + [empty] * (room - len(s)) for s in shapes]
    count = len(bodies)
    kind, size, pos, rot = (
        np.array([[shape[i] for shape in s] for s in padded]).reshape(count, room, *np.shape(empty[i]))
        for i in range(4)
    )
    turned = [quat_to_matrix(model.body_iquat[b]) for b in bodies]
    friction = {(p1, p2): f for p1, p2, f in _pair_frictions(model)}
    touching = [g for g in range(model.ngeom) if (model.geom(g).name or "").startswith(SPHERE)]
    spheres = Spheres(_sphere(model, place, g) for g in touching)

    def first_friction(other: str) -> np.ndarray:
        found = [[f for (a, b), f in friction.items() if b == body and a.startswith(other)] for body in bodies]
        return np.array([f[0] if f else 0.0 for f in found])

    def real(x, *shape: int) -> Array:
        return jnp.asarray(np.asarray(x, np.float64).reshape(shape or np.shape(x)), dtype)

    held = Model(
        timestep=real(timestep),
        gravity=real(model.opt.gravity),
        mass=real(model.body_mass[bodies], count),
        com=real(model.body_ipos[bodies], count, 3),
        inertia=real(
            [R @ np.diag(i) @ R.T for R, i in zip(turned, model.body_inertia[bodies], strict=True)], count, 3, 3
        ),
        invweight=real(model.body_invweight0[bodies, 0], count),
        shape_kind=jnp.asarray(kind, jnp.int32),
        shape_size=real(size),
        shape_pos=real(pos),
        shape_rot=real(rot),
        touch_friction=real(first_friction(SPHERE), count),
        rest_friction=real(first_friction(TABLE), count),
        solref=real(solref),
        solimp=real(solimp),
        limit_solref=real(model.jnt_solref[0]),
        limit_solimp=real(model.jnt_solimp[0]),
        tree=tree,
        spheres=spheres,
        places=Places((name, (b, (tuple(p), tuple(map(tuple, R))))) for name, (b, p, R) in place.items() if b >= 0),
        max_contacts=max_contacts,
    )
    return held, at_rest(held, real(model.qpos0))


def at_rest(model: Model, qpos: Float[Array, " nq"]) -> State:
    """The state with these positions and no velocity."""
    zero = jnp.zeros(len(model.tree.parent) + 6 * model.num_objects, qpos.dtype)
    none = jnp.zeros(model.num_touching, qpos.dtype)
    return State(qpos, zero, zero, Touch(none, none, none), jnp.int32(0))


def stack(models: list[Model]) -> Model:
    """Scenes of the same robot and numbers of objects and shapes as one batch, for `jax.vmap`."""
    if len({jax.tree.structure(m) for m in models}) > 1:
        raise UserError("physics: scenes of a batch must have the same robot, hand spheres and max_contacts")
    if len({m.shape_kind.shape for m in models}) > 1:
        raise UserError(
            "physics: scenes of a batch must have as many objects, and room for as many shapes (num_shapes)"
        )
    return jax.tree.map(lambda *x: jnp.stack(x), *models)


def chosen(
    scene: mujoco.MjSpec,
    *,
    timestep: float = TIMESTEP,
    solref: tuple[float, ...] = SOLREF,
    solimp: tuple[float, ...] = SOLIMP,
) -> mujoco.MjModel:
    """The scene with the chosen contacts only, for MuJoCo C."""
    spec = scene.copy()
    spec.option.timestep = timestep
    objects = [body for body in spec.bodies if any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in body.joints)]
    table = next((geom for geom in spec.geoms if geom.name == TABLE), None)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    if table is not None:
        top = table.pos[2] + table.size[2] if table.type == mujoco.mjtGeom.mjGEOM_BOX else table.pos[2]
        if abs(top) > 1e-9:
            raise UserError(f"physics: the table's top is at z = {top:.4g}, expected 0")
        table.type, table.pos, table.quat = mujoco.mjtGeom.mjGEOM_PLANE, [0, 0, 0], [1, 0, 0, 0]
    names = [] if table is None else [TABLE]
    for number, (body, pos, radius) in enumerate(hand_spheres(spec)):
        name = f"{SPHERE}{number}_{body}"
        spec.body(body).add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[radius, 0, 0], pos=pos, mass=0, contype=0,
            conaffinity=0, group=4,
        )  # fmt: skip
        names.append(name)
    for body in objects:
        for number, geom in enumerate(body.geoms):
            geom.name = geom.name or f"{body.name}_shape{number}"
            for name in names:
                slide = max(geom.friction[0], spec.geom(name).friction[0])
                spec.add_pair(
                    geomname1=name,
                    geomname2=geom.name,
                    condim=3,
                    friction=[slide, slide, 0.005, 0.0001, 0.0001],
                    solref=list(solref),
                    solimp=list(solimp),
                )
    return spec.compile()


def hand_spheres(spec: mujoco.MjSpec) -> list[tuple[str, np.ndarray, float]]:
    """(body, position in it, radius) of spheres that fill the hand's collision shapes; metres.

    A fingertip's capsule is its two end spheres. A phalanx's box has two rows of spheres along it, as thick as the box
    is thin: they reach all its sides and leave out its edges. The palm has a grid of 3 x 2.
    """
    found = []
    for body in spec.bodies:
        for geom in body.geoms:
            size, pos = np.array(geom.size), np.array(geom.pos)
            if geom.contype == geom.conaffinity == 0 and geom.mass == 0 and geom.group == 4:
                continue
            if body.name == "palm" and geom.type == mujoco.mjtGeom.mjGEOM_BOX:
                radius = size[0]
                reach = size[1:] - radius
                grid = [(0.0, a, b) for a in (-reach[0], 0.0, reach[0]) for b in (-reach[1], reach[1])]
                found += [(body.name, pos + g, radius) for g in np.array(grid)]
            elif body.name.endswith("_tip") and geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
                found += [(body.name, pos + [0, 0, z], size[0]) for z in (-size[1], size[1])]
            elif body.name.endswith(("_proximal", "_medial", "_distal")) and geom.type == mujoco.mjtGeom.mjGEOM_BOX:
                across, along = size[1] - size[0], max(size[2] - size[0], 0.0)
                rows = np.linspace(-along, along, int(np.ceil(2 * along / (1.5 * size[0]))) + 1) if along else [0.0]
                found += [(body.name, pos + [0, y, z], size[0]) for y in (-across, across) for z in rows]
    return found


def _shapes(model: mujoco.MjModel, body: int) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(kind, size, position, rotation) of the body's geoms."""
    start, count = model.body_geomadr[body], model.body_geomnum[body]
    found = []
    for g in range(start, start + count):
        kind = KINDS.get(mujoco.mjtGeom(int(model.geom_type[g])))
        if kind is None:
            name, shape = model.body(body).name, mujoco.mjtGeom(int(model.geom_type[g])).name[7:].lower()
            raise UserError(f"physics: object {name!r} is made of a {shape}; expected box, cylinder or capsule")
        found.append((kind, model.geom_size[g], model.geom_pos[g], quat_to_matrix(model.geom_quat[g])))
    return found


def _pair_frictions(model: mujoco.MjModel):
    """(name of the robot's or table's geom, object's body, sliding friction) of every pair."""
    for first, second, friction in zip(model.pair_geom1, model.pair_geom2, model.pair_friction, strict=True):
        names = [model.geom(int(g)).name for g in (first, second)]
        other = 0 if names[0] == TABLE or names[0].startswith(SPHERE) else 1
        yield names[other], int(model.geom_bodyid[(second, first)[other]]), friction[0]


def _sphere(model: mujoco.MjModel, place: dict, geom: int) -> tuple[int, tuple[float, ...], float, float]:
    body = int(model.geom_bodyid[geom])
    moving, pos, rot = place[model.body(body).name]
    centre = pos + rot @ model.geom_pos[geom]
    return moving, tuple(centre.tolist()), float(model.geom_size[geom, 0]), float(model.body_invweight0[body, 0])
