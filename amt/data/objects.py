"""Surfaces of the objects: the data set's own models where it has them, else the primitives of `amt.data.ycb`."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.spatial import KDTree

from amt.data.files import FileError, unreadable
from amt.data.ycb import OBJECTS, Primitive
from amt.errors import UserError
from amt.geometry.primitives import BOX
from amt.storage import POINTER_HINT, is_pointer

LEAF = 64  # points of a tree's leaf: searches from afar take half as long as with 10
SPACING = 0.0015  # metres: no point of a mesh's surface is farther than 1.12 times this from a sample
CYLINDER_SEGMENTS = 64  # off the circle by 0.12% of the radius


class Mesh(NamedTuple):
    """Triangles in the model's frame, metres; seen from outside they turn left."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]


class Surface(NamedTuple):
    """Points on an object in the model's frame, metres, and a KD-tree over them.

    `normals` are the faces' and point outwards; a cloud of points has none.
    """

    points: Float32[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"] | None
    tree: KDTree


@functools.lru_cache(maxsize=64)
def object_surface(root: Path, ycb_id: int) -> Surface:
    """The surface of `object_mesh`, or the points of `points.xyz` as they are: about 7 mm apart in DexYCB.

    Read on first use and kept. Raises: UserError for an unknown id, FileError for a broken model.
    """
    mesh = object_mesh(root, ycb_id)
    if mesh is not None:
        return sample_mesh(mesh)
    points = read_points(_model_folder(root, ycb_id) / "points.xyz")
    return Surface(points, None, KDTree(points, LEAF))


def object_mesh(root: Path, ycb_id: int) -> Mesh | None:
    """An object's `models/NAME/textured_simple.obj`, None where only `points.xyz` is there, else its primitive.

    Raises: UserError for an unknown id, FileError for a broken model.
    """
    if ycb_id not in OBJECTS:
        raise UserError(f"object {ycb_id}: no such YCB object in DexYCB; expected an id of 1 to {max(OBJECTS)}")
    folder = _model_folder(root, ycb_id)
    if (folder / "textured_simple.obj").is_file():
        return read_obj(folder / "textured_simple.obj")
    return None if (folder / "points.xyz").is_file() else primitive_mesh(OBJECTS[ycb_id].primitive)


def _model_folder(root: Path, ycb_id: int) -> Path:
    return root / "models" / OBJECTS[ycb_id].name


def read_obj(path: Path) -> Mesh:
    """Vertices and faces of a Wavefront OBJ file, polygons as fans. Raises: FileError."""
    vertices, faces = [], []
    try:
        for line in path.read_text(errors="replace").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "f":
                corners = [int(corner.partition("/")[0]) for corner in rest.split()]
                corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]  # negative: from the end
                faces += [(corners[0], *pair) for pair in zip(corners[1:], corners[2:], strict=False)]
        mesh = Mesh(np.array(vertices, np.float64).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3))
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "a mesh in OBJ format") from error
    if is_pointer(path):  # lines that OBJ leaves out
        raise FileError(path, POINTER_HINT)
    if not len(mesh.faces) or mesh.faces.min() < 0 or mesh.faces.max() >= len(vertices):
        raise FileError(path, f"{len(mesh.faces)} faces over {len(vertices)} vertices; expected a mesh in OBJ format")
    return mesh


def read_points(path: Path) -> Float32[np.ndarray, "n 3"]:
    """A text file with x y z in a row. Raises: FileError."""
    try:
        points = np.loadtxt(path, np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "rows of x y z") from error
    if not len(points) or points.shape[1] < 3 or not np.isfinite(points).all():
        raise FileError(path, f"numbers of shape {points.shape}; expected rows of x y z")
    return points[:, :3]


def primitive_mesh(primitive: Primitive) -> Mesh:
    """The box or cylinder as triangles."""
    if primitive.axis == BOX:
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
        # Corner k is (x, y, z) of the bits of k; each side is two triangles.
        sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        faces = np.array([f for a, b, c, d in sides for f in ((a, b, c), (a, c, d))])
        return Mesh(corners * primitive.half, faces)
    n = CYLINDER_SEGMENTS
    angle = 2 * np.pi * np.arange(n) / n
    ring = np.stack([np.cos(angle), np.sin(angle), np.ones(n)], -1)
    vertices = np.concatenate([ring * [1, 1, -1], ring, [[0, 0, -1], [0, 0, 1]]])
    i, j = np.arange(n), (np.arange(n) + 1) % n
    faces = np.concatenate(
        [
            np.stack([i, j, n + j], -1),
            np.stack([i, n + j, n + i], -1),
            np.stack([j, i, np.full(n, 2 * n)], -1),
            np.stack([n + i, n + j, np.full(n, 2 * n + 1)], -1),
        ]
    )
    axes = [(primitive.axis + k) % 3 for k in (1, 2, 3)]  # the cylinder's x, y, z
    turned = np.empty_like(vertices)
    turned[:, axes] = vertices
    return Mesh(turned * primitive.half, faces)


def sample_mesh(mesh: Mesh, spacing: float = SPACING) -> Surface:
    """Points on the triangles in rows along their longest edges; rows and points at most `spacing` metres apart."""
    triangles = mesh.vertices[mesh.faces]
    edges = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=-1)  # edge k is from corner k to k+1
    rows, longest = np.arange(len(triangles)), edges.argmax(-1)
    a, b, c = (triangles[rows, (longest + k) % 3] for k in range(3))
    base = edges[rows, longest]
    across = np.cross(b - a, c - a)
    twice_area = np.linalg.norm(across, axis=-1)
    solid = twice_area > 1e-15
    a, b, c, base, across, twice_area = (x[solid] for x in (a, b, c, base, across, twice_area))
    normals = across / twice_area[:, None]

    triangle, height = _subdivide(twice_area / base, spacing)
    left = a[triangle] + height[:, None] * (c - a)[triangle]
    right = b[triangle] + height[:, None] * (c - b)[triangle]
    row, along = _subdivide(np.linalg.norm(right - left, axis=-1), spacing)
    points = (left[row] + along[:, None] * (right - left)[row]).astype(np.float32)
    return Surface(points, normals[triangle[row]].astype(np.float32), KDTree(points, LEAF))


def _subdivide(lengths: Float64[np.ndarray, " n"], spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """For points along each length, ends included: which length each belongs to, and the share of it, 0..1."""
    steps = np.maximum(np.ceil(lengths / spacing), 1).astype(int)
    which = np.repeat(np.arange(len(lengths)), steps + 1)
    first = np.cumsum(steps + 1) - (steps + 1)
    return which, (np.arange(len(which)) - first[which]) / steps[which]
