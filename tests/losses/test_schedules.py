"""How weights change by epoch."""

import jax
import jax.numpy as jnp
import pytest

from amt import losses

EPOCHS = {
    "diversity": {0: 2.0, 15: 1.5, 30: 1.0, 90: 1.0},
    "hand_refined": {0: 0.3, 6: 0.5, 21: 1.0, 90: 1.0},
    "physics_force": {0: 0.0, 25: 0.5, 50: 1.0, 90: 1.0},
    "physics_joint_limits": {5: 0.1},
    "physics_penetration": {10: 0.2},
    "hand_coarse": {0: 1.0, 90: 1.0},
}
TOTAL = jax.jit(losses.total)


@pytest.mark.parametrize("name", EPOCHS)
def test_a_term_counts_as_its_epoch_says(name):
    for epoch, factor in EPOCHS[name].items():
        found = TOTAL({name: jnp.float32(3.0)}, {name: 0.5}, jnp.float32(epoch))
        assert found == pytest.approx(1.5 * factor, rel=1e-5)
    assert losses.total({name: jnp.float32(3.0)}, {name: 0.5}) == pytest.approx(1.5)


def test_every_schedule_is_tested():
    assert losses.SCHEDULES.keys() < EPOCHS.keys()
