"""Attention over frames: which are seen, and how far away they are."""

import jax
import jax.numpy as jnp
import numpy as np

from amt.models.temporal import FrameAttention, turned, visible


def test_windows_are_what_a_loop_says():
    valid = np.random.default_rng(0).uniform(size=(2, 9)) > 0.4
    found = np.asarray(visible(jnp.asarray(valid), 4, 3))
    for b, q, k in np.ndindex(2, 4, 9):
        frame = q + 5
        assert found[b, q, k] == (frame - 2 <= k <= frame and (valid[b, k] or k == frame))


def test_positions_matter_by_their_difference():
    query, key = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 2, 16)).astype(np.float32)

    def logit(p, q):
        return np.einsum("btnhc,btnhc->h", turned(query, jnp.asarray([p])), turned(key, jnp.asarray([q])))

    np.testing.assert_allclose(logit(3, 1), logit(15, 13), atol=1e-5)
    np.testing.assert_allclose(logit(4, 4), np.einsum("btnhc,btnhc->h", query, key), atol=1e-5)
    assert np.abs(logit(3, 1) - logit(3, 2)).max() > 1e-2


def test_entropy_counts_the_frames_that_are_seen():
    """Attention of queries that are zero is even over them."""
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
    sees, module = visible(jnp.asarray([[True, False, True]]), 3, 2), FrameAttention(num_heads=2)
    variables = module.init(jax.random.key(0), x, x, sees)
    variables["params"]["query"]["kernel"] *= 0
    _, stored = jax.jit(lambda v: module.apply(v, x, x, sees, mutable=["entropy"]))(variables)
    found, even = stored["entropy"]["heads"][0]
    np.testing.assert_allclose(even, np.log([2, 4, 2]).mean(), rtol=1e-5)  # two tokens each of 1, 2 and 1 frames
    np.testing.assert_allclose(found, even, rtol=1e-5)
