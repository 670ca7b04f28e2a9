"""2.5D keypoints by soft-argmax over heatmaps.

A small network learns places in an image from heatmaps far sooner than joint angles from a vector: these
keypoints are the evidence that the coarse hand and the refiner start from.
Sources: Sun et al. 2018, Integral Human Pose Regression; Iqbal et al. 2018, Hand Pose Estimation via Latent
2.5D Heatmap Regression.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.geometry import cameras
from amt.models.encoder import ImageFeatures
from amt.models.layers import Dense, depth_to_space, head

NUM_JOINTS = 21
REACH = 0.1  # heatmaps cover the crop and this share of its side around it
UPSAMPLING = 4  # heatmap cells per token and axis
MEAN_LOG_SCALE = -1.4  # of the metric width of a crop at the hand, metres


@flax.struct.dataclass
class Keypoints:
    """`uv` in crop sides (0..1), `depth` behind the wrist in units of `scale`, `log_heatmaps` over the cells.

    `scale` is the metric width that the crop covers at the wrist's depth: depth = scale x focal length in
    crop sides.
    """

    uv: Float[Array, "b 21 2"]
    depth: Float[Array, "b 21"]
    scale: Float[Array, " b"]
    log_heatmaps: Float[Array, "b 21 h w"]


def cell_centers(n: int) -> Float[Array, " n"]:
    """Where the n heatmap cells of an axis lie, in crop sides."""
    return (jnp.arange(n, dtype=jnp.float32) + 0.5) / n * (1 + 2 * REACH) - REACH


def expected_place(p: Float[Array, "*n h w"]) -> Float[Array, "*n 2"]:
    """Soft-argmax: the mean place, in crop sides, of probabilities over the heatmap cells."""
    h, w = p.shape[-2:]
    return jnp.stack([p.sum(-2) @ cell_centers(w), p.sum(-1) @ cell_centers(h)], axis=-1)


class KeypointHead(nn.Module):
    """Heatmaps and depth maps from the tokens, the metric scale from the pooled token."""

    @nn.compact
    def __call__(self, features: ImageFeatures) -> Keypoints:
        maps = Dense(NUM_JOINTS * 2 * UPSAMPLING**2, nn.initializers.normal(0.02))(features.patch_grid)
        maps = depth_to_space(maps, UPSAMPLING)
        b, h, w, _ = maps.shape
        maps = maps.reshape(b, h, w, 2, NUM_JOINTS).transpose(3, 0, 4, 1, 2)
        log_p = jax.nn.log_softmax(4.0 * maps[0].reshape(b, NUM_JOINTS, h * w), axis=-1)
        p = jnp.exp(log_p).reshape(b, NUM_JOINTS, h, w)
        depth = (p * maps[1]).sum((-2, -1)) + head(NUM_JOINTS)(features.cls_token)
        scale = jnp.exp(head(1)(features.cls_token)[:, 0] + MEAN_LOG_SCALE)
        depth = depth - depth[:, :1]
        return Keypoints(expected_place(p), depth, scale, log_p.reshape(b, NUM_JOINTS, h, w))


def to_camera(
    uv: Float[Array, "b n 2"],
    depth: Float[Array, "b n"],
    scale: Float[Array, " b"],
    K: Float[Array, "b 3 3"],
    image_size: int,
) -> Float[Array, "b n 3"]:
    """2.5D points (crop sides, depth behind the wrist in units of `scale`) to metres in the crop's camera."""
    pixels = uv * image_size - 0.5
    wrist_depth = scale * K[:, 0, 0] / image_size
    return cameras.unproject(pixels, wrist_depth[:, None] + depth * scale[:, None], K)
