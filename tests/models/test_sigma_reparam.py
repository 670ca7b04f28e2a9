"""Sigma-reparam against numpy's SVD and torch's spectral norm's definition, under scan, remat, jit and a mesh."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from amt.models import sigma_reparam
from amt.models.layers import Block, BlockConfig
from amt.training.sharding import make_mesh, tree_shardings

WIDTH = 32


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(Block(BlockConfig(4, 2 * WIDTH))(x, x))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block(BlockConfig(4, 2 * WIDTH))(x), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.remat(Layer, prevent_cse=False)
        return nn.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()(x, None)[0]


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (2, 5, WIDTH))


@pytest.fixture(scope="module", params=[Net, Scanned])
def model(request):
    return request.param()


def singular_value(kernel):
    return np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)[..., 0]


def kernels(params):
    return {k: v for k, v in flatten_dict(params, sep="/").items() if sigma_reparam.KERNELS.search(k)}


def test_every_dense_of_a_block_and_nothing_else_has_a_gain(model, x):
    params = model.init(jax.random.key(0), x)["params"]
    reparametrised, spectral = sigma_reparam.init(params)
    gained = {k.removesuffix("gain") for k in flatten_dict(reparametrised, sep="/") if k.endswith("/gain")}
    dense = {k.removesuffix("kernel") for k in flatten_dict(params, sep="/") if k.endswith("/kernel")}
    assert gained == {k for k in dense if not k.startswith("head")}
    assert len(gained) == (10 if isinstance(model, Net) else 6)
    assert {k.removesuffix("kernel") for k in spectral.u} == gained


def test_it_starts_as_the_plain_model(model, x):
    """To what power iterations leave to be found."""
    params = model.init(jax.random.key(0), x)["params"]
    plain, _ = sigma_reparam.fold(*sigma_reparam.init(params))
    np.testing.assert_allclose(model.apply({"params": plain}, x), model.apply({"params": params}, x), atol=2e-3)


def test_the_gain_is_the_largest_singular_value_of_what_acts(model, x):
    """After many iterations on changed kernels, with any gain."""
    params = model.init(jax.random.key(0), x)["params"]
    params, spectral = sigma_reparam.init(params)
    changed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _changed(leaf) if _is_matrix(path) else leaf,
        params,
    )
    fold = jax.jit(sigma_reparam.fold)
    for _ in range(1000):
        plain, spectral = fold(changed, spectral)
    flat = flatten_dict(changed, sep="/")
    for path, kernel in kernels(plain).items():
        gain = flat[path.removesuffix("kernel") + "gain"]
        np.testing.assert_allclose(singular_value(kernel), gain, rtol=1e-3, err_msg=path)


def _changed(kernel):
    return 3.0 * kernel + 0.3 * jax.random.normal(jax.random.key(2), kernel.shape)


def _is_matrix(path):
    return path[-1].key == "kernel" and path[0].key != "head"


def test_gradients_are_those_of_the_published_layer():
    """torch's convention: u and v are constants, sigma = v'Wu is not. Against a numpy gradient by hand."""
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
    params = {"Block_0": {"Dense_0": {"kernel": jnp.asarray(W, jnp.float32), "bias": jnp.zeros(4)}}}
    params, spectral = sigma_reparam.init(params)
    params["Block_0"]["Dense_0"]["gain"] = jnp.asarray(1.7)
    u = rng.normal(size=4)  # far from the singular vector, where a gradient through u and v would show
    spectral = spectral.replace(u={"Block_0/Dense_0/kernel": jnp.asarray(u, jnp.float32)})

    def loss(params):
        plain, _ = sigma_reparam.fold(params, spectral)
        return (jnp.asarray(x, jnp.float32) @ plain["Block_0"]["Dense_0"]["kernel"]).sum()

    ours = jax.grad(loss)(params)["Block_0"]["Dense_0"]
    v = W @ u / np.linalg.norm(W @ u)
    u = W.T @ v / np.linalg.norm(W.T @ v)
    sigma = v @ W @ u
    G = x.T @ np.ones((3, 4))  # of the loss in the weight that acts, 1.7 W / sigma
    by_hand = 1.7 / sigma * (G - (G * W).sum() / sigma * np.outer(v, u))
    np.testing.assert_allclose(ours["kernel"], by_hand, atol=1e-4)
    np.testing.assert_allclose(ours["gain"], (G * W).sum() / sigma, rtol=1e-5)


def test_gains_are_told_relative_to_their_start(x):
    params, spectral = sigma_reparam.init(Net().init(jax.random.key(0), x)["params"])
    assert all(float(g) == 1.0 for g in sigma_reparam.gains(params, spectral).values())
    params["Block_0"]["Dense_0"]["gain"] *= 2.0
    relative = sigma_reparam.gains(params, spectral)
    assert sorted(float(g) for g in relative.values()) == [1.0] * 9 + [2.0]


def test_a_mesh_folds_as_one_device_does(x):
    params = Net().init(jax.random.key(0), x)["params"]
    expected, after = sigma_reparam.fold(*sigma_reparam.init(params))
    mesh = make_mesh(2, 2, 2)
    made = sigma_reparam.init(params)
    placed = jax.device_put(made, tree_shardings(made, mesh))
    folded, spectral = jax.jit(sigma_reparam.fold)(*placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), (folded, spectral), (expected, after))


def test_without_gains_parameters_come_back(x):
    params = Net().init(jax.random.key(0), x)["params"]
    plain, spectral = sigma_reparam.fold(params, sigma_reparam.EMPTY)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, params)) and not spectral.u


def test_what_does_not_learn_keeps_its_weights_to_the_last_bit():
    kernel = jax.random.normal(jax.random.key(1), (8, 8))
    params = {part: {"Block_0": {"Dense_0": {"kernel": kernel}}} for part in ("finder", "perception")}
    with_gains, state = sigma_reparam.init(params, lambda path: path.startswith("finder/"))
    assert list(state.u) == ["finder/Block_0/Dense_0/kernel"]
    plain, _ = sigma_reparam.fold(with_gains, state)
    np.testing.assert_array_equal(plain["perception"]["Block_0"]["Dense_0"]["kernel"], kernel)
    assert jax.tree.structure(plain) == jax.tree.structure(params)
