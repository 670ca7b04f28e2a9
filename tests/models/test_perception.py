"""The whole model: shapes, what it must see, and how it depends on K."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.augmentation import AugmentConfig, augment
from amt.geometry import cameras
from amt.hand import skeleton
from amt.models import factory
from amt.models.encoder import PatchEncoder
from amt.models.hand import CoarseHand, coordinate_frames, multi_coordinates
from amt.models.keypoints import cell_centers, expected_place, to_camera
from amt.models.layers import BlockConfig
from amt.models.objects import pooled
from configs import base, demo
from tests.samples import make_batch

HAND = hand_model.load()
CONFIG = demo.get_config("tiny")
SIZE = CONFIG.data.image_size


def shapes(tree):
    return jax.tree.map(lambda x: x.shape, tree)


@pytest.mark.parametrize("config", [base.get_config(), demo.get_config(), CONFIG], ids=["base", "demo", "tiny"])
def test_every_output_has_its_shape(config):
    """Traced, not computed: the full sizes need no memory."""
    b, size, frame_size = 3, config.data.image_size, config.finder.frame_size
    model = factory.build(config.model, config.finder, size)
    inputs = (
        jax.ShapeDtypeStruct((b, frame_size, frame_size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((b, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((b, 3, 3), jnp.float32),
    )
    (found, out), _ = jax.eval_shape(lambda *x: model.init_with_output(jax.random.key(0), *x, HAND), *inputs)
    assert {x.dtype.name for x in jax.tree.leaves((found, out))} == {"float32"}
    grid, cells = size // 16, size // 4
    d, q, c = config.model.hidden_dim, config.model.num_object_queries, config.model.num_contact_queries
    n = frame_size // 4
    assert vars(shapes(found)) == {
        "uv": (b, 21, 2),
        "left": (b,),
        "presence": (b,),
        "log_heatmaps": (b, 21, n, n),
    }
    assert vars(shapes(out.keypoints)) == {
        "uv": (b, 21, 2),
        "depth": (b, 21),
        "scale": (b,),
        "log_heatmaps": (b, 21, cells, cells),
    }
    assert out.keypoints_3d.shape == out.joints.shape == (b, 21, 3) and grid >= 2
    assert vars(shapes(out.coarse)) == {
        "rotations": (b, 16, 3, 3),
        "betas": (b, 10),
        "transl": (b, 3),
        "joints": (b, 21, 3),
        "vertices": (b, 778, 3),
        "T_joint": (b, 16, 4, 4),
    }
    assert vars(shapes(out.hand)) == {
        "tokens": (b, 21, d),
        "joints": (b, 21, 3),
        "confidence": (b, 21),
        "betas": (b, 10),
    }
    assert vars(shapes(out.objects)) == {
        "position": (b, q, 3),
        "rotation": (b, q, 3, 3),
        "confidence": (b, q),
        "classes": (b, q, config.model.num_classes),
        "tokens": (b, q, d),
        "log_heatmaps": (b, q, cells, cells),
    }
    assert vars(shapes(out.contacts)) == {
        "points": (b, c, 3),
        "confidence": (b, c),
        "kind": (b, c, 4),
        "force": (b, c, 3),
        "tokens": (b, c, config.model.contact_hidden_dim),
    }


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_the_encoder_has_the_interface_of_the_design(depth):
    encoder = PatchEncoder(32, depth, BlockConfig(2, 32), (8, 16), fine_dim=8)
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    out, _ = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x), image)
    assert out.cls_token.shape == (2, 32) and out.patch_tokens.shape == (2, 16, 32)
    assert out.patch_grid.shape == (2, 4, 4, 32) and out.fine.shape == (2, 16, 16, 8)
    assert out.multi_scale.shape == (2, 16, 8 * min(depth, 4))


def test_shuffled_patches_are_seen():
    """With its position embedding the encoder tells places apart, without it a shuffle only moves the tokens.

    One patch of another colour moves, never to the rim, so that what it is next to does not change: with the
    embedding at zero the pooled token cannot tell.
    """
    encoder = PatchEncoder(32, 1, BlockConfig(2, 32), (8, 16), fine_dim=8)
    rng = np.random.default_rng(0)
    patch = rng.integers(0, 256, (1, 1, 1, 3))
    odd = rng.integers(0, 256, (1, 1, 1, 3))
    patches = np.broadcast_to(patch, (1, 6, 6, 3)).copy()
    moved = patches.copy()
    patches[0, 1, 1], moved[0, 4, 3] = odd, odd  # both away from the rim: every neighbourhood is the same

    def picture(x):
        return np.kron(x[0], np.ones((16, 16, 1))).astype(np.uint8)[None]

    variables = encoder.init(jax.random.key(0), picture(patches))
    run = jax.jit(lambda v, x: encoder.apply(v, x).cls_token)
    positions = variables["params"]["PositionEmbedding2D_0"]
    blind = {**variables["params"], "PositionEmbedding2D_0": jax.tree.map(jnp.zeros_like, positions)}
    for params, differs in ((variables["params"], True), (blind, False)):
        first, second = (run({"params": params}, picture(x)) for x in (patches, moved))
        gap = float(jnp.abs(first - second).max() / jnp.abs(first).max())
        assert (gap > 1e-3) == differs, gap


@pytest.fixture(scope="module")
def model():
    return factory.build(CONFIG.model, CONFIG.finder, SIZE)


@pytest.fixture(scope="module")
def variables(model, batch):
    """Random numbers, larger than those of `init`: heads that start near zero would hide what they see."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch.frame, batch.image, batch.K, HAND)
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        width = x.shape[0] ** -0.5 if name == "kernel" else 0.05
        return (rng.normal(0, width, x.shape) + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def perceive(model, variables):
    run = jax.jit(lambda image, K: model.apply(variables, image, K, HAND, method="perceive"))
    return lambda batch: run(batch.image, batch.K)


@pytest.fixture(scope="module")
def batch():
    return make_batch(4)


def test_a_longer_focal_length_moves_the_hand_away_and_nothing_else(perceive, batch):
    """The picture is the same: keypoints stay, the wrist is twice as far on the same ray, the hand is the same."""
    far = batch.replace(K=batch.K * np.float32([[2, 1, 1], [1, 2, 1], [1, 1, 1]]))
    near_out, far_out = perceive(batch), perceive(far)
    for name in ("uv", "depth", "scale"):
        np.testing.assert_allclose(getattr(far_out.keypoints, name), getattr(near_out.keypoints, name), rtol=1e-5)
    near_root, far_root = near_out.coarse.joints[:, 0], far_out.coarse.joints[:, 0]
    np.testing.assert_allclose(far_root[:, 2], 2 * near_root[:, 2], rtol=1e-5)
    np.testing.assert_allclose(far_root[:, :2], near_root[:, :2], atol=1e-5)
    relative = [out.coarse.joints - out.coarse.joints[:, :1] for out in (near_out, far_out)]
    np.testing.assert_allclose(relative[1], relative[0], atol=1e-6)  # float32 at a metre


def test_scaling_the_image_and_k_together_leaves_metres_as_they_are(batch):
    """The same output of the network (crop sides), read in a crop of three times the pixels: less than 0.1 mm."""
    rng = np.random.default_rng(3)
    uv, depth = rng.uniform(0, 1, (4, 21, 2)).astype(np.float32), rng.normal(0, 0.3, (4, 21)).astype(np.float32)
    scale = rng.uniform(0.15, 0.4, 4).astype(np.float32)
    size, k = batch.image.shape[1], 3
    # Pixel centres are integers: the middle of a pixel k times as small lies (k - 1) / 2 further.
    larger = batch.K * np.float32([[k, 1, k], [1, k, k], [1, 1, 1]])
    larger[:, :2, 2] += (k - 1) / 2
    points = np.asarray(to_camera(uv, depth, scale, batch.K, size))
    np.testing.assert_allclose(to_camera(uv, depth, scale, larger, k * size), points, atol=1e-4)


def test_no_label_reaches_the_prediction(model, variables, batch):
    """The same pictures with other labels, with noise on the refiner's points: bit for bit the same."""
    noisy = AugmentConfig(SIZE, 1.0, 0.0, 0.0, joint_noise=0.005, joint_noise_share=1.0, pixel_noise=2.0, hue=0.1)
    rng = np.random.default_rng(0)

    def other(name, x):
        if x is None or name in ("image", "frame", "K"):
            return x
        return (
            rng.integers(0, 2, x.shape).astype(x.dtype)
            if x.dtype.kind in "bi"
            else x + rng.normal(size=x.shape).astype(x.dtype)
        )

    @jax.jit
    def run(batch):
        batch = augment(jax.random.key(0), batch, noisy)
        return model.apply(variables, batch.image, batch.K, HAND, batch.point_noise, method="perceive")

    changed = batch.replace(**{name: other(name, x) for name, x in vars(batch).items()})
    jax.tree.map(np.testing.assert_array_equal, run(batch), run(changed))


def test_crops_do_not_see_each_other(perceive, batch):
    order = np.array([2, 0, 3, 1])
    out = perceive(batch)
    shuffled = perceive(jax.tree.map(lambda x: x[order], batch))
    for ours, theirs in zip(jax.tree.leaves(shuffled), jax.tree.leaves(out), strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs)[order], atol=2e-4)


