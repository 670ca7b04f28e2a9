"""DINOv2 (Oquab et al. 2023) with and without registers (Darcet et al. 2023), equal to Hugging Face's to rounding.

backbone, params = amt.models.dinov2.from_huggingface("dinov2-large")
out = backbone.apply({"params": params}, amt.models.dinov2.normalise(images))  # uint8 RGB [b,h,w,3]
out.tokens  # [b,1+r+n,d]: the class token, r registers, patches row by row
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8

from amt.errors import UserError
from amt.models import dinov2_weights, weights
from amt.models.layers import Attention, Dense, LayerNorm, space_to_depth
from amt.models.resampling import resize

PATCH = 14  # pixels per token and axis
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in 0..1
SIZES = {  # width, depth, heads
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "giant": (1536, 40, 24),
}
ARCHITECTURE = ("width", "depth", "num_heads", "num_registers", "swiglu", "position_grid")  # what weights depend on


def normalise(image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Pixels as DINOv2 was trained on them: ImageNet's mean and standard deviation."""
    mean, std = (255 * np.asarray(x, np.float32)[None, None, None] for x in (MEAN, STD))
    return (image.astype(jnp.float32) - mean) / std


@flax.struct.dataclass
class Dinov2Output:
    """`hidden` are the tokens behind the embeddings and behind every block; `tokens` the last ones, normalised."""

    hidden: tuple[Float[Array, "b n d"], ...]
    tokens: Float[Array, "b n d"]


