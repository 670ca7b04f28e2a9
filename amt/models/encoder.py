"""Image encoders: uint8 pixels to tokens. The interface is that of DINOv2's in DESIGN.md section 4."""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models.layers import (
    Block,
    Conv3x3,
    Dense,
    LayerNorm,
    PositionEmbedding2D,
    depth_to_space,
    space_to_depth,
)

PIXEL_MEAN, PIXEL_STD = 118.0, 64.0
STRIDE = 16  # pixels per token and axis, of every encoder here


@flax.struct.dataclass
class ImageFeatures:
    """What an image encoder returns; `fine` is a map of higher resolution for pixel-aligned sampling."""

    cls_token: Float[Array, "b d"]
    patch_tokens: Float[Array, "b n d"]
    patch_grid: Float[Array, "b g g d"]
    multi_scale: Float[Array, "b n m"]
    fine: Float[Array, "b f f c"]


def normalise(image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Pixels to zero mean and unit deviation of ordinary photographs."""
    return (image.astype(jnp.float32) - PIXEL_MEAN) / PIXEL_STD


class PatchEncoder(nn.Module):
    """A small image encoder that learns from scratch: a convolutional stem, 2D positions, transformer blocks.

    The stem has stride 16: 4 by space-to-depth, 2 by each of two convolutions (Xiao et al. 2021, Early
    Convolutions Help Transformers See Better). `fine` joins the stem's stride-4 map with the tokens spread
    out over their pixels.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    stem: Sequence[int]
    fine_dim: int

    @nn.compact
    def __call__(self, image: UInt8[Array, "b h w 3"]) -> ImageFeatures:
        first, second = self.stem
        early = nn.relu(LayerNorm()(Dense(first)(space_to_depth(normalise(image), 4))))
        x = nn.relu(LayerNorm()(Conv3x3(second, stride=2)(early)))
        x = PositionEmbedding2D()(Conv3x3(self.width, stride=2)(x))
        b, rows, columns, _ = x.shape
        x = x.reshape(b, rows * columns, self.width)
        taps = []
        for k in range(self.depth):
            x = Block(self.num_heads, self.mlp_dim)(x)
            if (k + 1) * 4 % self.depth < 4:
                taps.append(x)
        tokens = LayerNorm()(x)
        grid = tokens.reshape(b, rows, columns, self.width)
        multi_scale = jnp.concatenate([Dense(self.width // 4, name=f"scale{k}")(t) for k, t in enumerate(taps)], -1)
        spread = depth_to_space(Dense(16 * self.fine_dim, name="spread")(grid), 4)
        fine = nn.relu(LayerNorm()(spread + Dense(self.fine_dim, name="skip")(early)))
        cls_token = nn.relu(Dense(self.width, name="pool")(tokens)).mean(1)
        return ImageFeatures(cls_token, tokens, grid, multi_scale, fine)
