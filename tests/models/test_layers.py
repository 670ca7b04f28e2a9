"""Layers against independent implementations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy.ndimage import map_coordinates

from amt.models import layers


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_bilinear_sampling_equals_scipy():
    """Cells have their centres at (i + 0.5) / n."""
    grid, points = (
        random(2, 7, 9, 3),
        np.random.default_rng(1).uniform(0.1, 0.9, (2, 40, 2)).astype(np.float32),
    )
    found, inside = layers.sample_bilinear(grid, points)
    for b in range(2):
        rows, columns = points[b, :, 1] * 7 - 0.5, points[b, :, 0] * 9 - 0.5
        for c in range(3):
            expected = map_coordinates(grid[b, :, :, c], [rows, columns], order=1)
            np.testing.assert_allclose(found[b, :, c], expected, atol=1e-5)
    assert inside.all()


def test_bilinear_sampling_outside_reads_the_border_and_says_so():
    grid = random(1, 4, 4, 2)
    points = np.float32([[[-3.0, 0.125], [0.375, 9.0], [1.01, -0.01], [0.5, 0.5]]])
    found, inside = layers.sample_bilinear(grid, points)
    np.testing.assert_array_equal(inside[0], [0, 0, 0, 1])
    np.testing.assert_allclose(found[0, 0], grid[0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], grid[0, 3, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, 2], grid[0, 0, 3], atol=1e-6)
    np.testing.assert_allclose(found[0, 3], grid[0, 1:3, 1:3].mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_equals_laxs(stride):
    x = random(2, 6, 8, 5)
    module = layers.Conv3x3(4, stride)
    variables = module.init(jax.random.key(0), x)
    kernel = variables["params"]["Dense_0"]["kernel"].reshape(3, 3, 5, 4)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_space_to_depth_and_back():
    x = random(2, 8, 12, 3)
    packed = layers.space_to_depth(x, 4)
    assert packed.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(packed[1, 1, 2], x[1, 4:8, 8:12].reshape(48))
    np.testing.assert_array_equal(layers.depth_to_space(packed, 4), x)


def test_layer_norm_is_standardisation():
    x = random(3, 5, 16) * 7 + 2
    module = layers.LayerNorm()
    variables = module.init(jax.random.key(0), x)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-4)


def test_attention_equals_plain_numpy():
    x, context = random(2, 3, 8), random(2, 5, 6, seed=1)
    module = layers.Attention(num_heads=2)
    variables = module.init(jax.random.key(0), x, context)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])

    def linear(name, y):
        return y @ p[name]["kernel"] + p[name]["bias"]

    q, k, v = linear("query", x), linear("key", context), linear("value", context)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        logits = q[..., h] @ k[..., h].swapaxes(-1, -2) / 2  # sqrt of 4
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        heads.append(weights @ v[..., h])
    expected = linear("out", np.concatenate(heads, -1))
    np.testing.assert_allclose(module.apply(variables, x, context), expected, atol=1e-5)


def test_entropy_of_attention_is_scipys_and_is_stored_only_on_request():
    x, context = random(2, 3, 8), random(2, 5, 6, seed=1)
    module = layers.Attention(num_heads=2)
    variables = module.init(jax.random.key(0), x, context)
    variables = {"params": jax.tree.map(lambda a: 5 * a, variables["params"])}
    _, stored = module.apply(variables, x, context, mutable=["entropy"])
    p = jax.tree.map(np.asarray, variables["params"])
    query, key = (
        (y @ p[name]["kernel"] + p[name]["bias"]).reshape(2, -1, 2, 4) for name, y in (("query", x), ("key", context))
    )
    p = scipy.special.softmax(np.einsum("bnhc,bmhc->bhnm", query, key) / 2, axis=-1)
    expected = scipy.stats.entropy(p, axis=-1).mean((0, 2))
    found, even = stored["entropy"]["heads"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(even, np.log(5), rtol=1e-6)
    assert isinstance(module.apply(variables, x, context), jax.Array)


def test_dropout_acts_where_there_is_a_generator_and_only_there():
    x = random(2, 3, 8)
    block = layers.Block(layers.BlockConfig(2, 16, dropout=0.5))
    variables = block.init(jax.random.key(0), x)
    once, again, other = (block.apply(variables, x, rngs={"dropout": jax.random.key(k)}) for k in (0, 0, 1))
    still = layers.Block(layers.BlockConfig(2, 16)).apply(variables, x, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)
    np.testing.assert_array_equal(block.apply(variables, x), still)


def test_output_heads_start_near_their_bias():
    variables = layers.head(4, bias=2.0).init(jax.random.key(0), random(1, 256))
    assert (variables["params"]["bias"] == 2).all()
    assert float(jnp.std(variables["params"]["kernel"])) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_and_their_gradients_accumulate_in_float32(dtype):
    """Against float64: operands are rounded to the type, sums of 4096 terms are not."""
    x, kernel, weight = jnp.asarray(random(3, 4096), dtype), random(4096, 5, seed=1), random(3, 5, seed=2)
    out, pull = jax.vjp(layers.product, x, kernel)
    to_x, to_kernel = pull(jnp.asarray(weight))
    x, k, w = (np.asarray(jnp.asarray(y).astype(dtype), np.float64) for y in (x, kernel, weight))
    assert (out.dtype, to_x.dtype, to_kernel.dtype) == (jnp.float32, dtype, jnp.float32)
    np.testing.assert_allclose(out, x @ k, atol=1e-3)
    np.testing.assert_allclose(to_kernel, x.T @ w, atol=1e-5)
    np.testing.assert_allclose(np.asarray(to_x, np.float64), w @ k.T, rtol=2**-8, atol=1e-5)


def test_products_of_8_bits_round_their_operands_and_nothing_else():
    """Against float64 of operands rounded by ml_dtypes: e4m3 forwards, the gradient e5m2."""

    def rounded(y, dtype):
        scale = np.abs(y).max() / float(ml_dtypes.finfo(dtype).max)
        return (y / scale).astype(dtype).astype(np.float64) * scale

    x, kernel, weight = random(3, 512), random(512, 5, seed=1), random(3, 5, seed=2)
    out, pull = jax.vjp(layers.product_float8, x, kernel)
    to_x, to_kernel = pull(jnp.asarray(weight))
    x8, kernel8 = (rounded(y, ml_dtypes.float8_e4m3fn) for y in (x, kernel))
    weight8 = rounded(weight, ml_dtypes.float8_e5m2)
    np.testing.assert_allclose(out, x8 @ kernel8, atol=1e-3)
    np.testing.assert_allclose(to_x, weight8 @ kernel8.T, atol=1e-3)
    np.testing.assert_allclose(to_kernel, x8.T @ weight8, atol=1e-3)
    np.testing.assert_allclose(out, x @ kernel, atol=0.15 * np.sqrt(512))


def test_float8_is_lowered_for_cuda():
    """Products of 8-bit operands with 32-bit sums, forwards and backwards; attention's softmax is not one of them."""
    block = layers.Block(layers.BlockConfig(2, 16, dtype="float8"))
    x = random(2, 3, 8)
    variables = block.init(jax.random.key(0), x)

    def loss(variables, x):
        return block.apply(variables, x).sum()

    with jax.numpy_dtype_promotion("standard"):  # jax's own attention mixes types backwards
        lowered = jax.jit(jax.grad(loss)).trace(variables, x).lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert sum("xf8E4M3FN>" in line and "xf32>" in line for line in products) >= 6
    assert any("xf8E5M2>" in line for line in products) and any("bf16" in line for line in products)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8"])