class Dinov2Block(nn.Module):
    """Self-attention and feed-forward, each scaled per channel (LayerScale: Touvron et al. 2021) before it is added."""

    num_heads: int
    swiglu: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        width = x.shape[-1]

        def scaled(name, y):
            scale = self.param(name, nn.initializers.ones_init(), (width,))
            return scale.astype(y.dtype)[None, None] * y

        y = LayerNorm(name="norm1")(x)
        x = x + scaled("scale1", Attention(self.num_heads, name="self_attention")(y, y))
        y = LayerNorm(name="norm2")(x)
        return x + scaled("scale2", self.gated(y) if self.swiglu else self.mlp(y))

    def mlp(self, x):
        """Four times as wide, exact GELU."""
        y = Dense(4 * x.shape[-1], name="fc1")(x)
        y = nn.gelu(y.astype(jnp.float32), approximate=False).astype(x.dtype)
        return Dense(x.shape[-1], name="fc2")(y)

    def gated(self, x):
        """SwiGLU (Shazeer 2020) of two thirds of the width, rounded up to a multiple of 8."""
        hidden = (8 * x.shape[-1] // 3 + 7) // 8 * 8
        gate, up = jnp.split(Dense(2 * hidden, name="weights_in")(x), 2, axis=-1)
        return Dense(x.shape[-1], name="weights_out")(nn.silu(gate) * up)


class Dinov2(nn.Module):
    """The backbone; `position_grid` is the side of the learned position embedding, resampled for other images.

    Computes in `dtype`; parameters are float32. The embeddings and the first `num_frozen_blocks` blocks get no
    gradient, and of the others the share `remat` is computed again in the backward pass instead of being kept.
    """

    width: int
    depth: int
    num_heads: int
    num_registers: int = 0
    swiglu: bool = False
    position_grid: int = 37
    dtype: jax.typing.DTypeLike = jnp.float32
    num_frozen_blocks: int = 0
    remat: float = 0.5

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Dinov2Output:
        """Normalised pixels, of sides that are multiples of 14."""
        x = self.embed(pixels)
        hidden = [x]
        # The first blocks: when the backward pass comes to them, what the others kept is free again.
        kept_from = self.num_frozen_blocks + round(self.remat * (self.depth - self.num_frozen_blocks))
        for k in range(self.depth):
            frozen = k < self.num_frozen_blocks
            block = Dinov2Block if frozen or k >= kept_from else nn.remat(Dinov2Block)
            x = block(self.num_heads, self.swiglu, name=f"block{k}")(x)
            x = jax.lax.stop_gradient(x) if frozen else x
            hidden.append(x)
        return Dinov2Output(tuple(hidden), LayerNorm(name="norm")(x))

    def embed(self, pixels):
        """Class token and patches with their positions, and the registers, which have none, between them."""
        init = nn.initializers.truncated_normal(0.02)
        patches = space_to_depth(pixels.astype(self.dtype), PATCH)
        b, rows, columns, _ = patches.shape
        patches = Dense(self.width, name="patch")(patches).reshape(b, rows * columns, self.width)
        cls_token = self.param("cls_token", init, (1, self.width))
        # Only pre-training reads it; here, so that a conversion loses nothing.
        self.param("mask_token", nn.initializers.zeros_init(), (1, self.width))
        positions = self.param("positions", init, (1 + self.position_grid**2, self.width))
        grid = positions[1:].reshape(1, self.position_grid, self.position_grid, self.width)
        # Hugging Face antialiases only where there are registers.
        grid = resize(grid, (rows, columns), antialias=self.num_registers > 0).reshape(rows * columns, self.width)
        first = [cls_token + positions[:1]]
        if self.num_registers:
            first.append(self.param("register_tokens", init, (self.num_registers, self.width)))
        first = jnp.concatenate(first)[None].astype(self.dtype)
        first = jnp.broadcast_to(first, (b, *first.shape[1:]))
        return jnp.concatenate([first, patches + grid[None].astype(self.dtype)], axis=1)


def published(size: str, registers: bool, **settings: Any) -> Dinov2:
    """One of the eight architectures that there are weights of; `settings` are the module's other fields."""
    width, depth, num_heads = SIZES[size]
    return Dinov2(width, depth, num_heads, 4 if registers else 0, size == "giant", **settings)


def is_frozen(path: str, num_frozen_blocks: int) -> bool:
    """Whether a parameter of the backbone gets no gradient, by its path: names joined by slashes."""
    name = path.split("/")[0]
    if name.startswith("block"):
        return int(name.removeprefix("block")) < num_frozen_blocks
    return num_frozen_blocks > 0 and name != "norm"


def parameter_shapes(backbone: Dinov2) -> dict[str, tuple[int, ...]]:
    """Shapes by path, names joined by slashes; nothing is allocated."""
    pixels = jax.ShapeDtypeStruct((1, PATCH, PATCH, 3), jnp.float32)
    variables = jax.eval_shape(backbone.init, jax.random.key(0), pixels)
    return {path: x.shape for path, x in flatten_dict(variables["params"], sep="/").items()}


def from_huggingface(folder: str | Path) -> tuple[Dinov2, dict[str, Any]]:
    """A Hugging Face folder (config.json, model.safetensors or its shards) as a module and its float32 parameters.

    Raises `UserError` for what is missing, damaged or not DINOv2, and one that names every tensor that does not fit.
    """
    folder = Path(folder).expanduser()
    backbone = Dinov2(**dinov2_weights.read_config(folder))
    return backbone, unflatten_dict(dinov2_weights.read_params(folder, parameter_shapes(backbone)), sep="/")


def architecture(backbone: Dinov2) -> dict[str, Any]:
    """The fields that weights depend on."""
    return {name: getattr(backbone, name) for name in ARCHITECTURE}


def save(path: Path, backbone: Dinov2, params: dict[str, Any]) -> None:
    """Float32 parameters, names joined by slashes; the file's metadata holds the architecture."""
    weights.write(path, flatten_dict(params, sep="/"), {"dinov2": architecture(backbone)})


def load(path: str | Path) -> tuple[Dinov2, dict[str, Any]]:
    """What `save` wrote. Raises `UserError` for a file that is missing, damaged or another's."""
    path = Path(path).expanduser()
    expected = "a backbone.safetensors written by --mode=convert --input=HF_FOLDER"
    flat, about = weights.read(path, expected, ("dinov2",))
    backbone = Dinov2(**about["dinov2"])
    if {name: x.shape for name, x in flat.items()} != parameter_shapes(backbone):
        raise UserError(f"weights {path}: its tensors are not those of its architecture; expected {expected}")
    return backbone, unflatten_dict(flat, sep="/")
