"""Image encoders: uint8 pixels to tokens, from scratch or by DINOv2 (DESIGN.md section 4)."""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from amt.models import dinov2
from amt.models.layers import (
    BlockConfig,
    Conv3x3,
    Dense,
    LayerNorm,
    PositionEmbedding2D,
    depth_to_space,
    space_to_depth,
    through_blocks,
)
from amt.models.resampling import resize

PIXEL_MEAN, PIXEL_STD = 118.0, 64.0
STRIDE = 16  # pixels per token and axis of what learns from scratch
GRID_SIZE = 224  # pixels along which `Dinov2Encoder.grid` counts tokens
FINE_CONVS = 3
SCALE_DIM = 256  # channels of each tap in `multi_scale`
MAX_WIDTH = 1024  # wider backbones' tokens (the giant's) are projected to this


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
    block: BlockConfig
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
        outputs = through_blocks(self.block, self.depth, x)
        taps = [x for k, x in enumerate(outputs) if (k + 1) * 4 % self.depth < 4]
        tokens = LayerNorm()(outputs[-1])
        grid = tokens.reshape(b, rows, columns, self.width)
        multi_scale = jnp.concatenate([Dense(self.width // 4, name=f"scale{k}")(t) for k, t in enumerate(taps)], -1)
        spread = depth_to_space(Dense(16 * self.fine_dim, name="spread")(grid), 4)
        fine = nn.relu(LayerNorm()(spread + Dense(self.fine_dim, name="skip")(early)))
        cls_token = nn.relu(Dense(self.width, name="pool")(tokens)).mean(1)
        return ImageFeatures(cls_token, tokens, grid, multi_scale, fine)


class Dinov2Encoder(nn.Module):
    """DINOv2's tokens, and maps made of them for the rest of the model.

    `grid` is how many tokens lie along 224 pixels: 16 is DINOv2's own; 14 shrinks the image to 196 pixels first
    (antialiased bicubic, Pillow's filter). `multi_scale` taps the blocks at 1/4, 1/2, 3/4 and all of the depth. `fine`
    has two cells per token and axis: `multi_scale` spread out, joined with what a linear layer sees of the 7 x 7 pixels
    below each cell, and three 3 x 3 convolutions.
    """

    backbone: dinov2.Dinov2
    grid: int
    fine_dim: int

    @nn.compact
    def __call__(self, image: UInt8[Array, "b h w 3"]) -> ImageFeatures:
        rows, columns = (n * self.grid // GRID_SIZE for n in image.shape[1:3])
        size = (rows * dinov2.PATCH, columns * dinov2.PATCH)
        pixels = resize(dinov2.normalise(image), size, antialias=True)
        out = self.backbone(pixels)
        tokens = out.tokens
        if tokens.shape[-1] > MAX_WIDTH:
            tokens = Dense(MAX_WIDTH, name="project")(tokens)
        tokens = tokens.astype(jnp.float32)
        b, first = len(image), 1 + self.backbone.num_registers
        taps = [out.hidden[self.backbone.depth * k // 4][:, first:] for k in range(1, 5)]
        taps = [Dense(SCALE_DIM, name=f"scale{k}")(LayerNorm(name=f"norm{k}")(tap)) for k, tap in enumerate(taps)]
        multi_scale = jnp.concatenate(taps, axis=-1).astype(jnp.float32)
        coarse = Dense(4 * self.fine_dim, name="spread")(multi_scale.reshape(b, rows, columns, 4 * SCALE_DIM))
        early = nn.relu(LayerNorm()(Dense(self.fine_dim)(space_to_depth(pixels, dinov2.PATCH // 2))))
        fine = nn.relu(LayerNorm()(depth_to_space(coarse, 2) + Dense(self.fine_dim, name="skip")(early)))
        for _ in range(FINE_CONVS):
            fine = nn.relu(LayerNorm()(Conv3x3(self.fine_dim)(fine)))
        patches = tokens[:, first:]
        patch_grid = patches.reshape(b, rows, columns, patches.shape[-1])
        return ImageFeatures(tokens[:, 0], patches, patch_grid, multi_scale, fine)
