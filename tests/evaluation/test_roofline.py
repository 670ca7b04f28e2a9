"""Products timed alone, and the batch without meaning that the step is timed on."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct as Shape

from amt.evaluation.roofline import random_batch, step_roofline
from amt.models.cost import products
from tests.samples import make_batch


def square(n):
    (product,) = products(jnp.matmul, Shape((n, n), jnp.float32), Shape((n, n), jnp.float32))
    return product


def test_the_figures_of_a_step_belong_together():
    """How large they are is the machine's."""

    @jax.jit
    def step(state, batch):
        for _ in range(4):
            state = state @ batch
        return state, {}

    state, batch = np.eye(512, dtype=np.float32), np.eye(512, dtype=np.float32)
    figures = step_roofline(step, state, batch, products(step, state, batch), 5)
    assert figures["matmuls"] == 4 and figures["distinct_matmuls"] == 1
    assert figures["step_ms"] > 0 and figures["matmul_ms"] > 0
    assert figures["step_roofline_share"] == figures["matmul_ms"] / figures["step_ms"]


def test_the_random_batch_is_like_a_real_one():
    ours, theirs = random_batch(4, 32, 48), make_batch(4, image_size=32, frame_size=48)
    described = [jax.tree.map(lambda x: (np.shape(x), x.dtype), x) for x in (ours, theirs)]
    assert described[0] == described[1]
    assert ours.joints_valid.all() and np.isfinite(ours.object_pose).all()
    assert random_batch(4, 32, None).frame is None
