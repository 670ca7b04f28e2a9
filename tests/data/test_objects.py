"""Object surfaces: points on them, none missing, normals outwards; from a mesh, a cloud or the table of sizes."""

import numpy as np
import pytest

from amt.data.contacts import signed_distance
from amt.data.objects import SPACING, Mesh, Surface, object_surface, primitive_mesh, read_obj, sample_mesh
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry import primitives

# A tetrahedron: a quad that is two of its triangles' worth flat, a face by negative indices, textures and normals.
OBJ = """# made by hand
mtllib textured.mtl
v 0 0 0 0.5 0.5 0.5
v 0.04 0 0
v 0.04 0.04 0
v 0 0.04 0
v 0 0 0.03
vt 0 0
vn 0 0 1
f 4/1/1 3/1/1 2/1/1 1/1/1
f 1//1 2//1 5//1
f 2 3 5
f 3 4 5
f -2 -5 -1
"""


def model(tmp_path, name="textured_simple.obj", text=OBJ, ycb_id=2):
    folder = tmp_path / "models" / OBJECTS[ycb_id].name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def inside_pyramid(points):
    """Base 4 x 4 cm on z = 0, apex above the origin's corner at 3 cm: below the planes of its five faces."""
    x, y, z = points.T
    return (z > 0) & (x > 0) & (y > 0) & (0.03 * x + 0.04 * z < 0.0012) & (0.03 * y + 0.04 * z < 0.0012)


def test_a_mesh_is_read_and_sampled_evenly(tmp_path):
    mesh = read_obj(model(tmp_path))
    assert mesh.vertices.shape == (5, 3) and len(mesh.faces) == 6
    surface = object_surface(tmp_path, 2)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 20_000)
    on_mesh = np.einsum("nk,nkc->nc", weights, mesh.vertices[mesh.faces[rng.integers(0, 6, 20_000)]])
    gaps = surface.tree.query(on_mesh)[0]
    assert gaps.max() <= 1.12 * SPACING
    area = np.linalg.norm(np.cross(*np.diff(mesh.vertices[mesh.faces], axis=1).swapaxes(0, 1)), axis=-1).sum() / 2
    assert len(surface.points) < 2 * area / SPACING**2  # not crowded


def test_normals_point_outwards(tmp_path):
    model(tmp_path)
    surface = object_surface(tmp_path, 2)
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=-1), 1, atol=1e-5)
    assert not inside_pyramid(surface.points + 1e-5 * surface.normals).any()
    away_from_edges = inside_pyramid(surface.points - 1e-3 * surface.normals)
    assert away_from_edges.mean() > 0.8


@pytest.mark.parametrize("ycb_id", sorted(OBJECTS))
def test_without_models_the_primitive_stands_for_it(tmp_path, ycb_id):
    surface = object_surface(tmp_path, ycb_id)
    half, axis = OBJECTS[ycb_id].primitive
    exact = primitives.signed_distance(surface.points, half, np.int32(axis))
    assert np.abs(exact).max() < 0.0013 * half.max() + 1e-6  # the chords of the cylinder's segments
    rng = np.random.default_rng(ycb_id)
    points = rng.uniform(-1, 1, (500, 3)).astype(np.float32) * (half + 0.01)
    ours = signed_distance(points, surface)
    theirs = primitives.signed_distance(points, half, np.int32(axis))
    near = np.abs(theirs) > SPACING
    np.testing.assert_array_equal(np.sign(ours[near]), np.sign(theirs[near]))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=SPACING)
    assert np.abs(np.abs(ours) - np.abs(theirs))[np.abs(theirs) > 0.005].max() < 2e-4 + 0.0013 * half.max()


def test_a_primitive_is_closed():
    for ycb_id in (1, 2, 18):
        mesh = primitive_mesh(OBJECTS[ycb_id].primitive)
        edges = [tuple(e) for face in mesh.faces for e in (face[:2], face[1:], face[[2, 0]])]
        assert len(set(edges)) == len(edges) and {(b, a) for a, b in edges} == set(edges)


def test_points_where_there_is_no_mesh(tmp_path):
    model(tmp_path, "points.xyz", "0.01 0.02 0.03\n-0.01 0 0\n", ycb_id=5)
    surface = object_surface(tmp_path, 5)
    np.testing.assert_allclose(surface.points, [[0.01, 0.02, 0.03], [-0.01, 0, 0]])
    assert surface.normals is None
    assert (signed_distance(np.zeros((1, 3)), surface) > 0).all()


def test_a_mesh_goes_before_points_and_is_read_once(tmp_path):
    path = model(tmp_path)
    model(tmp_path, "points.xyz", "9 9 9\n")
    surface = object_surface(tmp_path, 2)
    path.unlink()
    assert object_surface(tmp_path, 2) is surface and isinstance(surface, Surface) and surface.points.max() < 0.05


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("textured_simple.obj", "v 0 0 0\n", "0 faces over 1 vertices"),
        ("textured_simple.obj", "v 0 0 0\nf 1 2 3\n", "1 faces over 1 vertices"),
        ("textured_simple.obj", "v 0 0 zero\n", "textured_simple.obj: cannot be read"),
        ("points.xyz", "1 2\n", "points.xyz: numbers of shape"),
        ("points.xyz", "1 2 nan\n", "points.xyz: numbers"),
        ("points.xyz", "x y z\n", "points.xyz: cannot be read"),
    ],
)
def test_a_broken_model_is_named(tmp_path, name, text, says):
    model(tmp_path, name, text)
    with pytest.raises(UserError, match=says):
        object_surface(tmp_path, 2)


def test_an_unknown_object(tmp_path):
    with pytest.raises(UserError, match="object 22"):
        object_surface(tmp_path, 22)


def test_slivers_do_not_multiply_points():
    """A strip of 1 x 200 mm triangles: about as many points as its area asks for."""
    n = 50
    top = np.stack([np.arange(n + 1) * 1e-3, np.full(n + 1, 0.2), np.zeros(n + 1)], -1)
    vertices = np.concatenate([top * [1, 0, 1], top])
    i = np.arange(n)
    faces = np.concatenate([np.stack([i, i + 1, n + 1 + i], -1), np.stack([i + 1, n + 2 + i, n + 1 + i], -1)])
    assert len(sample_mesh(Mesh(vertices, faces)).points) < 8 * 0.05 * 0.2 / SPACING**2
