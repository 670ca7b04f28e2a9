"""Augmentation on the device: pixels, 2D, 3D, object poses and K stay one picture; every part can be switched off."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt.data import pixels
from amt.data.augmentation import AugmentConfig, augment, jitter_times
from amt.data.pipeline import stack
from amt.data.transforms import network_sample
from amt.errors import UserError
from amt.models.perception import disturbed
from amt.structs import Batch
from configs import base
from tests.samples import BLACK, changed, make_sample

SIZE, CONTEXT = 96, 1.25
STORED = 120  # SIZE * CONTEXT
OFF = AugmentConfig(image_size=SIZE, context=CONTEXT, min_visible_share=0.0, wrong_side_share=0.0)
ALL = dict(base.augmentation()) | {"box_shift": 0.06, "box_scale": 0.09, "box_roll": 0.25, "rough_share": 0.1}
TURNED = {"image", "R_crop_camera", "joints_3d", "joints_2d", "object_pose", "contact_points", "contact_force"}
GEOMETRY = {k: v for k, v in ALL.items() if not k.startswith(("bright", "contr", "satur", "hue", "blur"))}
LABELS = ("K", "R_crop_camera", "joints_3d", "joints_2d", "object_pose", "hand_pose", "contact_points", "contact_force")


def config(**fields) -> AugmentConfig:
    return AugmentConfig(**vars(OFF) | fields)


def stored(samples) -> Batch:
    """As they are read for `augment=device`: the crop with its surroundings, without jitter."""
    read = changed(image_size=STORED, crop_margin=1.35 * CONTEXT, frame_size=STORED)
    return jax.tree.map(jnp.asarray, stack([network_sample(sample, None, read) for sample in samples]))


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    batch = stored([make_sample(seed, contacts=True) for seed in range(6)])
    noise = [cv2.GaussianBlur(rng.integers(0, 256, (STORED, STORED, 3), np.uint8), (0, 0), 3) for _ in range(6)]
    noise = jnp.asarray(np.clip((np.stack(noise) - 127.0) * 4 + 127, 0, 255), jnp.uint8)
    return batch.replace(image=noise, frame=noise)


def run(key, batch, settings) -> Batch:
    """Not jitted: its operations are compiled once for all settings, not once for each of them."""
    return augment(jax.random.key(key), batch, settings)


def project(points, K):
    uvw = np.einsum("...ij,...nj->...ni", np.asarray(K, np.float64), np.asarray(points, np.float64))
    return uvw[..., :2] / uvw[..., 2:]


def test_labels_project_to_their_pixels_over_ten_thousand_draws():
    """DESIGN.md section 6: < 0.01 px, here with the crop of the full model and everything on at once."""
    count, side = 10_000, 280
    rng = np.random.default_rng(1)
    focal = rng.uniform(400, 1600, count)
    K = np.zeros((count, 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, :2, 2], K[:, 2, 2] = focal, focal, (side - 1) / 2, 1
    depth = rng.uniform(0.3, 1.2, (count, 1))
    pixel = rng.uniform(0, side, (count, 21, 2))
    z = depth + rng.normal(0, 0.04, (count, 21))
    joints = np.concatenate([(pixel - (side - 1) / 2) / focal[:, None, None] * z[..., None], z[..., None]], -1)
    objects = np.concatenate([Rotation.random(count, rng).as_matrix(), joints[:, 3, :, None]], -1)[:, None]
    f32, yes = jnp.float32, jnp.ones(count, bool)
    fields = dict.fromkeys(Batch.__dataclass_fields__) | {
        "K": f32(K),
        "R_crop_camera": f32(Rotation.random(count, rng).as_matrix()),
        "joints_3d": f32(joints),
        "joints_2d": f32(project(joints, K)),
        "object_pose": f32(objects),
        "object_valid": yes[:, None],
        "hand_pose": jnp.zeros((count, 48)),
        "contact_points": f32(joints[:, [8, 12]]),
        "contact_force": f32(rng.normal(0, 3, (count, 2, 3))),
        "contact_valid": yes[:, None],
        **dict.fromkeys(("joints_valid", "hand_visible", "shows_left", "hand_pose_valid"), yes),
    }
    settings = AugmentConfig(224, CONTEXT, 0.6, 0.3, **ALL)

    @jax.jit
    def labels(key):  # the image is not asked for, so it is not computed
        image = jnp.zeros((count, side, side, 3), jnp.uint8)
        out = augment(key, Batch(**fields | {"image": image}), settings)
        return out.joints_3d, out.joints_2d, out.K, out.R_crop_camera, out.object_pose, out.contact_points

    joints_3d, joints_2d, new_K, R, object_pose, contact_points = labels(jax.random.key(3))
    error = np.linalg.norm(project(joints_3d, new_K) - joints_2d, axis=-1)
    assert error.max() < 0.01
    contact_error = np.linalg.norm(project(contact_points, new_K) - joints_2d[:, [8, 12]], axis=-1)
    assert contact_error.max() < 0.01  # contacts at joints stay there in the picture
    assert np.abs(new_K - f32(K)).max() > 10 and np.ptp(joints_2d) > 300  # they did move
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-5)
    np.testing.assert_allclose(object_pose[:, 0, :, 3], joints_3d[:, 3], atol=1e-6)  # the object stays at the joint
    np.testing.assert_allclose(
        np.linalg.norm(joints_3d, axis=-1), np.linalg.norm(joints, axis=-1), rtol=1e-5
    )  # turned about the camera: nothing comes nearer


@pytest.mark.parametrize("part", ["crop", "frame"])
def test_a_dot_on_a_joint_is_found_where_the_label_says(part):
    """Independent of the geometry: the picture is drawn before it is augmented."""
    settings = config(**GEOMETRY | {"rough_share": 0.0})
    found = 0
    for seed in range(3):
        dot = (5 * seed) % 21
        sample = make_sample(seed, distance=0.4, dot=dot)
        batches = [stored([{**sample, "color": color}] * 6) for color in (sample["color"], BLACK)]
        drawn, black = (run(seed, b, settings) for b in batches)
        name = "image" if part == "crop" else "frame"
        difference = np.asarray(getattr(drawn, name), float) - np.asarray(getattr(black, name), float)
        for k, picture in enumerate(difference.mean(-1)):
            truth = drawn.joints_2d[k, dot] if part == "crop" else drawn.frame_joints[k, dot] * STORED - 0.5
            weight = picture * (picture > 100)
            if weight.sum() < 500 or (truth < 7).any() or (truth > len(picture) - 8).any():
                continue
            ys, xs = np.mgrid[: len(picture), : len(picture)]
            center = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
            found += 1
            np.testing.assert_allclose(center, truth, atol=0.6)  # JPEG, two linear samplings
    assert found >= 6


def test_switched_off_nothing_changes(batch):
    whole = batch.replace(image=batch.image[:, :SIZE, :SIZE])  # any images of the network's side
    out = run(0, whole, config(context=1.0))
    jax.tree.map(np.testing.assert_array_equal, out, whole)


def test_without_jitter_the_context_is_cut_off(batch):
    """Then the crop is the middle of what was read, pixel for pixel."""
    out = run(0, batch, OFF)
    margin = (STORED - SIZE) // 2
    middle = batch.image[:, margin:-margin, margin:-margin]
    assert np.abs(np.asarray(out.image, int) - np.asarray(middle, int)).max() <= 1
    np.testing.assert_allclose(out.joints_2d, batch.joints_2d - margin, atol=1e-3)
    np.testing.assert_allclose(out.joints_3d, batch.joints_3d, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "moved"),
    [
        ({"box_shift": 0.06}, TURNED),
        ({"box_roll": 0.3}, TURNED),
        ({"box_scale": 0.1}, {"image", "K", "joints_2d"}),
        (
            {"rotation": 0.17, "rotation_share": 1.0},
            TURNED,
        ),
        (
            {"translation": 0.02, "translation_share": 1.0},
            TURNED,
        ),
        ({"scale": 0.1, "scale_share": 1.0}, {"image", "K", "joints_2d"}),
        ({"window_scale": 0.2}, {"image", "K", "joints_2d"}),
        ({"window_ratio": 0.1}, {"image", "K", "joints_2d"}),
        ({"brightness": 0.3}, {"image"}),
        ({"contrast": 0.3}, {"image"}),
        ({"saturation": 0.3}, {"image"}),
        ({"hue": 0.1}, {"image"}),
        ({"blur_size": 5, "blur_share": 1.0}, {"image"}),
        ({"rotation": 0.17}, set()),  # a share of 0 is off too
        ({"joint_noise": 0.005, "joint_noise_share": 1.0}, set()),
        ({"pixel_noise": 2.0}, set()),
    ],
)
def test_each_alone_changes_what_it_should(fields, moved, batch):
    plain, out = run(0, batch, OFF), run(0, batch, config(**fields))
    changed_fields = {
        name
        for name in ("image", *LABELS)
        if np.abs(np.asarray(getattr(out, name), float) - np.asarray(getattr(plain, name), float)).max() > 1e-4
    }
    assert changed_fields == moved
    assert (out.point_noise is not None) == bool({"joint_noise", "pixel_noise"} & set(fields))
    if "R_crop_camera" in moved:  # labels turn with the camera
        turn = np.einsum("bij,bkj->bik", out.R_crop_camera, plain.R_crop_camera)
        angle = Rotation.from_matrix(np.asarray(turn)).magnitude()
        assert (angle > 0).all() and angle.max() < (0.18 if "rotation" in fields else 1.2)
        expected = np.einsum("bij,bnj->bni", turn, plain.joints_3d)
        np.testing.assert_allclose(out.joints_3d, expected, atol=1e-5)


def test_a_translation_moves_the_hand_at_most_so_far(batch):
    out = run(4, batch, config(translation=0.02, translation_share=1.0))
    moved = np.linalg.norm(out.joints_3d.mean(1) - batch.joints_3d.mean(1), axis=-1)
    assert (moved < 0.02 * np.sqrt(2) + 1e-4).all() and moved.max() > 0.01


def test_noise_on_the_refiners_points_has_its_size(batch):
    many = jax.tree.map(lambda x: jnp.tile(x[:1], (500,) + (1,) * (x.ndim - 1)), batch.replace(frame=None))

    @functools.partial(jax.jit, static_argnums=0)
    def points(settings):  # the image is not asked for, so it is not computed
        out = augment(jax.random.key(0), many, settings)
        return out.joints_3d, out.K, out.joints_2d, out.point_noise

    *_, noise = points(config(joint_noise=0.005, joint_noise_share=1.0))
    noise, none = noise[..., :3], noise[..., 3:]
    assert not none.any()
    assert np.asarray(noise).std() == pytest.approx(0.005, rel=0.03)
    joints_3d, K, joints_2d, noise = points(config(pixel_noise=2.0))
    pixel = project(disturbed(joints_3d, noise, K), K) - joints_2d
    assert np.asarray(pixel).std() == pytest.approx(2.0, rel=0.03)


def test_the_wrong_side_is_the_mirror_image_and_teaches_only_that(batch):
    margin = (STORED - SIZE) // 2
    out = run(0, batch, config(wrong_side_share=1.0))
    middle = np.asarray(batch.image, int)[:, margin:-margin, margin:-margin]
    assert np.abs(np.asarray(out.image, int) - middle[:, :, ::-1]).max() <= 1
    np.testing.assert_allclose(project(out.joints_3d, out.K), out.joints_2d, atol=0.01)
    np.testing.assert_allclose(out.joints_2d[..., 0], SIZE - 1 - (batch.joints_2d[..., 0] - margin), atol=1e-3)
    assert out.shows_left.all() and out.hand_visible.all()
    assert not (out.joints_valid.any() or out.hand_pose_valid.any() or out.object_valid.any())
    assert not out.contact_valid.any()


def test_contacts_stay_on_the_joints_and_forces_turn_like_arrows_between_points(batch):
    """Whatever moves joints and objects moves the contact points; a force is the difference of two such points."""
    tips = [4, 8, 12, 16]
    for settings in (config(**GEOMETRY), config(wrong_side_share=1.0, **GEOMETRY)):
        out = run(3, batch, settings)
        np.testing.assert_allclose(out.contact_points[:, :4], out.joints_3d[:, tips], atol=1e-6)
        to = batch.joints_3d.at[:, tips].add(batch.contact_force[:, :4] / 100)  # the arrow's end, as a joint
        ends = run(3, batch.replace(joints_3d=to), config(**vars(settings) | {"translation": 0.0})).joints_3d[:, tips]
        starts = run(3, batch, config(**vars(settings) | {"translation": 0.0}))
        arrows = 100 * (ends - starts.joints_3d[:, tips])
        np.testing.assert_allclose(starts.contact_force[:, :4], arrows, atol=1e-3)
        np.testing.assert_array_equal(out.contact_kind, batch.contact_kind)
        assert out.contact_known.all()


def test_a_hand_outside_the_crop_is_not_learned_from(batch):
    far = batch.replace(joints_2d=batch.joints_2d + 500.0)
    out = run(0, far, config(min_visible_share=0.6))
    assert not (out.joints_valid.any() or out.hand_visible.any() or out.object_valid.any())
    assert batch.contact_valid.any() and not out.contact_valid.any()
    assert run(0, batch, config(min_visible_share=0.6)).joints_valid.all()


def test_the_key_decides_and_samples_differ(batch):
    same = jax.tree.map(lambda x: jnp.repeat(x[:1], 6, 0), batch)
    first, again, other = (run(key, same, config(**ALL)) for key in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.abs(first.K - other.K).max() > 0.1
    assert len({np.asarray(K).tobytes() for K in first.K}) == 6
    assert len({np.asarray(image).tobytes() for image in first.frame}) == 6


def test_jitted_it_is_the_same(batch):
    plain, jitted = (
        run(8, batch, config(**ALL)),
        jax.jit(augment, static_argnums=2)(jax.random.key(8), batch, config(**ALL)),
    )
    assert np.abs(np.asarray(plain.image, int) - np.asarray(jitted.image, int)).max() <= 1
    np.testing.assert_allclose(jitted.joints_2d, plain.joints_2d, atol=1e-3)
    np.testing.assert_array_equal(jitted.object_valid, plain.object_valid)


def test_one_component_needs_only_its_own_part(batch):
    for name in ("image", "frame"):
        out = run(0, batch.replace(**{name: None}), config(**ALL))
        assert getattr(out, name) is None


def test_the_warp_is_opencvs(batch):
    """cv2 rounds positions to 1/32 pixel: on a picture this steep that is a few grey levels."""
    image = np.asarray(batch.image[0])
    rng = np.random.default_rng(2)
    for _ in range(5):
        H = np.eye(3) + rng.normal(0, [[0.1, 0.1, 10], [0.1, 0.1, 10], [2e-4, 2e-4, 0]])
        ours = np.asarray(pixels.warp(jnp.asarray(image), jnp.float32(H), SIZE)).transpose(1, 2, 0)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        theirs = cv2.warpPerspective(image.astype(np.float32), H, (SIZE, SIZE), flags=flags)
        difference = np.abs(ours - theirs)
        assert difference.mean() < 0.2 and np.quantile(difference, 0.999) < 5


def test_color_is_what_its_steps_say():
    rng = np.random.default_rng(0)
    planes = rng.uniform(80, 160, (3, 7, 9)).astype(np.float32)
    ours = pixels.adjust_color(jnp.asarray(planes), *map(jnp.float32, (1.1, 0.9, 1.2, 0.07)))
    luma = np.array(pixels.LUMA)
    x = planes * 1.1
    x = (x - np.tensordot(luma, x, 1).mean()) * 0.9 + np.tensordot(luma, x, 1).mean()
    grey = np.tensordot(luma, x, 1)
    x = grey + (x - grey) * 1.2
    turn = Rotation.from_rotvec(0.07 * 2 * np.pi * np.ones(3) / np.sqrt(3)).as_matrix()
    np.testing.assert_allclose(ours, np.tensordot(turn, x, 1), atol=0.01)


def test_blur_is_opencvs(batch):
    image = np.asarray(batch.image[1], np.float32)
    for sigma in (0.4, 2.0):
        ours = pixels.blur(jnp.asarray(image).transpose(2, 0, 1), jnp.float32(sigma), 5)
        theirs = cv2.GaussianBlur(image, (5, 5), sigma, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(np.asarray(ours).transpose(1, 2, 0), theirs, atol=0.01)
    np.testing.assert_array_equal(
        pixels.blur(jnp.asarray(image).transpose(2, 0, 1), jnp.float32(0), 5), image.transpose(2, 0, 1)
    )


def test_times_are_off_a_little_and_stay_in_order():
    times = np.stack([jitter_times(jax.random.key(k), 50, 0.1) for k in range(40)])
    assert (times - np.arange(50)).std() == pytest.approx(0.1, rel=0.05)
    assert (np.diff(np.stack([jitter_times(jax.random.key(k), 50, 5.0) for k in range(9)])) > 0).all()
    np.testing.assert_array_equal(jitter_times(jax.random.key(0), 3, 0.0), [0, 1, 2])


@pytest.mark.parametrize(
    ("field", "value"), [("rotation_share", 1.5), ("scale", -0.1), ("brightness", 1.0), ("blur_size", 4)]
)
def test_what_is_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"config.data.augmentation.{field}={value}: expected"):
        config(**{field: value}).check()
    with pytest.raises(UserError, match="config.data.context=0.5"):
        config(context=0.5).check()
