"""VMT: the published sizes, what comes out, and what positions are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.models.factory import build_vmt
from configs import vmt

K = jnp.asarray([[[200.0, 0, 31.5], [0, 200.0, 31.5], [0, 0, 1]]])


def count(variables):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables))


def published(variant):
    config = vmt.get_config(variant)
    return build_vmt(config.vmt, config.model, config.data.image_size)


def small(positions=True, width=32):
    part = {"hidden_dim": width, "depth": 2, "num_heads": 4, "mlp_dim": 2 * width}
    return build_vmt({"hand": part, "contact": part, "positions": positions}, vmt.get_config().model, 64)


@pytest.fixture(scope="module")
def image():
    return jax.random.randint(jax.random.key(0), (1, 64, 64, 3), 0, 256, jnp.int32).astype(jnp.uint8)


def test_full_sizes_are_the_originals():
    """612, 610 and 108 million parameters, to 3%; counted without allocating them."""
    model = published("full")
    image, K = (jax.ShapeDtypeStruct(s, t) for s, t in (((1, 224, 224, 3), jnp.uint8), ((1, 3, 3), jnp.float32)))
    params = jax.eval_shape(model.init, jax.random.key(0), image, K)["params"]
    contact = count(params["contact_encoder"])
    hand = count(params["hand_encoder"])
    assert hand == pytest.approx(612e6, rel=0.03)
    assert count(params) - hand - contact == pytest.approx(610e6, rel=0.03)
    assert contact == pytest.approx(108e6, rel=0.03)


@pytest.mark.parametrize("variant", ["reduced", "full"])
def test_shapes_of_every_output(variant):
    model = published(variant)
    image, K = (jax.ShapeDtypeStruct(s, t) for s, t in (((2, 224, 224, 3), jnp.uint8), ((2, 3, 3), jnp.float32)))
    out, _ = jax.eval_shape(lambda i, k: model.init_with_output(jax.random.key(0), i, k), image, K)
    width = 1024 if variant == "reduced" else 2048
    assert out.hand.joints.shape == (2, 21, 3) and out.hand.tokens.shape == (2, 196, width)
    assert out.hand.confidence.shape == (2, 21) and out.hand.betas.shape == (2, 10)
    assert out.objects.position.shape == (2, 10, 3) and out.objects.rotation.shape == (2, 10, 3, 3)
    assert out.objects.classes.shape == (2, 10, 100) and out.objects.confidence.shape == (2, 10)
    assert out.contacts.points.shape == out.contacts.force.shape == (2, 10, 3)
    assert out.contacts.kind.shape == (2, 10, 4) and out.contacts.confidence.shape == (2, 10)


def test_shuffled_patches_change_the_output_by_their_positions_alone(image):
    order = np.random.default_rng(0).permutation(16)
    patches = image.reshape(4, 16, 4, 16, 3).transpose(0, 2, 1, 3, 4).reshape(16, 16, 16, 3)
    shuffled = patches[order].reshape(4, 4, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(1, 64, 64, 3)
    for positions in (True, False):
        model = small(positions)
        params = model.init(jax.random.key(0), image, K)
        as_it_is, mixed = (model.apply(params, i, K).hand.joints for i in (image, shuffled))
        moved = float(jnp.abs(as_it_is - mixed).max())
        assert moved > 1e-4 if positions else moved < 1e-5, (positions, moved)


def test_scaling_image_and_focal_length_together_changes_no_metric_joint(image):
    """And the focal length alone scales the depth."""
    model = small()
    params = model.init(jax.random.key(0), image, K)
    twice = K.at[:, 0, 0].mul(2.0).at[:, 1, 1].mul(2.0)
    near, far = (model.apply(params, image, k).hand.joints for k in (K, twice))
    np.testing.assert_allclose(far[:, 0, 2], 2 * near[:, 0, 2], rtol=1e-5)
    np.testing.assert_allclose(far[:, 0, :2], near[:, 0, :2], rtol=1e-5)
    np.testing.assert_allclose(far - far[:, :1], near - near[:, :1], atol=1e-6)
