"""What every term is made of: masked means, and distances whose gradient is finite."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

DECIMETRES = 10.0


def masked_mean(x: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, ""]:
    """Mean over the mask; 0 where it is empty.

    Masked entries may be non-finite only if their gradient is not used.
    """
    mask = mask.astype(x.dtype)
    return jnp.where(mask > 0, x, 0.0).sum() / jnp.maximum(mask.sum(), 1.0)


def distance(a: Float[Array, "*b 3"], b: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
    """Euclidean distance with a finite gradient at zero."""
    d = a - b
    return jnp.sqrt((d * d).sum(-1) + 1e-12)


def smooth_l1(x: Float[Array, "*b"], knee: float = 1.0) -> Float[Array, "*b"]:
    """x^2 / 2 knee below the knee, |x| - knee / 2 above. Source: Girshick, "Fast R-CNN", ICCV 2015."""
    size = jnp.abs(x)
    return jnp.where(size < knee, 0.5 * x * x / knee, size - 0.5 * knee)