def test_different_pictures_give_different_hands(perceive, batch):
    joints = np.asarray(perceive(batch).joints)
    assert np.abs(joints[0] - joints[1]).max() > 1e-3


def test_the_coarse_hand_is_what_its_parameters_give(perceive, batch):
    coarse = perceive(batch).coarse
    joints, vertices, _ = HAND.from_rotations(coarse.rotations, coarse.betas, coarse.transl)
    np.testing.assert_allclose(joints, coarse.joints, atol=1e-5)
    np.testing.assert_allclose(vertices, coarse.vertices, atol=1e-5)
    identity = np.einsum("bjik,bjil->bjkl", coarse.rotations, coarse.rotations)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-5)


def test_the_wrist_keypoint_projects_where_the_heatmap_says(perceive, batch):
    out = perceive(batch)
    uvw = np.einsum("bij,bnj->bni", batch.K, out.keypoints_3d)
    pixels = uvw[..., :2] / uvw[..., 2:]
    np.testing.assert_allclose(pixels, out.keypoints.uv * SIZE - 0.5, atol=1e-2)
    np.testing.assert_allclose(out.coarse.joints[:, 0], out.keypoints_3d[:, 0], atol=1e-5)


def test_metric_depth_is_scale_times_focal_length_in_crop_sides():
    K = np.float32([[[300, 0, 48], [0, 300, 40], [0, 0, 1]]])
    uv = np.float32([[[0.5, 0.5], [0.25, 0.75]]])
    points = to_camera(uv, np.float32([[0, 0.5]]), np.float32([0.2]), K, 96)
    z = np.array([0.2 * 300 / 96, 0.2 * 300 / 96 + 0.1])
    expected = np.stack([(np.array([47.5, 23.5]) - 48) / 300 * z, (np.array([47.5, 71.5]) - 40) / 300 * z, z], -1)
    np.testing.assert_allclose(points[0], expected, atol=1e-6)


