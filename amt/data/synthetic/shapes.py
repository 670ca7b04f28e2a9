"""Meshes and the convex parts that collide for them, built together: boxes, turned bodies, walls, tubes.

Metres, in the object's frame. A mesh has a texture coordinate per vertex, (0, 0) at the lower left of the texture.
"""

import dataclasses

import mujoco
import numpy as np
from jaxtyping import Float, Int

# Rectangles of an object's texture: x0, y0, x1, y1.
MAIN, SECOND, THIRD = (0.0, 0.0, 0.75, 1.0), (0.76, 0.0, 1.0, 0.49), (0.76, 0.51, 1.0, 1.0)
SEGMENTS = 32  # of a round mesh
WALL_PARTS = 12  # convex parts around a hollow body


@dataclasses.dataclass(frozen=True)
class Part:
    """A convex part: `box` (half sizes), `capsule` or `cylinder` (radius, half length along its z) or a `hull`."""

    kind: str
    size: tuple[float, ...] = ()
    pos: tuple[float, ...] = (0.0, 0.0, 0.0)
    R: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    points: np.ndarray | None = None  # of a hull, [n,3]


@dataclasses.dataclass(frozen=True)
class Site:
    """Where an object can be gripped: a box of half sizes `half` with axes `R` around `center`.

    `round` is the axis (0, 1, 2) around which it is round, or -1.
    """

    center: np.ndarray
    half: np.ndarray
    R: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    round: int = -1


