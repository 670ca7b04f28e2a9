"""The robot as the equations of motion see it: one moving body a hinge, and which hinges move which body."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from amt.errors import UserError
from amt.robot.kinematics import quat_to_matrix


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """Hinges in the order of `qpos`; bodies that are fixed to another are part of it. Static: compared by its content.

    `rest_pos` and `rest_rot` place a moving body in its parent's at angle 0 (-1: in the world); `axis`, `com` and
    `inertia` (about the centre of mass) are in the body's own frame; `weight` is the mass that gravity is let pull at.
    `moves[b, j]`: hinge j moves body b.
    """

    parent: Int[np.ndarray, " n"]
    rest_pos: Float[np.ndarray, "n 3"]
    rest_rot: Float[np.ndarray, "n 3 3"]
    axis: Float[np.ndarray, "n 3"]
    mass: Float[np.ndarray, " n"]
    com: Float[np.ndarray, "n 3"]
    inertia: Float[np.ndarray, "n 3 3"]
    weight: Float[np.ndarray, " n"]
    armature: Float[np.ndarray, " n"]
    damping: Float[np.ndarray, " n"]
    limits: Float[np.ndarray, "n 2"]
    limit_invweight: Float[np.ndarray, " n"]
    stiffness: Float[np.ndarray, " n"]  # of the position actuators, and their damping
    actuator_damping: Float[np.ndarray, " n"]
    ctrl_limits: Float[np.ndarray, "n 2"]
    max_force: Float[np.ndarray, " n"]

    @functools.cached_property
    def key(self) -> bytes:
        return b"".join(getattr(self, f.name).tobytes() for f in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @functools.cached_property
    def moves(self) -> Bool[np.ndarray, "n n"]:
        found = np.eye(len(self.parent), dtype=bool)
        for body, parent in enumerate(self.parent):
            if parent >= 0:
                found[body] |= found[parent]
        return found

    @functools.cached_property
    def deepest_shared(self) -> int:
        """The last body that all of the most distal ones hang on: of an arm with a hand, the palm."""
        leaves = self.moves[self.moves.sum(1) == self.moves.sum(1).max()]
        return int(np.flatnonzero(leaves.all(0)).max())

    @functools.cached_property
    def levels(self) -> list[np.ndarray]:
        """Bodies by depth."""
        depth = self.moves.sum(1)
        return [np.flatnonzero(depth == d) for d in range(1, depth.max() + 1)]


@struct.dataclass
class Frames:
    """Moving bodies in the world: rotations and origins (metres), and what they are as rigid bodies.

    Twists and wrenches are about the point `origin`, turning first: a hinge's `screw` is (axis, velocity there).
    `inertia` holds mass, first moment (3) and inertia about the origin (9) of each body.
    """

    rot: Float[Array, "n 3 3"]
    pos: Float[Array, "n 3"]
    origin: Float[Array, " 3"]
    screw: Float[Array, "n 6"]
    inertia: Float[Array, "n 13"]


def read_tree(model: mujoco.MjModel) -> tuple[Tree, dict[str, tuple[int, np.ndarray, np.ndarray]]]:
    """The hinges' tree, and of every body of it by name: its moving body (-1: fixed), position and rotation in that.

    Raises UserError for what the equations here leave out.
    """
    n = int(np.sum(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE))
    _refuse(model, n)
    place: dict[int, tuple[int, np.ndarray, np.ndarray]] = {0: (-1, np.zeros(3), np.eye(3))}
    owner = {int(model.jnt_bodyid[j]): j for j in range(n)}
    rest = [None] * n
    for body in range(1, model.nbody):
        if model.body_jntnum[body] and body not in owner:
            continue  # moves freely
        moving, pos, rot = place[int(model.body_parentid[body])]
        pos, rot = pos + rot @ model.body_pos[body], rot @ quat_to_matrix(model.body_quat[body])
        if body in owner:
            rest[owner[body]] = (moving, pos, rot)
            moving, pos, rot = owner[body], np.zeros(3), np.eye(3)
        place[body] = (moving, pos, rot)
    mass, com, inertia, weight = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3, 3)), np.zeros(n)
    for body, (moving, pos, rot) in place.items():
        if moving >= 0:
            mass[moving] += model.body_mass[body]
            weight[moving] += model.body_mass[body] * (1 - model.body_gravcomp[body])
            com[moving] += model.body_mass[body] * (pos + rot @ model.body_ipos[body])
    com /= np.maximum(mass, 1e-12)[:, None]
    for body, (moving, pos, rot) in place.items():
        if moving >= 0:
            turned = rot @ quat_to_matrix(model.body_iquat[body])
            arm = pos + rot @ model.body_ipos[body] - com[moving]
            inertia[moving] += turned @ np.diag(model.body_inertia[body]) @ turned.T
            inertia[moving] += model.body_mass[body] * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    parent, rest_pos, rest_rot = (np.array(x) for x in zip(*rest, strict=True))
    bound = np.where(model.actuator_forcelimited[:n].astype(bool), model.actuator_forcerange[:n, 1], np.inf)
    tree = Tree(
        parent=parent,
        rest_pos=rest_pos,
        rest_rot=rest_rot,
        axis=model.jnt_axis[:n].copy(),
        mass=mass,
        com=com,
        inertia=inertia,
        weight=weight,
        armature=model.dof_armature[:n].copy(),
        damping=model.dof_damping[:n].copy(),
        limits=np.where(model.jnt_limited[:n, None].astype(bool), model.jnt_range[:n], [[-np.inf, np.inf]]),
        limit_invweight=model.dof_invweight0[:n].copy(),
        stiffness=model.actuator_gainprm[:n, 0].copy(),
        actuator_damping=-model.actuator_biasprm[:n, 2],
        ctrl_limits=model.actuator_ctrlrange[:n].copy(),
        max_force=bound,
    )
    return tree, {model.body(body).name: value for body, value in place.items()}


def frames(tree: Tree, q: Float[Array, " n"]) -> Frames:
    """Forward kinematics, one level of the tree at a time."""
    rot, pos = [None] * len(q), [None] * len(q)
    x, y, z = tree.axis.T
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    constant = functools.partial(jnp.asarray, dtype=q.dtype)
    s, c = jnp.sin(q)[:, None, None], jnp.cos(q)[:, None, None]
    # Rodrigues' formula, turned by the rest pose beforehand.
    turn = constant(tree.rest_rot) + s * constant(tree.rest_rot @ K) + (1 - c) * constant(tree.rest_rot @ K @ K)
    for level in tree.levels:
        parents = tree.parent[level]
        if parents[0] < 0:
            R, p = turn[level], constant(tree.rest_pos[level])
        else:
            above = jnp.stack([rot[i] for i in parents])
            R = jnp.einsum("bij,bjk->bik", above, turn[level])
            p = jnp.stack([pos[i] for i in parents]) + jnp.einsum("bij,bj->bi", above, constant(tree.rest_pos[level]))
        for slot, body in enumerate(level):
            rot[body], pos[body] = R[slot], p[slot]
    R, p = jnp.stack(rot), jnp.stack(pos)
    axis = jnp.einsum("bij,bj->bi", R, constant(tree.axis))
    # Near the hand, so that what cancels in single precision is small.
    origin = jax.lax.stop_gradient(p[tree.deepest_shared])
    screw = jnp.concatenate([axis, jnp.cross(p - origin[None], axis)], axis=-1)
    com = p - origin[None] + jnp.einsum("bij,bj->bi", R, constant(tree.com))
    mass = constant(tree.mass)[:, None]
    eye = jnp.eye(3, dtype=q.dtype)
    about = jnp.einsum("bij,bjk,blk->bil", R, constant(tree.inertia), R)
    square = jnp.sum(com**2, axis=-1)[:, None, None] * eye[None] - com[:, :, None] * com[:, None]
    about = about + mass[..., None] * square
    return Frames(R, p, origin, screw, jnp.concatenate([mass, mass * com, about.reshape(-1, 9)], axis=-1))


def momentum(inertia: Float[Array, "n 13"], twist: Float[Array, "n 6"]) -> Float[Array, "n 6"]:
    """(angular, linear) about the origin of bodies that move at `twist`."""
    mass, first, about = inertia[:, :1], inertia[:, 1:4], inertia[:, 4:].reshape(-1, 3, 3)
    turn, move = twist[:, :3], twist[:, 3:]
    angular = jnp.einsum("bij,bj->bi", about, turn) + jnp.cross(first, move)
    return jnp.concatenate([angular, mass * move + jnp.cross(turn, first)], axis=-1)


def mass_matrix(tree: Tree, at: Frames) -> Float[Array, "n n"]:
    """Kinetic energy is half v^T M v; with the motors' armature. Composite rigid bodies, all at once."""
    moves = jnp.asarray(tree.moves, at.pos.dtype)
    carried = momentum(moves.T @ at.inertia, at.screw)  # of all that a hinge moves, at its unit velocity
    upper = moves * (carried @ at.screw.T)  # [j, i]: hinge i moves body j
    return upper + upper.T - jnp.diag(jnp.diag(upper) - jnp.asarray(tree.armature, at.pos.dtype))


