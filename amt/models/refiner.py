"""The pixel-aligned refiner: project 3D points into the image features, read them there, move the points."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.geometry import cameras
from amt.models.layers import Dense, LayerNorm, head, sample_bilinear

MIN_DEPTH = 0.05  # metres; nearer points are not projected


@dataclasses.dataclass(frozen=True)
class RefinerConfig:
    """`point_widths` are the layers of the point encoder; empty, the numbers themselves are all that is given."""

    width: int
    steps: int
    point_widths: tuple[int, ...]


class PixelAlignedRefiner(nn.Module):
    """Corrections with step sizes 0.5^k (Saito et al. 2019, PIFu, for the pixel-aligned features).

    Points are read and moved in units of `scale`, the metric width of the crop at the hand, so that a point
    means the same at any distance. `evidence` is what else is known about each point.
    """

    config: RefinerConfig
    image_size: int

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "b n 3"],
        evidence: Float[Array, "b n e"],
        target: Float[Array, "b n 3"] | None,
        fine: Float[Array, "b f f c"],
        K: Float[Array, "b 3 3"],
        scale: Float[Array, " b"],
    ) -> Float[Array, "b n 3"]:
        """Points in the crop's camera frame, moved; `target` holds other estimates of them, if any."""
        for k in range(self.config.steps):
            usable = points[..., 2:] > MIN_DEPTH
            safe = jnp.where(usable, points, jnp.asarray([0.0, 0.0, 1.0])[None, None])
            uv = (cameras.project(safe, K) + 0.5) / self.image_size
            seen, inside = sample_bilinear(fine, uv)
            inside = inside[..., None] * usable.astype(points.dtype)
            relative = (points - points[:, :1]) / scale[:, None, None]
            place = jnp.concatenate([jnp.clip(uv, -1.0, 2.0), relative], axis=-1)
            x = [seen * inside, inside, evidence, place]
            for j, width in enumerate(self.config.point_widths):
                place = nn.relu(Dense(width, name=f"point{k}_{j}")(place))
            if self.config.point_widths:
                x.append(place)
            if target is not None:
                x.append((target - points) / scale[:, None, None])
            x = Dense(self.config.width, name=f"in{k}")(jnp.concatenate(x, axis=-1))
            x = nn.relu(LayerNorm(name=f"norm{k}")(x))
            x = nn.relu(Dense(self.config.width, name=f"hidden{k}")(x))
            move = head(3)(x)
            if target is not None:
                move = move + nn.sigmoid(head(1)(x)) * (target - points) / scale[:, None, None]
            points = points + move * scale[:, None, None] * 0.5**k
        return points