class Shape:
    """A mesh that grows piece by piece, with the parts that collide and the sites to grip it at."""

    def __init__(self):
        self._vertices, self._faces, self._uv = [], [], []
        self.parts: list[Part] = []
        self.sites: list[Site] = []

    @property
    def vertices(self) -> Float[np.ndarray, "v 3"]:
        return np.concatenate(self._vertices)

    @property
    def faces(self) -> Int[np.ndarray, "f 3"]:
        starts = np.cumsum([0, *(len(v) for v in self._vertices[:-1])])
        return np.concatenate([f + s for f, s in zip(self._faces, starts, strict=True)])

    @property
    def uv(self) -> Float[np.ndarray, "v 2"]:
        return np.concatenate(self._uv)

    def _add(self, vertices, faces, uv, cell) -> None:
        low, high = np.array(cell[:2]), np.array(cell[2:])
        self._vertices.append(np.asarray(vertices, np.float64))
        self._faces.append(np.asarray(faces, np.int64))
        self._uv.append(low + np.clip(uv, 0.005, 0.995) * (high - low))

    def _grid(self, rings, cell, closed=False) -> None:
        """Rings [m,n+1,3], the last point of each on its first; consecutive rings are joined, outwards to the left."""
        m, n = rings.shape[:2]
        i, j = np.meshgrid(np.arange(m - 1), np.arange(n - 1), indexing="ij")
        a, b, c, d = i * n + j, i * n + j + 1, (i + 1) * n + j + 1, (i + 1) * n + j
        faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
        corners = rings.reshape(-1, 3)[faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        step = np.linalg.norm(np.diff(rings, axis=0), axis=-1).mean(1)
        v = np.concatenate([[0], np.cumsum(step)]) / max(step.sum(), 1e-9)
        uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, n)[None], v[:, None]), -1).reshape(-1, 2)
        self._add(rings.reshape(-1, 3), faces[area > 1e-12], uv, cell)

    def box(self, half, pos=(0, 0, 0), R=None, cell=MAIN, part=True) -> "Shape":
        """A box; its six sides have a rectangle of the cell each, three beside three."""
        half, R = np.asarray(half, np.float64), np.eye(3) if R is None else R
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        for side in range(6):
            axis, sign = side // 2, 1 - 2 * (side % 2)
            # The texture's up is z on upright sides; u runs to the right as seen from outside.
            right, up = ((1, 2), (0, 2), (0, 1))[axis]
            flip = sign if axis != 1 else -sign
            corners = np.zeros((4, 3))
            corners[:, axis], corners[:, right], corners[:, up] = sign, square[:, 0] * flip, square[:, 1]
            uv = ((square + 1) / 2 * 0.98 + 0.01 + [axis, side % 2]) / [3, 2]
            self._add((corners * half) @ R.T + pos, [[0, 1, 2], [0, 2, 3]], uv, cell)
        if part:
            self.parts.append(Part("box", tuple(half), tuple(pos), R))
        return self

    def turned(self, profile, scale=(1, 1), power=2.0, center=(0, 0, 0), cell=MAIN, part="hull") -> "Shape":
        """A body around z: `profile` is (radius, z) from the bottom up, outside; the section a superellipse.

        A section of `power` 2 is round, a larger one squarer. `part` is hull, cylinder or none.
        """
        profile, section = np.asarray(profile, np.float64), _section(SEGMENTS, scale, power)
        rings = np.concatenate(
            [profile[:, :1, None] * section[None], np.repeat(profile[:, None, 1:], SEGMENTS + 1, 1)], -1
        )
        self._grid(rings + center, cell)
        bottom, top = profile[:, 1].min(), profile[:, 1].max()
        if part == "cylinder":
            middle = tuple(np.add(center, (0, 0, (bottom + top) / 2)))
            self.parts.append(Part("cylinder", (profile[:, 0].max(), (top - bottom) / 2), middle))
        elif part == "hull":
            coarse = _section(16, scale, power)[:-1]
            points = [np.column_stack([r * coarse, np.full(16, z)]) for r, z in profile if r > 1e-6]
            self.parts.append(Part("hull", points=np.concatenate(points) + center))
        return self

    def vessel(self, outer, thickness, center=(0, 0, 0), cell=MAIN, inside=SECOND) -> "Shape":
        """An open vessel: the outer (radius, z) from the bottom's edge to the rim; walls and floor are `thickness`."""
        outer = np.asarray(outer, np.float64)
        inner = outer - [thickness, 0]
        inner[0, 1] += thickness
        floor = inner[0, 1]
        self.turned([(0, outer[0, 1]), *outer], center=center, cell=cell, part="none")
        self.turned([tuple(outer[-1]), *inner[::-1], (0, floor)], center=center, cell=inside, part="none")
        self.parts.append(
            Part("cylinder", (inner[0, 0], thickness / 2), tuple(np.add(center, (0, 0, floor - thickness / 2))))
        )
        angles = np.linspace(0, 2 * np.pi, WALL_PARTS + 1)
        for low, high, low_in, high_in in zip(outer[:-1], outer[1:], inner[:-1], inner[1:], strict=True):
            low_in = np.array([low_in[0], low[1]])
            for a, b in zip(angles[:-1], angles[1:], strict=True):
                mid = 1 / np.cos((b - a) / 2) ** 0.5  # a flat wall as near to the round one inside as outside
                ring = np.array([[np.cos(t), np.sin(t)] for t in (a, b)]) * mid
                points = [[*(r * d), z] for r, z in (low, high, low_in, high_in) for d in ring]
                self.parts.append(Part("hull", points=np.array(points) + center))
        return self

    def tube(self, path, radii, flat=1.0, closed=False, cell=MAIN, normal=(0, 0, 1), part=True) -> "Shape":
        """A tube along points [m,3] with radii [m] in the plane across `normal`, `flat` times that along it."""
        path, normal = np.asarray(path, np.float64), np.asarray(normal, np.float64)
        radii = np.broadcast_to(np.asarray(radii, np.float64), len(path))
        if closed:
            path, radii = np.concatenate([path, path[:1]]), np.append(radii, radii[0])
            along = np.gradient(np.concatenate([path[-2:-1], path, path[1:2]]), axis=0)[1:-1]
        else:
            along = np.gradient(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        side = np.cross(normal, along)
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        up = np.cross(along, side)
        angle = np.linspace(0, 2 * np.pi, 17)
        circle = np.cos(angle)[None, :, None] * side[:, None] + flat * np.sin(angle)[None, :, None] * up[:, None]
        rings = path[:, None] + radii[:, None, None] * circle
        if not closed:
            # Two more rings close each end to a blunt tip.
            tips = []
            for k, sign in ((0, -1), (-1, 1)):
                reach = radii[k] * min(flat, 1.0)
                shoulder = path[k] + sign * along[k] * 0.7 * reach + 0.7 * radii[k] * circle[k]
                point = np.repeat((path[k] + sign * along[k] * reach)[None], 17, 0)
                tips.append([point, shoulder] if sign < 0 else [shoulder, point])
            rings = np.concatenate([tips[0], rings, tips[1]])
        self._grid(rings, cell)
        if part:
            thin = radii * min(flat, 1.0)
            for a, b, r in zip(path[:-1], path[1:], (thin[:-1] + thin[1:]) / 2, strict=True):
                self.parts.append(_rod("capsule", a, b, r))
        return self

    def rod(self, a, b, radius, cell=MAIN, part=True) -> "Shape":
        """A cylinder with flat ends from `a` to `b`."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        R = _turn_to(b - a)
        half = np.linalg.norm(b - a) / 2
        rings = np.array([(0, -half), (radius, -half), (radius, half), (0, half)])
        section = _section(24, (1, 1), 2.0)
        rings = np.concatenate([rings[:, :1, None] * section[None], np.repeat(rings[:, None, 1:], 25, 1)], -1)
        self._grid(rings @ R.T + (a + b) / 2, cell)
        if part:
            self.parts.append(_rod("cylinder", a, b, radius))
        return self

    def site(self, center, half, R=None, round=-1) -> "Shape":
        """Adds a place to grip."""
        self.sites.append(
            Site(np.asarray(center, np.float64), np.asarray(half, np.float64), np.eye(3) if R is None else R, round)
        )
        return self


def _section(n, scale, power):
    angle = np.linspace(0, 2 * np.pi, n + 1)
    c, s = np.cos(angle), np.sin(angle)
    r = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    return np.stack([r * c * scale[0], r * s * scale[1]], -1)


def _turn_to(direction):
    """A rotation whose z is `direction`."""
    z = direction / np.linalg.norm(direction)
    x = np.cross(np.eye(3)[int(np.argmin(np.abs(z)))], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def _rod(kind, a, b, radius) -> Part:
    return Part(
        kind, (float(radius), float(np.linalg.norm(b - a) / 2)), tuple((np.add(a, b)) / 2), _turn_to(np.subtract(b, a))
    )


GEOMS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "hull": mujoco.mjtGeom.mjGEOM_MESH,
}


def add_parts(spec: mujoco.MjSpec, body: mujoco.MjsBody, parts: list[Part], mass: float, **settings) -> None:
    """Adds convex parts as geoms `{body}_{k}` of a body that weighs `mass` kg, spread by volume."""
    volumes = np.array([_volume(p) for p in parts])
    for k, (part, volume) in enumerate(zip(parts, volumes, strict=True)):
        name = f"{body.name}_{k}"
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, np.ascontiguousarray(part.R, np.float64).ravel())
        geom = body.add_geom(name=name, type=GEOMS[part.kind], pos=part.pos, quat=quat, **settings)
        geom.mass = mass * volume / volumes.sum()
        if part.kind == "hull":
            # The hull is computed by MuJoCo; vertices are the part's own.
            spec.add_mesh(name=name, uservert=part.points.ravel())
            geom.meshname = name
        else:
            geom.size = [*part.size, 0.0, 0.0][:3]


def _volume(part: Part) -> float:
    if part.kind == "hull":
        return float(np.prod(np.ptp(part.points, axis=0)))
    if part.kind == "box":
        return float(8 * np.prod(part.size))
    radius, half = part.size
    return float(2 * np.pi * radius**2 * half + (4 / 3 * np.pi * radius**3 if part.kind == "capsule" else 0))
