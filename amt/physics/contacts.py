"""Where the hand's spheres and the table touch objects: distance, place and frame, as MuJoCo C computes them.

The hand touches with spheres, the table is the plane z = 0, objects are boxes, cylinders and capsules along their own
z. What a shape is, is a number at run time: objects of other kinds and sizes need no other program.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

NONE, BOX, CYLINDER, CAPSULE = range(4)  # kinds of shapes
TABLE_SLOTS = 4  # contacts of one shape with the table
TINY = 1e-12  # metres


@struct.dataclass
class Contacts:
    """Distances (negative: penetration), points, frames [normal; tangent; tangent]; normals point into the object."""

    dist: Float[Array, " k"]
    point: Float[Array, "k 3"]
    frame: Float[Array, "k 3 3"]


def surface(
    point: Float[Array, "*b 3"], kind: Int[Array, "*b"], size: Float[Array, "*b 3"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b 3"]]:
    """Signed distance (metres) of a point in the shape's frame, negative inside, and its gradient, a unit vector.

    `size` are MuJoCo's half sizes: box (x, y, z), cylinder and capsule (radius, half length). Far away for `NONE`.
    """
    box = _box(point, size)
    radius, half = size[..., 0], size[..., 1]
    cylinder = _cylinder(point, radius, half)
    capsule = _capsule(point, radius, half)
    distance, gradient = _choose(kind, (box, cylinder, capsule))
    return jnp.where(kind == NONE, 1e3, distance), gradient


def sphere_contacts(
    centre: Float[Array, "k 3"],
    radius: Float[Array, " k"],
    pos: Float[Array, "k 3"],
    rot: Float[Array, "k 3 3"],
    kind: Int[Array, " k"],
    size: Float[Array, "k 3"],
) -> Contacts:
    """Spheres against shapes at `pos`, `rot` in the world, pair by pair."""
    local = jnp.einsum("kji,kj->ki", rot, centre - pos)
    distance, gradient = surface(local, kind, size)
    normal = -jnp.einsum("kij,kj->ki", rot, gradient)
    dist = distance - radius
    return Contacts(dist, centre + normal * (radius + dist / 2)[:, None], tangents(normal))


def table_contacts(
    pos: Float[Array, "g 3"], rot: Float[Array, "g 3 3"], kind: Int[Array, " g"], size: Float[Array, "g 3"]
) -> Contacts:
    """The plane z = 0 against shapes: `TABLE_SLOTS` each, shape after shape; k = 4 g."""
    up = jnp.array([0.0, 0.0, 1.0], pos.dtype)
    axis, radius, half = rot[:, :, 2], size[:, 0], size[:, 1]
    choices = (_box_corners(rot, size), _cylinder_rims(rot, radius, half), _capsule_ends(axis, radius, half))
    offset, there = _choose(kind, choices)
    point = pos[:, None] + offset
    dist = jnp.where(there & (kind != NONE)[:, None], point[..., 2], 1e3)
    point = point - up[None, None] * (point[..., 2:] / 2)
    flat = jnp.broadcast_to(tangents(up[None]), (len(pos), 3, 3))
    # MuJoCo turns a capsule's frame along it.
    along = axis - up[None] * axis[:, 2:]
    length = _length(along)
    x = jnp.asarray(np.eye(3)[0], pos.dtype)
    along = jnp.where((length > TINY)[:, None], _unit(along, length), x[None])
    lying = jnp.stack([jnp.broadcast_to(up, along.shape), along, jnp.cross(up[None], along)], axis=1)
    frame = jnp.where((kind == CAPSULE)[:, None, None], lying, flat)
    k = len(pos) * TABLE_SLOTS
    return Contacts(dist.reshape(k), point.reshape(k, 3), jnp.repeat(frame, TABLE_SLOTS, axis=0))


def tangents(normal: Float[Array, "k 3"]) -> Float[Array, "k 3 3"]:
    """The contact's frame of a unit normal, by mju_makeFrame."""
    y, z = (jnp.asarray(np.eye(3)[i], normal.dtype) for i in (1, 2))
    start = jnp.where((jnp.abs(normal[:, 1]) < 0.5)[:, None], y[None], z[None])
    first = start - normal * jnp.sum(normal * start, axis=-1, keepdims=True)
    first = first / jnp.sqrt(jnp.sum(first**2, axis=-1, keepdims=True))
    return jnp.stack([normal, first, jnp.cross(normal, first)], axis=1)


