"""Rate groups, schedules and what has no state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amt import hand as hand_model
from amt.errors import UserError
from amt.modes.train import build_model
from amt.training.optimizer import OptimizerConfig, learning_rate, make_optimizer, rate_group
from amt.training.sharding import path_name
from amt.training.step import init_params
from configs import base, demo, vmt

CONFIG = OptimizerConfig(steps=60, learning_rate=3e-3, warmup_steps=1, weight_decay=0.01, clip_norm=1.0, ema_decay=0.99)
PARAMS = {
    "finder": {"Dense_0": {"kernel": np.ones((2, 2), np.float32)}},
    "perception": {
        "encoder": {
            "backbone": {"block3": {"fc1": {"kernel": np.ones((2, 2), np.float32)}}},
            "Dense_0": {"kernel": np.ones((2, 2), np.float32)},
        },
        "object_decoder": {"Dense_0": {"kernel": np.ones((2, 2), np.float32)}},
    },
}
PATHS = {
    "finder": ("finder", "Dense_0", "kernel"),
    "backbone": ("perception", "encoder", "backbone", "block3", "fc1", "kernel"),
    "encoder": ("perception", "encoder", "Dense_0", "kernel"),
    "decoder": ("perception", "object_decoder", "Dense_0", "kernel"),
}


def changed(**fields):
    return OptimizerConfig(**vars(CONFIG) | fields)


def at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def second_update(optimizer, gradient=0.1):
    """The state and the update of the second step: the first of the warm-up has rate 0."""
    state = optimizer.init(PARAMS)
    slope = jax.tree.map(lambda x: np.full_like(x, gradient), PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):
            updates, state = optimizer.update(slope, state, PARAMS)
    return state, updates


@pytest.mark.parametrize(
    "config", [base.get_config(), demo.get_config(), vmt.get_config()], ids=["base", "demo", "vmt"]
)
def test_every_parameter_belongs_to_exactly_one_group(config):
    model, _ = build_model(config)
    hand = jax.tree.map(jnp.asarray, hand_model.load())
    size = config.data.image_size, config.finder.frame_size
    shapes = jax.eval_shape(lambda: init_params(model, 0, *size, hand))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    groups = {path: rate_group(path) for path in paths}
    rest = {"encoder", "decoder"}
    expected = {"base": rest | {"backbone", "finder"}, "conv": rest | {"finder"}, "vmt": rest}
    kind = "vmt" if config.family == "vmt" else "conv" if config.model.encoder == "conv" else "base"
    assert set(groups.values()) == expected[kind]
    for path, group in groups.items():
        assert ("/backbone/" in path) == (group == "backbone")
        assert path.startswith("finder/") == (group == "finder")
        # Of the other patterns only those of the same group match too.
        assert ("decoder" in path.split("/")[1]) <= (group == "decoder")


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(UserError, match="perception/nose/kernel: belongs to no rate group"):
        rate_group("perception/nose/kernel")


def test_groups_learn_at_their_own_rate():
    rates = {"backbone": 0.01, "encoder": 0.5, "finder": 2.0}
    _, updates = second_update(make_optimizer(changed(rates=rates)))
    for group, path in PATHS.items():
        np.testing.assert_allclose(at(updates, path), rates.get(group, 1.0) * at(updates, PATHS["decoder"]), rtol=1e-6)
    # Adam's first steps are of the size of the rate, and the decay of ones is 1% of it.
    np.testing.assert_allclose(at(updates, PATHS["decoder"]), -3e-3 * 1.01, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "learns"),
    [
        ({"component": "finder"}, {"finder"}),
        ({"component": "perception"}, {"backbone", "encoder", "decoder"}),
        ({"component": "perception/object_decoder"}, {"decoder"}),
        ({"frozen": lambda path: "backbone" in path}, {"finder", "encoder", "decoder"}),
        ({"rates": {"encoder": 0.0}}, {"finder", "backbone", "decoder"}),
    ],
)
def test_what_does_not_learn_has_no_state_and_no_update(arguments, learns):
    rates = arguments.pop("rates", {})
    state, updates = second_update(make_optimizer(changed(rates=rates), **arguments))
    assert {group for group, path in PATHS.items() if np.any(at(updates, path))} == learns
    assert sum(x.nbytes for x in jax.tree.leaves(state) if x.ndim) == 2 * 16 * len(learns)


def test_frozen_gradients_do_not_take_part_in_clipping():
    """Adam does not see the size of a gradient, but sees clipping of the one before change it."""
    big = jax.tree.map(lambda x: np.full_like(x, 1.0), PARAMS)
    big["finder"]["Dense_0"]["kernel"] *= 1e6
    optimizer = make_optimizer(CONFIG, "perception")
    state = optimizer.init(PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update(big, state, PARAMS)
    first = optax.tree.get(state, "mu")["perception"]["encoder"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(first, 0.1 / np.sqrt(12), rtol=1e-5)  # three kernels of four ones, clipped to norm 1


def test_warm_restarts_are_torchs():
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    config = changed(steps=70, schedule="restarts", restart_steps=10, warmup_steps=0, learning_rate_floor=1e-6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, T_mult=2, eta_min=1e-6)
    ours = learning_rate(config)
    for step in range(70):
        assert float(ours(step)) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-4), step
        optimizer.step()
        reference.step()


def test_a_cosine_starts_with_the_warm_up_and_ends_at_the_floor():
    ours = learning_rate(changed(warmup_steps=10, learning_rate_floor=1e-5))
    assert [float(ours(k)) for k in (0, 5, 10, 60)] == pytest.approx([0, 1.5e-3, 3e-3, 1e-5], rel=1e-5)
    restarts = learning_rate(changed(warmup_steps=10, schedule="restarts", restart_steps=20))
    assert [float(restarts(k)) for k in (0, 5, 10, 20)] == pytest.approx([0, 1.5e-3, 3e-3, 3e-3], rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "linear"}, "config.train.schedule=linear: expected cosine or restarts"),
        ({"schedule": "restarts"}, "config.train.restart_steps=0: expected more than warmup_steps=1"),
        ({"accumulation": 0}, "config.train.accumulation=0: expected 1 or more"),
        ({"rates": {"nose": 1.0}}, "config.train.rates.nose: no such group"),
        ({"rates": {"encoder": -1.0}}, "config.train.rates.encoder=-1.0: expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(changed(**fields))