def test_blocks_of_fewer_bits_give_nearly_the_same_and_pass_on_float32(dtype):
    x, context = random(2, 3, 16), random(2, 5, 16, seed=1)
    exact = layers.Block(layers.BlockConfig(2, 32))
    variables = exact.init(jax.random.key(0), x, context)
    out = layers.Block(layers.BlockConfig(2, 32, dtype=dtype)).apply(variables, x, context)
    assert out.dtype == jnp.float32
    difference = np.abs(out - exact.apply(variables, x, context)).max()
    assert 0 < difference < {"bfloat16": 0.02, "float8": 0.1}[dtype]


def test_blocks_that_are_computed_again_are_the_same_blocks():
    class Net(nn.Module):
        remat: float

        @nn.compact
        def __call__(self, x):
            return layers.through_blocks(layers.BlockConfig(2, 16, remat=self.remat), 3, x)[-1]

    x = random(2, 3, 8)
    params = Net(0.0).init(jax.random.key(0), x)
    assert set(params["params"]) == {"Block_0", "Block_1", "Block_2"}
    plain, again = (jax.jit(jax.grad(lambda p, r=r: Net(r).apply(p, x).sum())) for r in (0.0, 0.7))
    for a, b in zip(jax.tree.leaves(plain(params)), jax.tree.leaves(again(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    counts = [str(jax.make_jaxpr(gradient)(params)).count("remat") for gradient in (plain, again)]
    assert counts[0] == 0 and counts[1] >= 2
