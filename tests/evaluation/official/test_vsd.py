"""Depth images of boxes against rays through every pixel, and VSD against the toolkit's definition on those."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.data.objects import primitive_mesh
from amt.data.ycb import OBJECTS
from amt.evaluation.official.vsd import draw, vsd

WIDTH, HEIGHT = 160, 120
K = np.array([[150.0, 0, 80.3], [0, 152.0, 59.1], [0, 0, 1]])
BOX = OBJECTS[2].primitive
HALF = BOX.half.astype(float) * 1000
MESH = primitive_mesh(BOX)
MESH = MESH._replace(vertices=MESH.vertices * 1000)
WHOLE = (slice(0, HEIGHT), slice(0, WIDTH))


def pose(seed, t=(10, -5, 700), turn=0.0):
    R = Rotation.random(random_state=seed) * Rotation.from_rotvec([turn, 0, 0])
    return np.concatenate([R.as_matrix(), np.reshape(t, (3, 1)).astype(float)], -1)


def cast(T):
    """Depth of the box along rays through the middle of pixels, by its three slabs."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    origin, direction = -T[:, 3] @ T[:, :3], rays @ T[:, :3]
    ends = np.stack([(sign * HALF - origin) / direction for sign in (-1, 1)])
    near, far = ends.min(0).max(-1), ends.max(0).min(-1)
    return np.where(near <= far, near, 0.0)


def distance(depth):
    """misc.depth_im_to_dist_im."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.sqrt(((x - K[0, 2]) * depth / K[0, 0]) ** 2 + ((y - K[1, 2]) * depth / K[1, 1]) ** 2 + depth**2)


@pytest.mark.parametrize("t", [(10, -5, 700), (-330, 100, 600), (0, 0, 320)])
def test_depth_images_are_those_of_rays(t):
    for seed in range(3):
        T = pose(seed, t)
        found = draw(MESH.vertices @ T[:, :3].T + T[:, 3], MESH.faces, K, WHOLE)
        expected = cast(T)
        same = (found > 0) == (expected > 0)
        assert (~same).sum() <= 2  # a ray along the silhouette, within rounding
        both = (found > 0) & (expected > 0)
        assert both.sum() > 300
        np.testing.assert_allclose(found[both], expected[both], rtol=1e-9)


@pytest.mark.parametrize("case", ["near", "hidden", "unknown depth", "outside"])
def test_errors_are_those_of_the_definition(case):
    truth, diameter = pose(0), 2 * np.linalg.norm(HALF)
    ours = pose(0, (25, 3, 712), 0.2)
    scene = cast(truth)
    scene[scene == 0] = 900
    if case == "hidden":
        scene[:, 80:] = 400
    if case == "unknown depth":
        scene[:, 70:] = 0
    if case == "outside":
        ours, truth = pose(0, (9000, 0, 700)), pose(0, (0, 9000, 700))
    depths = [cast(T) for T in (ours, truth)]
    seen, est, gt = (distance(d) for d in (scene, *depths))
    visible_gt = ((gt - seen <= 15) | (seen == 0)) & (gt > 0)
    visible_est = (((est - seen <= 15) | (seen == 0)) & (est > 0)) | (visible_gt & (est > 0))
    both, either = visible_gt & visible_est, visible_gt | visible_est
    gaps = np.abs(gt[both] - est[both]) / diameter
    expected = [
        ((gaps >= tau).sum() + either.sum() - both.sum()) / either.sum() if either.any() else 1.0
        for tau in np.arange(0.05, 0.51, 0.05)
    ]
    found = vsd(ours, truth, MESH, diameter, scene, K)
    np.testing.assert_allclose(found, expected, atol=3 / max(either.sum(), 1))
    if case == "near":
        assert 0.05 < found[1] < 0.6
        assert (vsd(truth, truth, MESH, diameter, scene, K) == 0).all()