def bias_force(tree: Tree, at: Frames, v: Float[Array, " n"], gravity: Float[Array, " 3"]) -> Float[Array, " n"]:
    """What keeps the joints from accelerating: centrifugal and Coriolis force and uncompensated weight; N m."""
    moves = jnp.asarray(tree.moves, v.dtype)
    spun = at.screw * v[:, None]
    twist = moves @ spun
    turn, move = twist[:, :3], twist[:, 3:]
    rate = jnp.concatenate(
        [jnp.cross(turn, spun[:, :3]), jnp.cross(turn, spun[:, 3:]) + jnp.cross(move, spun[:, :3])], axis=-1
    )
    held = momentum(at.inertia, twist)
    force = momentum(at.inertia, moves @ rate)
    swing = jnp.cross(turn, held[:, :3]) + jnp.cross(move, held[:, 3:])
    force = force + jnp.concatenate([swing, jnp.cross(turn, held[:, 3:])], axis=-1)
    weight = jnp.asarray(tree.weight / np.maximum(tree.mass, 1e-12), v.dtype)[:, None] * at.inertia[:, :4]
    fall = jnp.concatenate([jnp.cross(weight[:, 1:], gravity[None]), weight[:, :1] * gravity[None]], axis=-1)
    return jnp.sum(at.screw * (moves.T @ (force - fall)), axis=-1)


