"""One step of the simulation and many: MuJoCo's equations, differentiable in state, commands and the model."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from amt.geometry.rotations import from_quaternion
from amt.physics import contacts, solver
from amt.physics.model import Model, State, Touch
from amt.physics.tree import Frames, bias_force, frames, mass_matrix

RATE = 20.0  # 1/s, of the guide
SUBSTEPS = 5  # of the timestep, for one command: 50 Hz


@struct.dataclass
class Reach:
    """Contact from a distance, for gradients only: the motion is unchanged to the bit.

    A sphere of the hand at distance d in front of an object pushes it, as far as derivatives go, with
    stiffness x width x log(1 + exp(-d / width)) newtons: what comes nearer would push more.
    """

    width: Float[Array, ""] | float = 0.02  # metres
    stiffness: Float[Array, ""] | float = 100.0  # newtons per metre


@struct.dataclass
class Guide:
    """A hand of God that leads every object: a spring to its place after each command, and its weight taken off.

    `gain` from 0 (none) to 1: then the object's error falls off with `RATE`, critically damped, whatever its mass.
    """

    pos: Float[Array, "T o 3"]
    rot: Float[Array, "T o 3 3"]
    gain: Float[Array, ""] | float


def rollout(
    model: Model,
    state: State,
    controls: Float[Array, "T 22"],
    *,
    substeps: int = SUBSTEPS,
    follow: bool = False,
    reach: Reach | None = None,
    memory: Float[Array, ""] | float = 1.0,
    guide: Guide | None = None,
    unrolled: bool = False,
) -> State:
    """The states after each command, [T, ...]. Memory grows with T, not with `substeps`.

    controls: joint targets in radians, robot order. follow: within a command the target moves from the last one and
    leads by what the actuators lag, as in `amt.robot.replay`; else it is held. memory: the share of the derivative with
    respect to a state that is passed to the command before; below 1 derivatives of long, stiff contacts stay bounded,
    and what a command does later than some 1 / (1 - memory) commands is seen less and less. unrolled: contacts are
    solved by a single Newton step (`solver.unrolled_acceleration`), a comparison. For a batch use `jax.vmap`.
    """

    @jax.checkpoint
    def command(carry, inputs):
        state, last = carry
        target, place = inputs
        if not isinstance(memory, float) or memory != 1.0:
            state = jax.tree.map(lambda x: x if x.dtype.kind == "i" else _faded(x, memory), state)
        for_step = servo(model, last, target, substeps) if follow else jnp.broadcast_to(target, (substeps, len(target)))

        def substep(state, ctrl):
            push = None if place is None else _guiding(model, state, *place, guide.gain)
            return step(model, state, ctrl, reach, push, unrolled), None

        state, _ = jax.lax.scan(substep, state, for_step)
        return (state, target), state

    places = None if guide is None else (guide.pos, guide.rot)
    return jax.lax.scan(command, (state, controls[0]), (controls, places))[1]


def _guiding(model: Model, state: State, goal_pos: Array, goal_rot: Array, gain: Array | float) -> Array:
    n = len(model.tree.parent)
    pos, quat = _poses(state.qpos[n:])
    rot, velocity = from_quaternion(quat), state.qvel[n:].reshape(-1, 6)
    off = jnp.swapaxes(rot, -1, -2) @ goal_rot
    off = (off - jnp.swapaxes(off, -1, -2)) / 2  # of a small rotation, its vector's cross matrix
    turn = jnp.stack([off[:, 2, 1], off[:, 0, 2], off[:, 1, 0]], axis=-1)
    linear = RATE**2 * (goal_pos - pos) - 2 * RATE * velocity[:, :3] - model.gravity[None]
    force = model.mass[:, None] * linear
    torque = jnp.einsum("oij,oj->oi", model.inertia, RATE**2 * turn - 2 * RATE * velocity[:, 3:])
    return gain * jnp.concatenate([force, torque], axis=-1).ravel()


def _faded(x: Array, share: Array | float) -> Array:
    return share * x + (1 - share) * jax.lax.stop_gradient(x)


def servo(
    model: Model, last: Float[Array, " n"], target: Float[Array, " n"], substeps: int
) -> Float[Array, "substeps n"]:
    """Targets of the substeps on the way from one command to the next, leading by velocity x damping / stiffness."""
    share = jnp.arange(1, substeps + 1, dtype=target.dtype)[:, None] / substeps
    lead = jnp.asarray(model.tree.actuator_damping / model.tree.stiffness, target.dtype)
    velocity = (target - last) / (substeps * model.timestep)
    return last[None] + (target - last)[None] * share + (lead * velocity)[None]


def step(
    model: Model,
    state: State,
    ctrl: Float[Array, " 22"],
    reach: Reach | None = None,
    push: Float[Array, " 6o"] | None = None,
    unrolled: bool = False,
) -> State:
    """One timestep on: implicit in the actuators' damping and the objects' spin (MuJoCo's implicitfast).

    push: force on each object in the base frame and torque in its own, N and N m.
    """
    tree, n = model.tree, len(model.tree.parent)
    qpos, qvel, h = state.qpos, state.qvel, model.timestep
    at = frames(tree, qpos[:n])
    pos, quat = _poses(qpos[n:])
    rot = from_quaternion(quat)
    drive, drag = _actuation(model, qpos[:n], qvel[:n], ctrl)
    robot_M, robot_bias = mass_matrix(tree, at), bias_force(tree, at, qvel[:n], model.gravity)
    M = _with_objects(model, robot_M, rot)
    free = _free_force(model, rot, qvel[n:])
    force = jnp.concatenate([drive - robot_bias, free if push is None else free + push])
    touching = _contacts(model, at, pos, rot)
    rows = _rows(model, at, pos, rot, touching, qpos[:n], qvel)
    if reach is not None:
        force = force + _reach_force(at, pos, rot, touching, reach)
    solve = solver.unrolled_acceleration if unrolled else solver.constrained_acceleration
    qacc, pressed = solve(M, force, rows, state.qacc)
    force = force + rows.transposed(pressed)
    touch = _touch(touching, pressed, rows.J @ qvel)
    damped = robot_M + h * jnp.diag(drag)
    moved = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(damped), True), force[:n])
    qvel = qvel + h * jnp.concatenate([moved, _free_acceleration(model, rot, qvel[n:], force[n:])])
    parts = [qpos[:n] + h * qvel[:n]]
    velocity = qvel[n:].reshape(-1, 6)
    quat = _turned(quat, h * velocity[:, 3:])
    parts.append(jnp.concatenate([pos + h * velocity[:, :3], quat], axis=-1).ravel())
    dropped = jnp.maximum(state.num_dropped, touching.num_dropped)
    return State(jnp.concatenate(parts), qvel, jax.lax.stop_gradient(qacc), touch, dropped)


@struct.dataclass
class Touching:
    """Contacts that may press, the hand's first: geometry, the hinges that move the hand there, the object."""

    contact: contacts.Contacts
    moved: Float[Array, "k n"]
    owner: Int[Array, " k"]
    friction: Float[Array, " k"]
    invweight: Float[Array, " k"]
    num_hand: int = struct.field(pytree_node=False)
    num_dropped: Array


def _contacts(model: Model, at: Frames, pos: Array, rot: Array) -> Touching:
    """The nearest `max_contacts` pairs of sphere and shape, and every shape on the table."""
    tree, num, room = model.tree, *model.shape_kind.shape
    owner = np.repeat(np.arange(num), room)
    kind, size = model.shape_kind.reshape(-1), model.shape_size.reshape(-1, 3)
    place = pos[owner] + jnp.einsum("gij,gj->gi", rot[owner], model.shape_pos.reshape(-1, 3))
    turn = jnp.einsum("gij,gjk->gik", rot[owner], model.shape_rot.reshape(-1, 3, 3))
    body, offset, radius, softened = (model.spheres.column(i) for i in range(4))
    radius, softened = (jnp.asarray(x, pos.dtype) for x in (radius, softened))
    centre = at.pos[body] + jnp.einsum("sij,sj->si", at.rot[body], jnp.asarray(offset, pos.dtype))

    local = jnp.einsum("gji,sgj->sgi", turn, centre[:, None] - place[None])
    distance = contacts.surface(*jax.lax.stop_gradient((local, kind[None], size[None])))[0] - radius[:, None]
    nearest = jax.lax.top_k(-jax.lax.stop_gradient(distance).ravel(), model.num_touching)[1]
    s, g = nearest // len(owner), nearest % len(owner)
    hand = contacts.sphere_contacts(centre[s], radius[s], place[g], turn[g], kind[g], size[g])
    moved = jnp.asarray(tree.moves[body], pos.dtype)[s]
    table = contacts.table_contacts(place, turn, kind, size)
    of_hand, of_table = jnp.asarray(owner)[g], jnp.asarray(np.repeat(owner, contacts.TABLE_SLOTS))
    contact = jax.tree.map(lambda *x: jnp.concatenate(x), hand, table)
    moved = jnp.concatenate([moved, jnp.zeros((len(of_table), len(tree.parent)), pos.dtype)])
    return Touching(
        contact,
        moved,
        jnp.concatenate([of_hand, of_table]),
        jnp.concatenate([model.touch_friction[of_hand], model.rest_friction[of_table]]),
        jnp.concatenate([softened[s] + model.invweight[of_hand], model.invweight[of_table]]),
        model.num_touching,
        jnp.sum(distance < 0).astype(jnp.int32) - jnp.sum(hand.dist < 0).astype(jnp.int32),
    )


def _jacobian(
    at: Frames, pos: Array, rot: Array, touching: Touching, direction: Float[Array, "k e 3"]
) -> Float[Array, "k e nv"]:
    """d(velocity of the object against the hand or table, along `direction`)/d(qvel), at each contact.

    A force along a direction is a wrench on the robot; its power on a hinge's screw is the entry of that hinge.
    """
    point, owner = touching.contact.point, touching.owner
    wrench = jnp.concatenate([jnp.cross((point - at.origin[None])[:, None], direction), direction], axis=-1)
    robot = -(wrench @ at.screw.T) * touching.moved[:, None]
    torque = jnp.cross((point - pos[owner])[:, None], direction)
    own = jnp.concatenate([direction, jnp.einsum("kji,kej->kei", rot[owner], torque)], axis=-1)
    mine = (owner[:, None] == jnp.arange(len(pos))[None]).astype(point.dtype)
    objects = own[:, :, None] * mine[:, None, :, None]
    return jnp.concatenate([robot, objects.reshape(*own.shape[:2], -1)], axis=-1)


def _rows(model: Model, at: Frames, pos: Array, rot: Array, touching: Touching, q: Array, qvel: Array) -> solver.Rows:
    """Four edges of each contact's pyramid, n +- friction t, and the joint limits."""
    normal = touching.contact.frame[:, :1]
    slide = touching.contact.frame[:, 1:] * touching.friction[:, None, None]
    edges = jnp.concatenate([normal + slide, normal - slide], axis=1)
    J = _jacobian(at, pos, rot, touching, edges).reshape(-1, len(qvel))
    dist, mu2 = jnp.repeat(touching.contact.dist, 4), touching.friction**2
    invweight = jnp.repeat(touching.invweight * (1 + mu2) * 2 * mu2, 4)
    # A table that is not there, or no friction: nothing presses.
    D, aref = solver.softness(
        model.solref, model.solimp, model.timestep, dist, J @ qvel, jnp.where(invweight > 0, invweight, 1.0)
    )
    D = jnp.where(invweight > 0, D, 0.0)
    low, high = (jnp.asarray(x, q.dtype) for x in model.tree.limits.T)
    side = jnp.where(q - low < high - q, 1.0, -1.0).astype(q.dtype)
    limit_D, limit_aref = solver.softness(
        model.limit_solref,
        model.limit_solimp,
        model.timestep,
        jnp.minimum(q - low, high - q),
        side * qvel[: len(q)],
        jnp.asarray(model.tree.limit_invweight, q.dtype),
    )
    return solver.Rows(J, side, jnp.concatenate([D, limit_D]), jnp.concatenate([aref, limit_aref]))


def _touch(touching: Touching, pressed: Array, velocity: Array) -> Touch:
    k = touching.num_hand
    # Edges n + f t1, n + f t2, n - f t1, n - f t2.
    along = velocity[: 4 * k].reshape(k, 2, 2)
    friction = jnp.maximum(touching.friction[:k], 1e-6)[:, None]
    sliding = (along[:, 0] - along[:, 1]) / (2 * friction)
    slip = jnp.sqrt(jnp.sum(sliding**2, axis=-1) + 1e-12)
    return Touch(touching.contact.dist[:k], pressed[: 4 * k].reshape(k, 4).sum(1), slip)


def _reach_force(at: Frames, pos: Array, rot: Array, touching: Touching, reach: Reach) -> Array:
    """Zero, with a derivative."""
    k = touching.num_hand
    dist = touching.contact.dist[:k]
    push = reach.stiffness * reach.width * jax.nn.softplus(-dist / reach.width)
    push = jnp.where(dist > 0, push - jax.lax.stop_gradient(push), 0.0)
    return push @ _jacobian(at, pos, rot, touching, touching.contact.frame[:, :1])[:k, 0]


def _actuation(model: Model, q: Array, v: Array, ctrl: Array) -> tuple[Array, Array]:
    """Joint torques (N m) of position actuators and joint damping, and how they fall with velocity."""
    tree = model.tree
    low, high, kp, kd, bound, damping = (
        jnp.asarray(x, q.dtype)
        for x in (*tree.ctrl_limits.T, tree.stiffness, tree.actuator_damping, tree.max_force, tree.damping)
    )
    wanted = kp * (jnp.clip(ctrl, low, high) - q) - kd * v
    saturated = (wanted <= -bound) | (wanted >= bound)
    return jnp.clip(wanted, -bound, bound) - damping * v, jnp.where(saturated, 0.0, kd) + damping


def _with_objects(model: Model, robot_M: Array, rot: Array) -> Array:
    """The robot's mass matrix and, on the diagonal, the objects': force in the world, torque in the object's frame."""
    blocks = [robot_M]
    for o in range(model.num_objects):
        m, c = model.mass[o], model.com[o]
        C = _cross_matrix(c)
        corner = -m * rot[o] @ C
        about_origin = model.inertia[o] - m * C @ C
        eye = jnp.eye(3, dtype=rot.dtype)
        blocks.append(jnp.block([[m * eye, corner], [corner.T, about_origin]]))
    return jax.scipy.linalg.block_diag(*blocks)


def _free_force(model: Model, rot: Array, v: Array) -> Array:
    """Weight and centrifugal force of the objects."""
    spin = v.reshape(-1, 6)[:, 3:]
    C = jax.vmap(_cross_matrix)(model.com)
    about_origin = model.inertia - model.mass[:, None, None] * C @ C
    outwards = jnp.cross(spin, jnp.cross(spin, model.com))
    force = model.mass[:, None] * (model.gravity[None] - jnp.einsum("oij,oj->oi", rot, outwards))
    weight = model.mass[:, None] * jnp.einsum("oji,j->oi", rot, model.gravity)
    torque = jnp.cross(model.com, weight) - jnp.cross(spin, jnp.einsum("oij,oj->oi", about_origin, spin))
    return jnp.concatenate([force, torque], axis=-1).ravel()


def _free_acceleration(model: Model, rot: Array, v: Array, force: Array) -> Array:
    """(M + h d(bias)/dv)^-1 force, object by object: what spins is taken implicitly.

    The bias is m R w x (w x c) and w x I w. Its derivative has no columns for the linear velocity, which is eliminated.
    """
    h, m, c = model.timestep, model.mass[:, None, None], model.com
    spin = v.reshape(-1, 6)[:, 3:]
    push, twist = jnp.split(force.reshape(-1, 6), 2, axis=-1)
    C = jax.vmap(_cross_matrix)(c)
    about_origin = model.inertia - m * C @ C
    corner = -m * rot @ C
    eye = jnp.eye(3, dtype=rot.dtype)
    outer = spin[:, :, None] * c[:, None]
    swing = jnp.sum(spin * c, axis=-1)[:, None, None] * eye[None] + outer - 2 * jnp.swapaxes(outer, -1, -2)
    gyro = jax.vmap(_cross_matrix)(spin) @ about_origin
    gyro = gyro - jax.vmap(_cross_matrix)(jnp.einsum("oij,oj->oi", about_origin, spin))
    corner_h = corner + h * m * rot @ swing
    back = jnp.swapaxes(corner, -1, -2) / m
    turning = _solve3(about_origin + h * gyro - back @ corner_h, twist - jnp.einsum("oij,oj->oi", back, push))
    moving = (push - jnp.einsum("oij,oj->oi", corner_h, turning)) / m[..., 0]
    return jnp.concatenate([moving, turning], axis=-1).ravel()


def _solve3(A: Float[Array, "o 3 3"], b: Float[Array, "o 3"]) -> Float[Array, "o 3"]:
    """By Cramer's rule."""
    x, y, z = A[:, :, 0], A[:, :, 1], A[:, :, 2]
    yz = jnp.cross(y, z)
    parts = (yz, jnp.cross(z, x), jnp.cross(x, y))
    return jnp.stack([jnp.sum(p * b, axis=-1) for p in parts], axis=-1) / jnp.sum(x * yz, axis=-1, keepdims=True)


def _poses(q: Array) -> tuple[Array, Array]:
    pose = q.reshape(-1, 7)
    quat = pose[:, 3:]
    return pose[:, :3], quat / jnp.sqrt(jnp.sum(quat**2, axis=-1, keepdims=True))


def _turned(quat: Array, angle: Array) -> Array:
    """quat * exp(angle / 2), the angle in the object's own frame; smooth at 0."""
    square = jnp.sum(angle**2, axis=-1, keepdims=True) / 4
    small = square < 1e-8
    half = jnp.sqrt(jnp.where(small, 1.0, square))
    sinc = jnp.where(small, 1 - square / 6, jnp.sin(half) / half)
    w, v = jnp.where(small, 1 - square / 2, jnp.cos(half)), sinc * angle / 2
    w0, v0 = quat[:, :1], quat[:, 1:]
    real = w0 * w - jnp.sum(v0 * v, axis=-1, keepdims=True)
    made = jnp.concatenate([real, w0 * v + w * v0 + jnp.cross(v0, v)], axis=-1)
    return made / jnp.sqrt(jnp.sum(made**2, axis=-1, keepdims=True))


def _cross_matrix(v: Array) -> Array:
    x, y, z = v
    zero = jnp.zeros_like(x)
    return jnp.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
