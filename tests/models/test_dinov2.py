"""DINOv2: shapes, sizes, frozen blocks, and what an image becomes. That it is Hugging Face's: test_dinov2_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from amt.models import dinov2
from amt.models.dinov2 import Dinov2
from amt.models.encoder import Dinov2Encoder
from amt.models.factory import ENCODERS, build_encoder
from amt.models.resampling import resize, resize_matrix

TINY = Dinov2(16, 4, 2, position_grid=3, remat=0.0)
VARIANTS = [name for name in ENCODERS if name != "conv"]


def random_params(backbone):
    """Nothing at its start value: LayerScale of ones and tokens near zero would hide mistakes."""
    rng = np.random.default_rng(0)
    shapes = dinov2.parameter_shapes(backbone)
    flat = {tuple(k.split("/")): rng.normal(0, 0.3, shape).astype(np.float32) for k, shape in shapes.items()}
    return jax.tree.map(jnp.asarray, dinov2.unflatten_dict(flat))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("grid", [14, 16])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_interface_of_the_design(name, grid):
    """Traced, not computed: the giant needs no memory."""
    encoder = build_encoder({"encoder": name, "grid": grid, "fine_dim": 24}, 224, {"dtype": "bfloat16"})
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.uint8)
    out, _ = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x), image)
    n, width = grid**2, min(encoder.backbone.width, 1024)
    assert {k: (v.shape, v.dtype.name) for k, v in vars(out).items()} == {
        "cls_token": ((2, width), "float32"),
        "patch_tokens": ((2, n, width), "float32"),
        "patch_grid": ((2, grid, grid, width), "float32"),
        "multi_scale": ((2, n, 1024), "float32"),
        "fine": ((2, 2 * grid, 2 * grid, 24), "float32"),
    }


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("small", 22_056_576), ("base", 86_580_480), ("large", 304_368_640), ("giant", 1_136_480_768)],
)
def test_parameters_are_as_many_as_those_of_the_published_models(name, parameters):
    """Numbers of transformers 5.23, `Dinov2Model(config).num_parameters()`; registers add 4 tokens."""
    width = dinov2.SIZES[name][0]
    for registers in (False, True):
        shapes = dinov2.parameter_shapes(dinov2.published(name, registers))
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters + 4 * width * registers


@pytest.mark.parametrize(("size", "out"), [((48, 80), (42, 70)), ((20, 20), (55, 33)), ((37, 37), (14, 16))])
def test_antialiased_resampling_equals_pillows(size, out):
    """Pillow sums in float32 with float32 weights of values up to 4."""
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    expected = np.asarray(Image.fromarray(x).resize(out[::-1], Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resize(x[None, ..., None], out, antialias=True)[0, ..., 0], expected, atol=5e-6)


@pytest.mark.parametrize("antialias", [True, False])
def test_resampling_keeps_constants_and_the_same_size(antialias):
    np.testing.assert_allclose(resize_matrix(37, 16, antialias).sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(resize_matrix(37, 37, antialias), np.eye(37))


def encode(image, grid):
    """Tokens of an image by a tiny encoder, and by its backbone on pixels that Pillow resampled."""
    encoder = Dinov2Encoder(TINY, grid, fine_dim=8)
    variables = encoder.init(jax.random.key(0), image)
    variables["params"]["backbone"] = random_params(TINY)
    out = encoder.apply(variables, image)
    scaled = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    size = tuple(n * grid // 224 * 14 for n in image.shape[2:0:-1])
    planes = [Image.fromarray(scaled[0, ..., c].astype(np.float32)) for c in range(3)]
    small = np.stack([np.asarray(p.resize(size, Image.Resampling.BICUBIC)) for p in planes], -1)[None]
    return out, TINY.apply({"params": random_params(TINY)}, small)


@pytest.mark.parametrize(("grid", "shape"), [(14, (32, 64)), (16, (28, 56))])
def test_an_image_is_normalised_and_resampled_to_whole_patches(grid, shape):
    image = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)
    out, expected = encode(image, grid)
    assert out.patch_grid.shape == (1, 2, 4, 16) and out.fine.shape == (1, 4, 8, 8)
    np.testing.assert_allclose(out.cls_token, expected.tokens[:, 0], atol=5e-5)
    np.testing.assert_allclose(out.patch_tokens, expected.tokens[:, 1:], atol=5e-5)
    np.testing.assert_array_equal(out.patch_grid.reshape(1, 8, 16), out.patch_tokens)


def test_multi_scale_taps_the_quarters_of_the_depth():
    """A block whose output is changed behind the k-th quarter leaves the taps before it as they are."""
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    encoder = Dinov2Encoder(TINY, 14, fine_dim=8)
    variables = encoder.init(jax.random.key(0), image)
    variables["params"]["backbone"] = random_params(TINY)
    before = np.asarray(encoder.apply(variables, image).multi_scale).reshape(4, 4, 256)
    for k in range(4):
        variables["params"]["backbone"] = random_params(TINY)
        variables["params"]["backbone"][f"block{k}"]["scale1"] *= 2.0
        after = np.asarray(encoder.apply(variables, image).multi_scale).reshape(4, 4, 256)
        assert [not np.array_equal(before[:, s], after[:, s]) for s in range(4)] == [s >= k for s in range(4)]


def gradient_of(backbone, params, x):
    def loss(p):
        tokens = backbone.apply({"params": p}, x).tokens.astype(jnp.float32)
        return (tokens * np.random.default_rng(5).normal(size=tokens.shape).astype(np.float32)).sum()

    with jax.numpy_dtype_promotion("standard"):  # jax's own attention mixes types backwards
        return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_frozen_are_exactly_the_parameters_without_a_gradient(count):
    params, x = random_params(TINY), pixels(2, 28, 42)
    gradient = flatten_dict(gradient_of(TINY.clone(num_frozen_blocks=count), params, x), sep="/")
    never = {"mask_token"}  # only pre-training reads it
    still = {path for path, g in gradient.items() if not np.any(g)} - never
    assert still == {path for path in gradient if dinov2.is_frozen(path, count)} - never
    assert ("patch/kernel" in still) == (count > 0) and "norm/scale" not in still


def test_frozen_blocks_change_no_output_and_cost_no_backward_pass():
    """A dense layer is one product forwards and two backwards: the gradient of frozen blocks has only the first."""
    params, x = random_params(TINY), pixels(1, 28, 28)
    frozen = TINY.clone(num_frozen_blocks=4)
    np.testing.assert_array_equal(frozen.apply({"params": params}, x).tokens, TINY.apply({"params": params}, x).tokens)

    def products(backbone):
        return str(jax.make_jaxpr(lambda p: gradient_of(backbone, p, x))(params)).count(" dot_general[")

    forwards = str(jax.make_jaxpr(lambda p: TINY.apply({"params": p}, x))(params)).count(" dot_general[")
    assert products(frozen) == forwards < products(TINY) / 2


@pytest.mark.parametrize(("remat", "count"), [(0.0, 0), (0.5, 2), (1.0, 3)])
def test_blocks_are_computed_again_and_the_gradient_stays(remat, count):
    params, x = random_params(TINY), pixels(1, 28, 28)
    kept = TINY.clone(num_frozen_blocks=1)
    again = kept.clone(remat=remat)
    jaxpr = jax.make_jaxpr(lambda p: again.apply({"params": p}, x))(params)
    assert sum(e.primitive.name in ("remat2", "checkpoint", "remat") for e in jaxpr.eqns) == count
    for ours, theirs in zip(*(jax.tree.leaves(gradient_of(b, params, x)) for b in (again, kept)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 + 1e-5 * np.abs(theirs).max())


def test_bfloat16_keeps_parameters_and_gradients_in_float32():
    """Errors of 2^-9 a rounding, through a dozen roundings in a row; outputs are of order 1."""
    params, x = random_params(TINY), pixels(1, 28, 28)
    half = TINY.clone(dtype=jnp.bfloat16)
    out = half.apply({"params": params}, x)
    assert {h.dtype.name for h in (*out.hidden, out.tokens)} == {"bfloat16"}
    expected = np.asarray(TINY.apply({"params": params}, x).tokens)
    assert np.abs(np.asarray(out.tokens, np.float32) - expected).max() < 0.05 * np.abs(expected).max()
    gradient = gradient_of(half, params, x)
    assert {g.dtype.name for g in jax.tree.leaves(gradient)} == {"float32"}
    exact = jax.tree.leaves(gradient_of(TINY, params, x))
    largest = max(np.abs(g).max() for g in exact)  # a softmax does not see key biases: theirs is rounding
    for ours, theirs in zip(jax.tree.leaves(gradient), exact, strict=True):
        assert np.abs(ours - theirs).max() <= 0.1 * np.abs(theirs).max() + 1e-3 * largest