def _choose(kind: Array, choices: tuple) -> tuple[Array, ...]:
    """Of values by kind (BOX, CYLINDER, CAPSULE), each a tuple of arrays."""

    def pick(*values):
        at = kind.reshape(kind.shape + (1,) * (values[0].ndim - kind.ndim))
        return jnp.where(at == BOX, values[0], jnp.where(at == CYLINDER, values[1], values[2]))

    return jax.tree.map(pick, *choices)


def _length(vector: Array) -> Array:
    """With a finite gradient at 0."""
    square = jnp.sum(vector**2, axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _unit(vector: Array, length: Array) -> Array:
    return vector / jnp.where(length > 0, length, 1.0)[..., None]


def _box(point: Array, size: Array) -> tuple[Array, Array]:
    sign = jnp.where(point < 0, -1.0, 1.0).astype(point.dtype)
    over = jnp.abs(point) - size
    outside = jnp.maximum(over, 0.0)
    length = _length(outside)
    face = jax.nn.one_hot(jnp.argmax(over, axis=-1), 3, dtype=point.dtype)
    out = length > TINY
    distance = jnp.where(out, length, jnp.max(over, axis=-1))
    return distance, sign * jnp.where(out[..., None], _unit(outside, length), face)


def _cylinder(point: Array, radius: Array, half: Array) -> tuple[Array, Array]:
    across = point.at[..., 2].set(0.0)
    rho = _length(across)
    outwards = _unit(across, rho)
    sign = jnp.where(point[..., 2] < 0, -1.0, 1.0).astype(point.dtype)
    side, cap = rho - radius, jnp.abs(point[..., 2]) - half
    corner = jnp.stack([jnp.maximum(side, 0.0), jnp.maximum(cap, 0.0)], axis=-1)
    length = _length(corner)
    out = length > TINY
    by_side = side > cap
    share = jnp.where(
        out[..., None], _unit(corner, length), jnp.stack([by_side, ~by_side], axis=-1).astype(point.dtype)
    )
    along = jnp.zeros_like(point).at[..., 2].set(sign)
    distance = jnp.where(out, length, jnp.maximum(side, cap))
    return distance, outwards * share[..., :1] + along * share[..., 1:]


def _capsule(point: Array, radius: Array, half: Array) -> tuple[Array, Array]:
    nearest = jnp.clip(point[..., 2], -half, half)
    away = point - jnp.zeros_like(point).at[..., 2].set(nearest)
    length = _length(away)
    x = jnp.asarray(np.eye(3)[0], point.dtype)
    return length - radius, jnp.where((length > 0)[..., None], _unit(away, length), jnp.broadcast_to(x, away.shape))


def _box_corners(rot: Array, size: Array) -> tuple[Array, Array]:
    """The four corners below the middle."""
    signs = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)])
    corners = jnp.einsum("gij,cj,gj->gci", rot, jnp.asarray(signs, rot.dtype), size)
    lowest = jax.lax.top_k(-jax.lax.stop_gradient(corners[..., 2]), TABLE_SLOTS)[1]
    return jnp.take_along_axis(corners, lowest[..., None], axis=1), jnp.ones(lowest.shape, bool)


def _cylinder_rims(rot: Array, radius: Array, half: Array) -> tuple[Array, Array]:
    """The lowest point of either rim and two more of the lower one, a third of a turn away."""
    axis = rot[:, :, 2] * jnp.where(rot[:, 2, 2] > 0, -1.0, 1.0).astype(rot.dtype)[:, None]
    up = jnp.asarray(np.eye(3)[2], rot.dtype)
    down = axis * axis[:, 2:] - up[None]
    length = _length(down)
    tilted = length > TINY
    down = jnp.where(tilted[:, None], _unit(down, length), rot[:, :, 0]) * radius[:, None]
    axis = axis * half[:, None]
    sideways = jnp.cross(down, axis)
    sideways = _unit(sideways, _length(sideways)) * (radius * 3**0.5 / 2)[:, None]
    points = [axis + down, down - axis, axis - down / 2 + sideways, axis - down / 2 - sideways]
    return jnp.stack(points, axis=1), jnp.ones((len(rot), TABLE_SLOTS), bool)


def _capsule_ends(axis: Array, radius: Array, half: Array) -> tuple[Array, Array]:
    end = axis * half[:, None]
    down = jnp.zeros_like(end).at[:, 2].set(-radius)
    there = jnp.broadcast_to(jnp.arange(TABLE_SLOTS) < 2, (len(axis), TABLE_SLOTS))
    return jnp.stack([end + down, down - end, end, end], axis=1), there