def test_heatmap_cells_cover_the_crop_and_a_margin():
    centers = np.asarray(cell_centers(24))
    assert centers[0] == pytest.approx(-0.1 + 1.2 / 48) and centers[-1] == pytest.approx(1.1 - 1.2 / 48)


def test_soft_argmax_is_the_mean_place():
    p = np.random.default_rng(0).dirichlet(np.ones(15), 4).reshape(2, 2, 3, 5).astype(np.float32)
    rows, columns = np.asarray(cell_centers(3)), np.asarray(cell_centers(5))
    v, u = (np.average(np.broadcast_to(x, p.shape), (2, 3), p) for x in (rows[:, None], columns))
    np.testing.assert_allclose(expected_place(p), np.stack([u, v], -1), atol=1e-6)


def test_an_object_is_placed_by_its_heatmap(model, variables, batch):
    """The mean of a uniform heatmap is the crop's middle; cells that differ move objects across the view."""

    def perceive(times):
        changed = jax.tree.map(lambda x: x, variables)
        decoder = changed["params"]["perception"]["object_decoder"]
        for name, factor in (("cells", times), ("there", 0.0)):
            decoder[name] = jax.tree.map(lambda x, f=factor: f * x, decoder[name])
        return model.apply(changed, batch.image, batch.K, HAND, method="perceive").objects

    uniform, peaked = perceive(0.0), perceive(1.0)
    np.testing.assert_allclose(uniform.log_heatmaps, -np.log((SIZE // 4) ** 2), rtol=1e-4)
    p = np.exp(np.asarray(peaked.log_heatmaps, np.float64))
    np.testing.assert_allclose(p.sum((2, 3)), 1, rtol=1e-4)
    shift = SIZE * (np.asarray(expected_place(p.astype(np.float32))) - 0.5)
    moved = cameras.project(peaked.position, batch.K) - cameras.project(uniform.position, batch.K)
    assert np.abs(shift).max() > 1 and np.corrcoef(shift.ravel(), np.asarray(moved).ravel())[0, 1] > 0.75


def test_tokens_are_pooled_where_a_heatmap_lies():
    """All of it on the four by four cells of one token gives that token; half of it on another's, their mean."""
    grid = np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype(np.float32)
    p = np.zeros((1, 2, 8, 12), np.float32)
    p[0, 0, 5, 8:12] = 0.25
    p[0, 1, 0, 0] = p[0, 1, 7, 4] = 0.5
    expected = [[grid[0, 1, 2], (grid[0, 0, 0] + grid[0, 1, 1]) / 2]]
    np.testing.assert_allclose(pooled(p, grid), expected, atol=1e-6)


def test_vertices_are_seen_from_22_frames():
    """Each frame's coordinates against its own matrix; frames turn and move with the hand."""
    rng = np.random.default_rng(0)
    R = np.asarray(HAND.rotations(rng.normal(0, 0.5, (1, 48)).astype(np.float32)))
    joints, vertices, T = HAND.from_rotations(R, np.zeros((1, 10), np.float32), np.float32([[0.1, 0, 0.5]]))
    hand = CoarseHand(R, np.zeros((1, 10)), np.zeros((1, 3)), joints, vertices, T)
    seen = np.asarray(multi_coordinates(hand, 7))
    assert seen.shape == (1, 112, 67)
    np.testing.assert_allclose(seen[0, :, 66], np.arange(0, 778, 7) / 778, rtol=1e-6)
    local = seen[0, :, :66].reshape(112, 22, 3)
    picked = np.asarray(vertices)[0, ::7]
    for f in range(16):
        homogeneous = np.concatenate([picked, np.ones((112, 1))], 1) @ np.linalg.inv(T[0, f]).T
        np.testing.assert_allclose(local[:, f], 10 * homogeneous[:, :3], atol=1e-4)
    frames, origins = coordinate_frames(hand)
    for k, (tip, parent) in enumerate(zip(skeleton.FINGERTIPS_21, skeleton.TIP_PARENTS, strict=True)):
        np.testing.assert_allclose(origins[0, 16 + k], joints[0, tip])
        np.testing.assert_allclose(frames[0, 16 + k], T[0, parent, :3, :3])
    np.testing.assert_allclose(origins[0, 21], np.asarray(joints)[0, [0, 5, 9, 13, 17]].mean(0), atol=1e-6)


def test_found_joints_are_the_means_of_their_heatmaps(model, variables, batch):
    found = jax.jit(lambda x: model.apply(variables, x, method="find"))(batch.frame)
    p = np.exp(np.asarray(found.log_heatmaps, np.float64))
    np.testing.assert_allclose(p.sum((2, 3)), 1, rtol=1e-4)
    centers = (np.arange(p.shape[-1]) + 0.5) / p.shape[-1]
    np.testing.assert_allclose(found.uv[..., 0], (p.sum(2) * centers).sum(-1), atol=1e-5)
    np.testing.assert_allclose(found.uv[..., 1], (p.sum(3) * centers).sum(-1), atol=1e-5)
