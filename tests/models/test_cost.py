"""The counter of FLOPs and activations, against XLA's own count and closed forms."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ShapeDtypeStruct as Shape

from amt.models.cost import by_component, flops, forward_flops, products, training_cost
from amt.models.dinov2 import Dinov2
from amt.models.layers import Block, BlockConfig, Dense

TOKENS, WIDTH, HIDDEN, HEADS = 48, 128, 512, 4
BLOCK = 8 * TOKENS * WIDTH**2 + 4 * TOKENS**2 * WIDTH + 4 * TOKENS * WIDTH * HIDDEN  # its products


def block():
    module = Block(BlockConfig(HEADS, HIDDEN))
    x = Shape((1, TOKENS, WIDTH), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return lambda params, x: module.apply({"params": params}, x), params, x


def xla_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def both_passes(apply, params, x):
    out, backward = jax.vjp(lambda params: apply(params, x), params)
    return out, backward(jnp.ones_like(out))


def test_block_costs_its_closed_form():
    """What is beside the products, softmax and norms, is 2% at this size."""
    apply, params, x = block()
    counted = forward_flops(apply, params, x)
    assert BLOCK < counted.total() < 1.03 * BLOCK
    assert counted["self_attention/query"] == pytest.approx(2 * TOKENS * WIDTH**2, rel=0.01)


def test_block_costs_what_xla_counts():
    """XLA counts comparisons and selections too, and transcendental functions apart: 0.3% of a small block."""
    apply, params, x = block()
    assert forward_flops(apply, params, x).total() == pytest.approx(xla_flops(apply, params, x), rel=0.005)
    training, _ = training_cost(apply, params, lambda path: True, x)
    expected = xla_flops(lambda *args: both_passes(apply, *args), params, x)
    assert training.total() == pytest.approx(expected, rel=0.005)


def test_block_keeps_what_jax_keeps():
    """The arrays that `jax.vjp` holds for its backward pass, each once, without parameters and constants."""
    apply, params, x = block()
    _, kept = training_cost(apply, params, lambda path: True, x)
    leaves, tree = jax.tree.flatten((params, x))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    params, x = jax.tree.unflatten(tree, drawn)
    backward = jax.vjp(lambda params: apply(params, x), params)[1]
    held = {np.asarray(y).tobytes() for y in jax.tree.leaves(backward) if np.unique(y).size > 1}  # others are constants
    assert kept.total() == sum(len(y) for y in held - {np.asarray(y).tobytes() for y in drawn})


def dinov2(frozen, remat):
    model = Dinov2(WIDTH, 4, HEADS, num_frozen_blocks=frozen, remat=remat)
    pixels = Shape((1, 98, 98, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), pixels)["params"]

    def apply(params, pixels):
        return model.apply({"params": params}, pixels).tokens

    def is_trained(path):
        return not path.startswith("block") or int(path[5]) >= frozen

    forward, (training, kept) = forward_flops(apply, params, pixels), training_cost(apply, params, is_trained, pixels)
    blocks = {f"block{k}": f"block{k}" for k in range(4)} | {"rest": ""}
    return [by_component(x, blocks) for x in (forward, training, kept)]


def test_frozen_trained_and_rematerialised_blocks_cost_once_three_and_four_times():
    """Products do exactly; norms and activation functions differ by 2% of the whole."""
    forward, training, kept = dinov2(frozen=1, remat=0.67)
    ratio = [training[f"block{k}"] / forward[f"block{k}"] for k in range(4)]
    assert ratio[0] == 1
    assert ratio[1:] == pytest.approx([4, 4, 3], rel=0.02)
    # What a rematerialised block starts from is all that the one before it leaves.
    assert kept["block0"] == kept["block1"] == 50 * WIDTH * 4
    assert kept["block3"] > 10 * kept["block1"]


class TwoLayers(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Dense(7, name="second")(jnp.tanh(Dense(5, name="first")(jnp.sin(x))))


def test_activations_are_what_the_backward_pass_reads():
    module, x = TwoLayers(), Shape((2, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]

    def kept(is_trained):
        return training_cost(lambda params, x: module.apply({"params": params}, x), params, is_trained, x)[1].total()

    assert kept(lambda path: path.startswith("second")) == 4 * 2 * 5  # tanh's output
    # sin(x), and of tanh the output and its slope
    assert kept(lambda path: True) == 4 * (2 * 3 + 2 * 5 + 2 * 5)
    assert kept(lambda path: False) == 0


def test_a_reduction_costs_what_it_reads():
    assert forward_flops(lambda x, y: (x * y).sum(), Shape((9,), jnp.float32), Shape((9,), jnp.float32)).total() == 18


def test_loops_count_as_often_as_they_run():
    def apply(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=6)[0]

    assert flops(jax.make_jaxpr(apply)(Shape((4, 4), jnp.float32)).jaxpr).total() == 6 * 2 * 4**3
    with pytest.raises(NotImplementedError, match="while"):
        jaxpr = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda x: x < 3.0, lambda x: x + 1.0, x))(0.0).jaxpr
        flops(jaxpr)


def test_a_branch_counts_as_the_dearest():
    def apply(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x + 1.0, x)

    assert flops(jax.make_jaxpr(apply)(Shape((4, 4), jnp.float32)).jaxpr).total() == 2 * 4**3


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_costs_its_closed_form(groups):
    def apply(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            "VALID",
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    args = Shape((2, 9, 9, 8), jnp.float32), Shape((3, 3, 8 // groups, 16), jnp.float32)
    assert flops(jax.make_jaxpr(apply)(*args).jaxpr).total() == 2 * (2 * 4 * 4 * 16) * 9 * 8 // groups


def test_a_scope_belongs_to_its_nearest_component():
    components = {"all": "", "encoder": "a/encoder", "backbone": "a/encoder/backbone"}
    scopes = {"a/encoder/backbone/block0": 1, "a/encoder": 2, "a/encoder2": 4, "b": 8}
    assert by_component(scopes, components) == Counter(all=12, encoder=2, backbone=1)


def test_products_of_two_layers_and_their_gradient():
    """Forwards two, backwards two of each weight and one of the hidden layer; the input needs none."""
    x, w1, w2 = Shape((5, 3), jnp.float32), Shape((3, 7), jnp.float32), Shape((7, 2), jnp.float32)

    def loss(w1, w2, x):
        return ((jnp.tanh(x @ w1) @ w2) ** 2).sum()

    found = products(jax.grad(loss, (0, 1)), w1, w2, x)
    shapes = Counter()
    for product, count in found.items():
        out = jax.eval_shape(product, *(Shape(*operand) for operand in product.operands))
        shapes[tuple(sorted(out.shape))] += count  # the gradient of a weight is made transposed
    assert shapes == Counter({(5, 7): 2, (2, 5): 1, (2, 7): 1, (3, 7): 1})
    given = jnp.ones((5, 3)), jnp.arange(21.0).reshape(3, 7)
    forward = next(p for p in found if p.operands == tuple((y.shape, y.dtype) for y in given))
    np.testing.assert_allclose(forward(*given), given[0] @ given[1])


def test_products_count_as_often_as_they_run():
    def apply(x, kernel):
        x = jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=6)[0]
        x = jax.lax.cond(x[0, 0] > 0, lambda x: x + 1.0, lambda x: x @ x, x)
        image = jnp.broadcast_to(x[None, None], (1, 1, 4, 4))
        unread = x @ x  # noqa: F841
        return jax.lax.conv(image, kernel, (1, 1), "SAME"), jax.lax.while_loop(
            lambda x: x < 3.0, lambda x: x + 1.0, 0.0
        )

    found = products(apply, Shape((4, 4), jnp.float32), Shape((2, 1, 3, 3), jnp.float32))
    assert {p.primitive.name: count for p, count in found.items()} == {"dot_general": 7, "conv_general_dilated": 1}
    with pytest.raises(NotImplementedError, match="while"):
        products(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 3, lambda x: x @ x, x), Shape((4, 4), jnp.float32))


def test_products_of_a_block_make_up_its_closed_form():
    apply, params, x = block()
    found = products(apply, params, x)
    total = sum(count * forward_flops(p, *(Shape(*o) for o in p.operands)).total() for p, count in found.items())
    assert total == BLOCK
