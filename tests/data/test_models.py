"""The object models have the YCB sizes, are closed, are their own mirror images, and collide where they are."""

import cv2
import mujoco
import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from amt.data.objects import Mesh, object_surface, sample_mesh
from amt.data.synthetic import models, shapes
from amt.data.ycb import OBJECTS

PROTRUDES = (11, 14)  # handles: their primitives are the bodies alone


def surface(ycb_id):
    shape = models.model(ycb_id).shape
    return sample_mesh(Mesh(shape.vertices, shape.faces), 0.003).points


@pytest.mark.parametrize("ycb_id", OBJECTS)
def test_the_sizes_are_those_of_the_table(ycb_id):
    vertices, half = models.model(ycb_id).shape.vertices, OBJECTS[ycb_id].primitive.half
    if ycb_id not in PROTRUDES:
        np.testing.assert_allclose(np.ptp(vertices, axis=0), 2 * half, atol=0.009)
        np.testing.assert_allclose(vertices.max(0) + vertices.min(0), 0, atol=0.006)
    assert np.ptp(vertices[:, 2]) == pytest.approx(2 * half[2], abs=0.005)


@pytest.mark.parametrize("ycb_id", OBJECTS)
def test_the_faces_look_outwards(ycb_id):
    shape = models.model(ycb_id).shape
    for piece, faces in zip(shape._vertices, shape._faces, strict=True):
        assert np.isfinite(piece).all() and faces.max() < len(piece)
    assert trimesh.Trimesh(shape.vertices, shape.faces, process=False).volume > 1e-5  # 10 ml


@pytest.mark.parametrize("ycb_id", OBJECTS)
def test_a_model_is_its_own_mirror_image(ycb_id):
    points = surface(ycb_id)
    mirrored = points.copy()
    mirrored[:, models.MIRROR_AXIS[ycb_id]] *= -1
    assert KDTree(points).query(mirrored)[0].max() < 0.005


@pytest.mark.parametrize("ycb_id", OBJECTS)
def test_the_parts_that_collide_are_where_the_mesh_is(ycb_id):
    """Rays of MuJoCo from outside meet the parts where the nearest samples of the mesh are, nearly everywhere."""
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name="o")
    shapes.add_parts(spec, body, models.model(ycb_id).shape.parts, models.MASSES[ycb_id])
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert model.body("o").mass[0] == pytest.approx(models.MASSES[ycb_id])
    tree, rng = KDTree(surface(ycb_id)), np.random.default_rng(0)
    hits, points = np.zeros(1, np.int32), []
    half = OBJECTS[ycb_id].primitive.half
    for _ in range(300):
        start = rng.normal(size=3)
        start = 0.5 * start / np.linalg.norm(start)
        aim = rng.uniform(-0.9, 0.9, 3) * half - start
        far = mujoco.mj_ray(model, data, start, aim, None, 1, -1, hits)
        if far >= 0:
            points.append(start + far * aim)
    assert len(points) > 30
    assert np.percentile(tree.query(points)[0], 90) < 0.005


def test_models_are_written_as_DexYCB_has_them(tmp_path):
    models.write_models(tmp_path / "models")
    object_surface.cache_clear()
    for ycb_id, entry in OBJECTS.items():
        folder = tmp_path / "models" / entry.name
        names = {"points.xyz", "textured_simple.obj", "textured_simple.obj.mtl", "texture_map.png"}
        assert {p.name for p in folder.iterdir()} == names
        points, shape = object_surface(tmp_path, ycb_id).points, models.model(ycb_id).shape
        np.testing.assert_allclose(np.ptp(points, axis=0), np.ptp(shape.vertices, axis=0), atol=1e-5)
        loaded = trimesh.load(folder / "textured_simple.obj", process=False)
        assert loaded.visual.uv.shape[1] == 2 and len(loaded.faces) == len(shape.faces)
        assert cv2.imread(str(folder / "texture_map.png")).shape == (512, 512, 3)
    object_surface.cache_clear()
