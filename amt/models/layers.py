"""Layers that every model shares.

Products run on two-dimensional operands: XLA's CPU backend is several times slower on the gradient of a
product with more than one batch axis, and other backends do not mind. Layers compute in the type of their input:
parameters stay float32, and bfloat16 products and sums over features are accumulated in float32.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@jax.custom_vjp
def product(x: Float[Array, "n d"], kernel: Float[Array, "d f"]) -> Float[Array, "n f"]:
    """x @ kernel in the type of `x`, accumulated and returned in float32, forwards and backwards.

    The transpose that JAX derives would mix the types of its operands, for which no backend has a fast product.
    """
    return jnp.dot(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(saved, gradient):
    x, kernel = saved
    gradient = gradient.astype(x.dtype)
    to_x = jnp.dot(gradient, kernel.astype(x.dtype).T, preferred_element_type=jnp.float32)
    return to_x.astype(x.dtype), jnp.dot(x.T, gradient, preferred_element_type=jnp.float32)


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def product_float8(x: Float[Array, "n d"], kernel: Float[Array, "d f"]) -> Float[Array, "n f"]:
    """`product` of operands rounded to 8 bits, each scaled by its largest value: e4m3, of gradients e5m2.

    Source of the formats and which is for what: Micikevicius et al. 2022, "FP8 Formats for Deep Learning".
    """
    return _product_float8_forward(x, kernel)[0]


def _product_float8_forward(x, kernel):
    x8, kernel8 = _to_float8(x, jnp.float8_e4m3fn), _to_float8(kernel, jnp.float8_e4m3fn)
    return _dot_float8(x8, kernel8), (x8, kernel8, jnp.zeros((0,), x.dtype))


def _product_float8_backward(saved, gradient):
    (x, x_scale), (kernel, kernel_scale), like = saved
    gradient = _to_float8(gradient, jnp.float8_e5m2)
    to_x = _dot_float8(gradient, (kernel.T, kernel_scale))
    return to_x.astype(like.dtype), _dot_float8((x.T, x_scale), gradient)


def _to_float8(x, dtype):
    """The rounded array, and what it has to be multiplied by."""
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(x).max(), 1e-30) / float(jnp.finfo(dtype).max)
    return (x / scale).astype(dtype), scale


def _dot_float8(a, b):
    with jax.numpy_dtype_promotion("standard"):  # the two 8-bit types meet in the backward pass
        return jax.lax.dot(a[0], b[0], preferred_element_type=jnp.float32) * (a[1] * b[1])


product_float8.defvjp(_product_float8_forward, _product_float8_backward)


class Dense(nn.Module):
    """A linear layer over the last axis; with `float8` its products round their operands to 8 bits."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    float8: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch features"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        multiply = product_float8 if self.float8 else product
        y = multiply(x.reshape(-1, x.shape[-1]), kernel) + bias[None]
        return y.astype(x.dtype).reshape(*x.shape[:-1], self.features)


def head(features: int, bias: float = 0.0, name: str | None = None) -> Dense:
    """An output layer that starts near its bias: normal(0.01)."""
    return Dense(features, nn.initializers.normal(0.01), nn.initializers.constant(bias), name=name)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016)."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],)).reshape(shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],)).reshape(shape)
        y = x.astype(jnp.float32)
        centred = y - y.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + 1e-6) * scale + bias).astype(x.dtype)


class Mlp(nn.Module):
    """Hidden layers with LayerNorm and ReLU, then an output layer that starts near `bias`."""

    hidden: Sequence[int]
    features: int
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch features"]:
        for width in self.hidden:
            x = nn.relu(LayerNorm()(Dense(width)(x)))
        return head(self.features, self.bias)(x)


