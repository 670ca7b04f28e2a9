"""Sigma-reparam: each weight W of our attention and MLP blocks acts as gain / sigma(W) W.

sigma(W) is the largest singular value, kept up by one power iteration a step; the gain is learned. That bounds the
attention logits, which keeps attention from collapsing onto few tokens. Source: Zhai et al. 2023, "Stabilizing
Transformer Training by Preventing Attention Entropy Collapse", section 3.2. The gain starts at sigma(W), as in the
authors' vision code, so that nothing changes at the start, for converted weights too.

Models do not know of it: parameters with gains become plain ones by `fold`, outside of scans, remat and the mesh's
sharding, for the train step as for files. Norms, embeddings, heads and DINOv2 stay as they are.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

KERNELS = re.compile(r"((self|cross)_attention|Attention_\d+)/\w+/kernel$|Block_\d+/Dense_\d+/kernel$")
START_ITERATIONS = 100  # an SVD of a large layer takes seconds


@flax.struct.dataclass
class Spectral:
    """What a step carries beside the parameters, by the kernel's path: `u` and the gain at the start."""

    u: dict[str, Float[Array, "*layers out"]]
    initial_gain: dict[str, Float[Array, "*layers"]]


EMPTY = Spectral({}, {})  # of a model without gains: `fold` gives its parameters back


def init(
    params: Mapping[str, Any], learns: Callable[[str], bool] = lambda path: True
) -> tuple[dict[str, Any], Spectral]:
    """The parameters with a `gain` beside each kernel, and the state. Kernels are [*layers, in, out].

    Only kernels whose path `learns` get one: what does not learn keeps its weights to the last bit.
    """
    flat = flatten_dict(dict(params), sep="/")
    u, gains = {}, {}
    for path, kernel in sorted(flat.items()):
        if KERNELS.search(path) and learns(path):
            start = jax.random.normal(jax.random.key(0), (*kernel.shape[:-2], kernel.shape[-1]))
            u[path] = jax.lax.fori_loop(0, START_ITERATIONS, lambda _, u, k=kernel: _power_iteration(k, u)[1], start)
            _, u[path], gains[path] = _sigma(kernel, u[path])
    with_gains = flat | {_gain_path(path): gain for path, gain in gains.items()}
    return unflatten_dict(with_gains, sep="/"), Spectral(u, gains)


def fold(params: Mapping[str, Any], spectral: Spectral) -> tuple[dict[str, Any], Spectral]:
    """Plain parameters that give the same outputs, and the state after a power iteration.

    The gradient goes through W and the gain, not through the singular vectors.
    """
    flat = flatten_dict(dict(params), sep="/")
    u = {}
    for path, before in spectral.u.items():
        kernel, gain = flat[path], flat.pop(_gain_path(path))
        _, u[path], sigma = _sigma(kernel, before)
        flat[path] = (gain / sigma)[..., None, None] * kernel
    return unflatten_dict(flat, sep="/"), spectral.replace(u=u)


def gains(params: Mapping[str, Any], spectral: Spectral) -> dict[str, Float[Array, "*layers"]]:
    """The learned gains over those at the start, by the kernel's path."""
    flat = flatten_dict(dict(params), sep="/")
    return {path: flat[_gain_path(path)] / spectral.initial_gain[path] for path in spectral.u}


def _gain_path(path: str) -> str:
    return path.removesuffix("kernel") + "gain"


def _power_iteration(kernel, u):
    v = _unit(jnp.einsum("...io,...o->...i", kernel, u, precision="highest"))
    return v, _unit(jnp.einsum("...io,...i->...o", kernel, v, precision="highest"))


def _sigma(kernel, u):
    v, u = jax.lax.stop_gradient(_power_iteration(jax.lax.stop_gradient(kernel), u))
    return v, u, jnp.einsum("...i,...io,...o->...", v, kernel, u, precision="highest")


def _unit(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)
