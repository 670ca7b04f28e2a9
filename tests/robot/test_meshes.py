"""Menagerie's meshes are only seen. The files here are tetrahedra of the right names."""

import mujoco
import numpy as np
import pytest

from amt.errors import UserError
from amt.robot import build_scene, load_robot
from amt.robot.meshes import looks

CORNERS = 0.02 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def _write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".obj":
        lines = [f"v {x} {y} {z}" for x, y, z in CORNERS] + [f"f {a} {b} {c}" for a, b, c in FACES + 1]
        path.write_text("\n".join(lines) + "\n")
    else:
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("spare", "<u2")])
        triangles = np.zeros(len(FACES), record)
        triangles["corners"] = CORNERS[FACES]
        path.write_bytes(bytes(80) + np.uint32(len(FACES)).tobytes() + triangles.tobytes())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mujoco_menagerie")
    for side in ("right", "left"):
        for look in looks(side):
            _write(folder / look.file)
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
def test_meshes_are_seen_and_primitives_collide(side, checkout):
    robot = load_robot(side)
    plain, model = build_scene(robot=robot).compile(), build_scene(robot=robot, meshes=checkout).compile()
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    collides = (model.geom_contype | model.geom_conaffinity) != 0
    assert is_mesh.sum() == 20 + 21  # visual geoms of ur5e.xml and of right_hand.xml or left_hand.xml
    assert not (is_mesh & collides).any()
    robots = model.geom_bodyid > 0
    assert (model.geom_group[robots & collides] == 3).all() and (model.geom_group[is_mesh] == 2).all()
    # What moves and touches is what it was.
    touching = (plain.geom_contype | plain.geom_conaffinity) != 0
    for name in ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_bodyid"):
        np.testing.assert_array_equal(getattr(model, name)[collides], getattr(plain, name)[touching])
    for name in ("body_mass", "body_inertia", "body_ipos"):
        np.testing.assert_array_equal(getattr(model, name), getattr(plain, name))
    assert set(model.geom_bodyid[is_mesh]) == set(range(1, model.nbody))


def test_the_thumbs_end_is_seen_where_it_collides(checkout):
    """Menagerie draws the round end around its own origin, 42.3 mm along the last link."""
    model = build_scene(meshes=checkout).compile()
    body = model.body("th_tip").id
    seen = (model.geom_bodyid == body) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    vertices = model.mesh_vert @ _matrix(model.geom_quat[seen][0]).T + model.geom_pos[seen][0]
    mesh = model.geom_dataid[seen][0]
    start = model.mesh_vertadr[mesh]
    found = vertices[start : start + model.mesh_vertnum[mesh]]
    wanted = CORNERS + [0, 0, 0.0423]
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(wanted, axis=0), atol=1e-6)


def _matrix(quat):
    R = np.zeros(9)
    mujoco.mju_quat2Mat(R, quat)
    return R.reshape(3, 3)


def test_missing_and_broken_files_are_named(checkout, tmp_path):
    with pytest.raises(UserError, match=r"universal_robots_ur5e/assets/base_0.obj is missing.*mujoco_menagerie"):
        build_scene(meshes=tmp_path)
    for look in looks("right"):
        _write(tmp_path / look.file)
    (tmp_path / "wonik_allegro/assets/link_13.0.stl").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"cannot read the meshes of .*link_13.0.stl"):
        build_scene(meshes=tmp_path)
