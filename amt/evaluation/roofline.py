"""How near the train step is to its roofline: the time that its matrix products take alone, one after the other.

Each distinct product of the step, forward and backward, is timed at its shapes and types with nothing beside it, and
counts as often as it runs. What is missing to a share of 1 is all the rest: norms, softmax, moving data, the optimizer.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from amt.data.contacts import no_contacts
from amt.data.pipeline import to_batch
from amt.models.cost import Product
from amt.structs import Batch

LEAST_SECONDS = 0.005  # of a timed run of products


def step_roofline(
    step: Callable[[Any, Batch], tuple[Any, Any]],
    state: Any,
    batch: Batch,
    counts: Mapping[Product, int],
    repeats: int,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Milliseconds of a train step and of its products alone, medians, and the share of these in that.

    `counts` are the step's `amt.models.cost.products`. The state is given away, as the step's first argument is.
    `report` is told of each product that was timed.
    """
    state, _ = jax.block_until_ready(step(state, batch))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    step_seconds, product_seconds = float(np.median(seconds)), 0.0
    for product, count in counts.items():
        product_seconds += count * seconds_of(product, repeats)
        report(1)
    return {
        "step_ms": 1000 * step_seconds,
        "matmul_ms": 1000 * product_seconds,
        "step_roofline_share": product_seconds / step_seconds,
        "matmuls": sum(counts.values()),
        "distinct_matmuls": len(counts),
    }


def seconds_of(product: Product, repeats: int) -> float:
    """Of one run in a row of many, the median of `repeats` rows; starting a program is not counted."""
    rng = np.random.default_rng(0)
    operands = [jnp.asarray(rng.standard_normal(shape), dtype) for shape, dtype in product.operands]

    @jax.jit
    def row(count, first, *rest):
        def again(_, carry):
            first, out = carry
            # Each waits for the one before: none is moved out of the loop or left out.
            first = first.at[(0,) * first.ndim].set((out[(0,) * out.ndim] * 0).astype(first.dtype))
            return first, product(first, *rest)

        return jax.lax.fori_loop(0, count, again, (first, product(first, *rest)))[1]

    def timed(count: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(row(np.int32(count), *operands))
        return time.perf_counter() - start

    timed(1)
    count = 1
    while timed(count) < LEAST_SECONDS:
        count *= 2
    return max(float(np.median([timed(count) - timed(0) for _ in range(repeats)])) / count, 0.0)


def random_batch(size: int, image_size: int, frame_size: int | None, seed: int = 0) -> Batch:
    """Pictures and labels without meaning, every label valid; no frames where `frame_size` is None."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal((size, *shape)).astype(np.float32)

    def pixels(side):
        return rng.integers(0, 256, (size, side, side, 3), np.uint8)

    ahead, true, eye = np.float32([0, 0, 0.6]), np.ones(size, bool), np.eye(3, dtype=np.float32)
    K = np.float32([[3, 0, 0.5], [0, 3, 0.5], [0, 0, 1 / image_size]]) * image_size
    poses = np.concatenate([np.broadcast_to(eye, (size, 10, 3, 3)), 0.1 * normal(10, 3, 1) + ahead[:, None]], -1)
    fields = {
        "image": pixels(image_size),
        "K": np.tile(K, (size, 1, 1)),
        "R_crop_camera": np.tile(eye, (size, 1, 1)),
        "joints_3d": 0.05 * normal(21, 3) + ahead,
        "joints_2d": image_size * (0.5 + 0.1 * normal(21, 2)),
        "joints_valid": true,
        "hand_visible": true,
        "shows_left": ~true,
        "hand_pose": 0.3 * normal(48),
        "betas": normal(10),
        "hand_pose_valid": true,
        "left_basis": ~true,
        "object_pose": poses,
        "object_ids": rng.integers(1, 22, (size, 10), np.int32),
        "object_valid": np.ones((size, 10), bool),
        "grasped": np.zeros(size, np.int32),
        **{name: np.stack([np.asarray(x)] * size) for name, x in no_contacts().items()},
    }
    if frame_size is not None:
        fields |= {
            "frame": pixels(frame_size),
            "frame_joints": rng.random((size, 21, 2), np.float32),
            "frame_joints_valid": np.ones((size, 21), bool),
            "frame_has_hand": true,
            "frame_known": true,
            "frame_is_left": ~true,
        }
    return to_batch(fields)