BLOCK_DTYPES = ("float32", "bfloat16", "float8")
UNSEEN = -1e30  # a logit whose share of attention is 0


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all transformer blocks of a part share. `dropout` acts where `apply` is given an rng of that name.

    Blocks compute in `dtype`, one of `BLOCK_DTYPES`: float8 rounds the operands of products, the rest is bfloat16. What
    goes from block to block stays as it comes. The share `remat` of them is computed again in the backward pass instead
    of being kept.
    """

    num_heads: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: str = "float32"
    remat: float = 0.0

    @property
    def float8(self) -> bool:
        return self.dtype == "float8"

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(jnp.bfloat16 if self.float8 else self.dtype)


class Attention(nn.Module):
    """Multi-head attention of `x` to `context`.

    With a mutable collection `entropy` it also stores [2, num_heads] nats: the mean entropy of each head's attention,
    and that of attention that is even.
    """

    num_heads: int
    float8: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], context: Float[Array, "b m e"]) -> Float[Array, "b n d"]:
        query, key, value = self.project(x, context)
        self.store_entropy(query, key)
        return self.attend(query, key, value)

    @nn.nowrap
    def project(self, x: Float[Array, "b n d"], context: Float[Array, "b m e"]) -> tuple[Array, Array, Array]:
        """Query [b,n,heads,c], key and value [b,m,heads,c]; called in a compact method, as those below."""
        width = x.shape[-1]

        def split(name, y):
            y = Dense(width, float8=self.float8, name=name)(y)
            return y.reshape(*y.shape[:2], self.num_heads, width // self.num_heads)

        return split("query", x), split("key", context), split("value", context)

    @nn.nowrap
    def store_entropy(self, query: Array, key: Array, sees: Bool[Array, "b n m"] | None = None) -> None:
        if self.is_mutable_collection("entropy") and not self.is_initializing():
            entropy = attention_entropy(query, key, sees)
            even = jnp.log(key.shape[1]) if sees is None else jnp.log(sees.sum(-1).astype(jnp.float32)).mean()
            self.sow("entropy", "heads", jnp.stack([entropy, jnp.full_like(entropy, even)]))

    @nn.nowrap
    def attend(
        self, query: Array, key: Array, value: Array, sees: Bool[Array, "b n m"] | None = None
    ) -> Float[Array, "b n d"]:
        """What each query takes from the values whose keys it `sees` (None: from all), through the layer `out`."""
        b, n, heads, c = query.shape
        mask = None if sees is None else sees[:, None]
        with jax.numpy_dtype_promotion("standard"):  # it takes a softmax of bfloat16 products in float32
            out = jax.nn.dot_product_attention(query, key, value, mask=mask)
        last = Dense(heads * c, nn.initializers.normal(0.02), float8=self.float8, name="out")
        return last(out.reshape(b, n, heads * c))


def attention_entropy(
    query: Float[Array, "b n heads c"], key: Float[Array, "b m heads c"], sees: Bool[Array, "b n m"] | None = None
) -> Float[Array, " heads"]:
    """The mean entropy of each head's attention over keys, or over those that each query `sees`, in nats."""
    logits = jnp.einsum("bnhc,bmhc->bhnm", query, key).astype(jnp.float32) / jnp.sqrt(float(query.shape[-1]))
    logits = logits if sees is None else jnp.where(sees[:, None], logits, UNSEEN)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -(jnp.exp(log_p) * log_p).sum(-1).mean((0, 2))


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, attention to `context` where given, feed-forward."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], context: Float[Array, "b m e"] | None = None) -> Float[Array, "b n d"]:
        heads, float8 = self.config.num_heads, self.config.float8
        y = self.normed(x)
        x = x + self.drop(Attention(heads, float8, name="self_attention")(y, y), x.dtype)
        if context is not None:
            seen = context.astype(self.config.compute_dtype)
            x = x + self.drop(Attention(heads, float8, name="cross_attention")(self.normed(x), seen), x.dtype)
        return self.feed_forward(x)

    @nn.nowrap
    def normed(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Normalised, in the type that the block computes in; called in a compact method, as those below."""
        return LayerNorm()(x).astype(self.config.compute_dtype)

    @nn.nowrap
    def drop(self, y: Float[Array, "*batch d"], dtype: jnp.dtype) -> Float[Array, "*batch d"]:
        return nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(y.astype(dtype))

    @nn.nowrap
    def feed_forward(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        float8 = self.config.float8
        y = nn.relu(Dense(self.config.mlp_dim, float8=float8)(self.normed(x)))
        y = self.drop(y, x.dtype).astype(self.config.compute_dtype)
        return x + self.drop(Dense(x.shape[-1], nn.initializers.normal(0.02), float8=float8)(y), x.dtype)


def through_blocks(
    config: BlockConfig, depth: int, x: Float[Array, "b n d"], context: Float[Array, "b m e"] | None = None
) -> list[Float[Array, "b n d"]]:
    """What comes out of each of `depth` blocks in a row, which become parts of the module whose method calls this."""
    outputs = []
    for k in range(depth):
        block = nn.remat(Block) if k < round(config.remat * depth) else Block
        x = block(config, name=f"Block_{k}")(x, context)
        outputs.append(x)
    return outputs


class PositionEmbedding2D(nn.Module):
    """Learned row + column embeddings; without them the original model collapsed to a constant."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        init = nn.initializers.normal(0.02)
        rows = self.param("rows", init, (x.shape[1], x.shape[3]))
        columns = self.param("columns", init, (x.shape[2], x.shape[3]))
        return x + rows[None, :, None] + columns[None, None]


def space_to_depth(x: Float[Array, "b h w c"], k: int) -> Float[Array, "b h2 w2 ckk"]:
    """Patches of k x k pixels as channels."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // k, k, w // k, k, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // k, w // k, k * k * c)


def depth_to_space(x: Float[Array, "b h w ckk"], k: int) -> Float[Array, "b hk wk c"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, k, k, c // (k * k)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * k, w * k, c // (k * k))


class Conv3x3(nn.Module):
    """A 3x3 convolution as one product over gathered neighbours (see the module's note on products)."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 features"]:
        _, h, w, _ = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        s = self.stride
        x = jnp.concatenate([x[:, i : i + h : s, j : j + w : s] for i in range(3) for j in range(3)], axis=-1)
        return Dense(self.features)(x)


class ResidualConv(nn.Module):
    """Two pre-norm 3x3 convolutions beside the identity (He et al. 2016, Identity Mappings in Residual Networks)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = Conv3x3(x.shape[-1])(nn.relu(LayerNorm()(x)))
        y = Conv3x3(x.shape[-1])(nn.relu(LayerNorm()(y)))
        gain = self.param("gain", nn.initializers.constant(0.2), (1, 1, 1, 1))
        return x + gain * y


def sample_bilinear(
    grid: Float[Array, "b h w c"], points: Float[Array, "b n 2"]
) -> tuple[Float[Array, "b n c"], Float[Array, "b n"]]:
    """Features at points in [0,1] x [0,1] (x, y; the grid covers the square), and 1 where a point is inside.

    Points outside read the border. The four neighbours are picked by a product with their weights: a gather's
    gradient is a scatter, which accelerators and CPUs both dislike.
    """
    _, h, w, _ = grid.shape
    inside = ((points > 0.0) & (points < 1.0)).all(-1).astype(grid.dtype)

    def weights(coordinate, n):
        position = jnp.clip(coordinate * n - 0.5, 0.0, n - 1.0)
        cells = jnp.arange(n, dtype=grid.dtype)
        return nn.relu(1.0 - jnp.abs(position[..., None] - cells[None, None]))

    rows = jnp.einsum("bnh,bhwc->bnwc", weights(points[..., 1], h), grid)
    return jnp.einsum("bnw,bnwc->bnc", weights(points[..., 0], w), rows), inside