def _refuse(model: mujoco.MjModel, n: int) -> None:
    flags = model.opt.disableflags
    found = {
        "an elliptic friction cone": model.opt.cone != mujoco.mjtCone.mjCONE_PYRAMIDAL,
        "friction loss": bool(np.any(model.dof_frictionloss)),
        "equality constraints": model.neq > 0,
        "tendons": model.ntendon > 0,
        "an integrator other than implicitfast": model.opt.integrator != mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
        "fluid": model.opt.density > 0 or model.opt.viscosity > 0 or bool(np.any(model.opt.wind)),
        "springs or limits with a margin": bool(np.any(model.jnt_stiffness) or np.any(model.jnt_margin)),
        "disabled parts of the simulation": flags != 0,
        "hinges that do not come first, each with one position actuator": not (
            np.all(model.jnt_type[:n] == mujoco.mjtJoint.mjJNT_HINGE)
            and model.nu == n
            and np.array_equal(model.actuator_trnid[:, 0], np.arange(n))
            and np.all(model.actuator_gear[:, 0] == 1)
            and np.all(model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE)
            and np.allclose(model.actuator_biasprm[:, 1], -model.actuator_gainprm[:, 0])
            and not np.any(model.actuator_biasprm[:, 0])
        ),
        "joints that are neither hinges nor free": bool(
            np.any(model.jnt_type[n:] != mujoco.mjtJoint.mjJNT_FREE) or np.any(model.jnt_pos[:n])
        ),
        "two joints on one body": bool(np.any(model.body_jntnum > 1)),
    }
    if wrong := [what for what, there in found.items() if there]:
        raise UserError(f"physics: the scene has {'; '.join(wrong)}, for which this gradient is not valid")
