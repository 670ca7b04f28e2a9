"""Figures of object poses, by the points of their models.

Of many samples with many points a few samples at a time are compared: memory is that of `AT_ONCE`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from amt.geometry.primitives import BOX
from amt.metrics.common import NEAREST, joint_errors
from amt.structs import Array

AT_ONCE = 16  # samples
RECALL_SHARE = 0.1  # of the diameter
BOP_SHARES = tuple(0.05 * k for k in range(1, 11))  # of the diameter


def position_error(
    predicted: Float[Array, "*batch 3 4"], truth: Float[Array, "*batch 3 4"]
) -> Float[jax.Array, "*batch"]:
    """Distance between the origins of two object poses."""
    return jnp.linalg.norm(predicted[..., 3] - truth[..., 3], axis=-1)


def add(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
) -> Float[jax.Array, "*batch"]:
    """ADD: mean distance of the model's points under both poses, for objects without symmetry.

    Source: Hinterstoisser et al., "Model based training, detection and pose estimation", ACCV 2012.
    """
    return joint_errors(_posed(predicted, points), _posed(truth, points)).mean(-1)


def add_s(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
) -> Float[jax.Array, "*batch"]:
    """ADD-S: mean distance from each true point to the nearest predicted one, for symmetric objects.

    Source: Xiang et al., PoseCNN, RSS 2018; the idea is Hinterstoisser's, as in `add`.
    """

    def one(args):
        ours, theirs = _posed(args[0], args[2]), _posed(args[1], args[2])
        # One coordinate after the other: the compiler fuses it with the minimum, without an array of all pairs.
        square = sum((ours[:, None, i] - theirs[None, :, i]) ** 2 for i in range(3))
        return jnp.sqrt(square.min(0)).mean()

    return _each(one, (predicted, truth, points))


def mssd(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
    symmetries: Float[Array, "*batch s 3 3"],
) -> Float[jax.Array, "*batch"]:
    """MSSD: the largest distance of the model's points under both poses, for the best of the symmetries, metres.

    `symmetries` are rotations about the model's origin; one that is repeated changes nothing.
    Source: Hodan et al., "BOP Challenge 2020 on 6D object localization", ECCV Workshops 2020, section 2.2.
    """

    def one(args):
        pose, true, x, S = args
        # The difference of two poses is linear in the point; coordinates before points, which are many.
        R = pose[None, :, :3] - jnp.einsum("ij,sjk->sik", true[:, :3], S, precision="highest")
        gap = jnp.einsum("sij,nj->sin", R, x, precision="highest") + (pose - true)[None, :, 3:]
        return jnp.sqrt((gap**2).sum(1).max(-1).min())

    return _each(one, (predicted, truth, points, symmetries))


def mspd_px(
    predicted: Float[Array, "*batch 3 4"],
    truth: Float[Array, "*batch 3 4"],
    points: Float[Array, "*batch n 3"],
    symmetries: Float[Array, "*batch s 3 3"],
    K: Float[Array, "*batch 3 3"],
) -> Float[jax.Array, "*batch"]:
    """MSPD: as `mssd`, of the points' projections, pixels; a point behind the camera counts as 5 cm ahead.

    Source: Hodan et al., ECCV Workshops 2020, section 2.2.
    """

    def one(args):
        pose, true, x, S, k = args
        turned = jnp.einsum("ij,sjk->sik", true[:, :3], S, precision="highest")
        gap = _pixels(pose[None, :, :3], pose[:, 3], x, k) - _pixels(turned, true[:, 3], x, k)
        return jnp.sqrt((gap**2).sum(1).max(-1).min())

    return _each(one, (predicted, truth, points, symmetries, K))


def recall(
    errors: Float[Array, "*n"],
    diameters: Float[Array, "*n"],
    valid: Bool[Array, "*n"],
    share: float = RECALL_SHARE,
) -> Float[jax.Array, ""]:
    """Share of valid errors (ADD, ADD-S or MSSD) below a share of the object's diameter; 0 where none is valid."""
    count = jnp.maximum(valid.sum().astype(errors.dtype), 1.0)
    return (valid & (errors < share * diameters)).sum().astype(errors.dtype) / count


def average_recall(
    errors: Float[Array, "*n"],
    scales: Float[Array, "*n"],
    valid: Bool[Array, "*n"],
    shares: tuple[float, ...] = BOP_SHARES,
) -> Float[jax.Array, ""]:
    """The mean of `recall` over shares of a scale: of MSSD the diameter's 5% to 50% in steps of 5%.

    Of MSPD BOP takes 5 to 50 pixels in steps of 5 in an image 640 wide: `scales` of 100 px x width / 640 with the
    same shares. Source: Hodan et al., ECCV Workshops 2020, section 2.3.
    """
    return jnp.stack([recall(errors, scales, valid, share) for share in shares]).mean()


def surface_points(half: Float[np.ndarray, " 3"], axis: int, count: int, seed: int = 0) -> Float[np.ndarray, "count 3"]:
    """Random points on the surface of a box or cylinder (`amt.data.ycb.Primitive`), in its own frame."""
    rng = np.random.default_rng(seed)
    half = np.asarray(half, np.float64)
    if axis == BOX:
        areas = np.array([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
        side = rng.choice(3, count, p=areas / areas.sum())
        points = rng.uniform(-1, 1, (count, 3))
        points[np.arange(count), side] = rng.choice([-1, 1], count)
        return (points * half).astype(np.float32)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    radius, height = (half[u] + half[v]) / 2, half[axis]
    on_cap = rng.random(count) < radius / (radius + 2 * height)  # 2 pi r^2 of 2 pi r^2 + 4 pi r h
    angle = rng.uniform(0, 2 * np.pi, count)
    distance = radius * np.where(on_cap, np.sqrt(rng.random(count)), 1.0)
    points = np.empty((count, 3))
    points[:, u], points[:, v] = distance * np.cos(angle), distance * np.sin(angle)
    points[:, axis] = height * np.where(on_cap, rng.choice([-1, 1], count), rng.uniform(-1, 1, count))
    return points.astype(np.float32)


def _each(one, args):
    """`one` of every sample of any batch shape, `AT_ONCE` samples at a time."""
    shape = args[0].shape[:-2]
    flat = tuple(jnp.asarray(x).reshape(-1, *x.shape[len(shape) :]) for x in args)
    return jax.lax.map(one, flat, batch_size=AT_ONCE).reshape(shape)


def _pixels(R, t, points, K):
    """Places [s,2,n] in the image of n points under s rotations and a translation; coordinates before points."""
    posed = jnp.einsum("sij,nj->sin", R, points, precision="highest") + t[None, :, None]
    posed = posed.at[:, 2].set(jnp.maximum(posed[:, 2], NEAREST))
    uvw = jnp.einsum("ij,sjn->sin", K, posed, precision="highest")
    return uvw[:, :2] / uvw[:, 2:]


def _posed(pose, points):
    """Points of the model under [R|t]; products at full precision, else accelerators lose millimetres."""
    turned = jnp.einsum("...ij,...nj->...ni", pose[..., :3], points, precision="highest")
    return turned + pose[..., None, :, 3]
