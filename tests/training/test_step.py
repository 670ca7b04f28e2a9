"""The train step: the same on every mesh, learns, and decays and averages as it says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from amt import hand as hand_model
from amt.data.pipeline import to_mesh
from amt.losses import SCHEDULES
from amt.models import factory, sigma_reparam
from amt.models.dinov2 import Dinov2
from amt.models.encoder import Dinov2Encoder
from amt.models.perception import Amt
from amt.training.collectives import traffic
from amt.training.optimizer import OptimizerConfig, make_optimizer
from amt.training.sharding import AXES, batch_sharding, make_mesh, path_name
from amt.training.step import SKIPPED, Objective, create_state, init_params, make_train_step, perception_loss
from configs import base, demo, vmt
from tests.samples import make_batch

CONFIG = demo.get_config("tiny")
HAND = hand_model.load()
OPTIMIZER = OptimizerConfig(
    steps=60, learning_rate=3e-3, warmup_steps=1, weight_decay=0.01, clip_norm=1.0, ema_decay=0.99
)
STEPS = 5
WEIGHTS = base.get_config().train.loss.to_dict()
# A softmax does not see what is added to all of its keys.
KEY_BIASES = r".*/key/bias|perception/contact_decoder/Dense_2/bias"


def one_device():
    return jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])


class Run:
    """A model on a mesh: `step` takes the state one further on the same batch."""

    def __init__(self, mesh, params, batch):
        optimizer = make_optimizer(OPTIMIZER)
        model = factory.build(CONFIG.model, CONFIG.finder, CONFIG.data.image_size, blocks={"dropout": 0.05})
        self.state = create_state(params, optimizer, mesh, with_gains=True)
        objective = Objective(WEIGHTS, steps_per_epoch=2)
        step = make_train_step(
            perception_loss(model, objective, HAND), optimizer, OPTIMIZER.ema_decay, self.state, mesh
        )
        self._batch = to_mesh(batch, batch_sharding(mesh))
        self._step = step.lower(self.state, self._batch).compile()

    def step(self):
        self.state, metrics = self._step(self.state, self._batch)
        return {name: float(value) for name, value in metrics.items()}

    def collectives(self):
        return traffic(self._step.as_text(), 8)


@pytest.fixture(scope="module")
def params():
    model = factory.build(CONFIG.model, CONFIG.finder, CONFIG.data.image_size)
    made = init_params(model, 0, CONFIG.data.image_size, CONFIG.finder.frame_size, HAND)
    made["perception"]["joint_logits"] = np.zeros(21, np.float32)
    return jax.tree.map(np.asarray, made)


@pytest.fixture(scope="module")
def batch():
    return make_batch(8)


@pytest.fixture(scope="module")
def single(params, batch):
    """One device after `STEPS` steps: the run, its metrics, its parameters at that time."""
    run = Run(one_device(), params, batch)
    metrics = [run.step() for _ in range(STEPS)]
    return run, metrics, jax.tree.map(np.asarray, run.state)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2)])
def test_every_mesh_gives_what_one_device_gives(sizes, single, params, batch):
    """Sums over devices are taken in another order: tolerances are float32 rounding times a hundred."""
    _, expected, reference = single
    run = Run(make_mesh(*sizes), params, batch)
    for theirs in expected:
        ours = run.step()
        assert ours.keys() == theirs.keys()
        for name in ours:
            rel = 1e-5 if name == "loss" else 5e-5
            assert ours[name] == pytest.approx(theirs[name], rel=rel, abs=1e-6), name
    assert int(run.state.step) == STEPS
    moments, true_moments = (optax.tree.get(x.opt_state, "mu") for x in (run.state, reference))
    largest = max(np.abs(m).max() for m in jax.tree.leaves(true_moments))
    for ours, theirs in zip(jax.tree.leaves(moments), jax.tree.leaves(true_moments), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5 * largest)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(run.state.params), jax.tree.leaves(reference.params), strict=True
    ):
        # The gradient of these is rounding and nothing else, and Adam makes full steps of it.
        rounding = re.fullmatch(KEY_BIASES, path_name(path))
        limit = 2 * STEPS * OPTIMIZER.learning_rate if rounding else 3e-4
        np.testing.assert_allclose(ours, theirs, atol=limit, err_msg=path_name(path))
    # A loop that runs until its own samples are matched must not wait for the other devices in each turn.
    sent = run.collectives()
    assert sent["all-reduce"].count and not any(kind.unknown_loops for kind in sent.values())


def test_each_device_of_a_mesh_has_its_own_memory(params):
    """A step writes into the memory of its state; on CPUs, arrays that come from the host share theirs."""
    state = create_state(params, make_optimizer(OPTIMIZER), make_mesh(8, 1, 1), with_gains=True)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        places = {shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards}
        assert len(places) == 8, path_name(path)


def test_no_part_of_the_model_is_cut_off_from_the_loss(single, params):
    """A bias without a gradient stays. The finder reads tokens only, nothing reads `multi_scale`, and these
    data have no labels for the kind and the force of a contact."""
    _, _, reference = single
    params, _ = sigma_reparam.init(params)
    still = {
        path_name(path)
        for (path, before), after in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(reference.params), strict=True
        )
        if np.array_equal(before, after)
    }
    unread = (
        r"finder/PatchEncoder_0/(LayerNorm_3/(bias|scale)|(skip|spread)/bias)",
        r".*/scale\d/bias",
        r"perception/contact_decoder/Dense_[56]/bias",
        KEY_BIASES,
    )
    assert {name for name in still if not any(re.fullmatch(u, name) for u in unread)} == set()


def test_all_terms_are_finite_and_weighted_into_the_loss(single):
    _, metrics, _ = single
    assert all(np.isfinite(list(m.values())).all() for m in metrics)
    watched = {name for name in metrics[0] if name.startswith("grad_norm")} | {"loss", "spread_ratio", SKIPPED}
    assert set(metrics[0]) == {name for name, weight in WEIGHTS.items() if weight} | watched
    for step, found in enumerate(metrics):
        epoch = step / 2
        scheduled = {name: float(SCHEDULES[name](epoch)) if name in SCHEDULES else 1.0 for name in WEIGHTS}
        total = sum(weight * scheduled[name] * found[name] for name, weight in WEIGHTS.items() if weight)
        assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_gradient_norms_of_components_make_up_the_whole(single, params):
    _, metrics, _ = single
    parts = {name: x for name, x in metrics[0].items() if name.startswith("grad_norm_")}
    assert {name.removeprefix("grad_norm_") for name in parts} == {"finder", *params["perception"]}
    assert np.sqrt(sum(x**2 for x in parts.values())) == pytest.approx(metrics[0]["grad_norm"], rel=1e-5)
    assert all(parts.values())


def test_the_average_forgets_its_start_and_follows(single, params):
    """decay = min(0.99, (n + 1) / (n + 20)) for n = 0, 1, 2 and so on."""
    _, _, reference = single
    params, _ = sigma_reparam.init(params)
    bounds = [np.prod([(n + 1) / (n + 20) for n in range(STEPS)])]
    for start, ema, last in zip(
        jax.tree.leaves(params),
        jax.tree.leaves(reference.ema),
        jax.tree.leaves(reference.params),
        strict=True,
    ):
        reach = STEPS * 2 * OPTIMIZER.learning_rate * (1 + np.abs(start).max())
        assert np.abs(ema - last).max() <= np.abs(start - last).max() * bounds[0] + reach


def test_the_average_is_given_without_gains(params):
    """At the start it is the parameters, to what power iterations leave to be found."""
    averaged = create_state(params, make_optimizer(OPTIMIZER), one_device(), with_gains=True).averaged()
    assert jax.tree.structure(averaged) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(averaged), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())


def test_it_learns_one_batch_by_heart(single):
    run, metrics, _ = single
    losses = [m["loss"] for m in metrics] + [run.step()["loss"] for _ in range(30)]
    assert np.isfinite(losses).all()
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_only_kernels_decay():
    """With no gradient AdamW changes what decays by learning rate x decay, and nothing else."""
    optimizer = make_optimizer(OPTIMIZER)
    finder = {"Dense_0": {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}}
    finder["queries"] = np.ones((3, 2), np.float32)
    params = {"finder": finder}
    state = optimizer.init(params)
    zero = jax.tree.map(np.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):  # the first step of the warm-up has rate 0
            updates, state = optimizer.update(zero, state, params)
    changed = optax.apply_updates(params, updates)["finder"]
    np.testing.assert_allclose(changed["Dense_0"]["kernel"], 1 - 3e-3 * 0.01, rtol=1e-6)
    np.testing.assert_array_equal(changed["Dense_0"]["bias"], 1)
    np.testing.assert_array_equal(changed["queries"], 1)


def test_frozen_blocks_have_no_optimizer_state_and_stay():
    """Two moments for every array that learns, none for the others; the embeddings and two of three blocks are frozen.

    With a step of any gradient frozen arrays are the same to the bit, and the others are not.
    """
    backbone = Dinov2(16, 3, 2, position_grid=2, num_frozen_blocks=2)
    tiny = factory.build(CONFIG.model, CONFIG.finder, 32)
    model = tiny.clone(perception=tiny.perception.clone(encoder=Dinov2Encoder(backbone, 14, 8)))
    shapes = jax.eval_shape(lambda: init_params(model, 0, 32, CONFIG.finder.frame_size, HAND))
    shapes = {"perception": {"encoder": shapes["perception"]["encoder"]}, "finder": {"kernel": np.ones((2, 2))}}
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    frozen = re.compile(r"perception/encoder/backbone/(patch|cls_token|mask_token|positions|block[01])\b.*")
    optimizer = make_optimizer(OPTIMIZER, frozen=factory.frozen_parameters(model))
    state = optimizer.init(params)
    learns = {path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params) if not frozen.match(path_name(p))}
    moments = [path_name(p) for p, x in jax.tree_util.tree_leaves_with_path(state) if x.ndim > 0]
    assert len(moments) == 2 * len(learns) and all(any(m.endswith(name) for name in learns) for m in moments)
    gradient = jax.tree.map(lambda x: np.full_like(x, 0.1), params)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):  # the first step of the warm-up has rate 0
            updates, state = jax.jit(optimizer.update)(gradient, state, params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert bool(np.any(update)) == (path_name(path) in learns), path_name(path)


class Small:
    """Steps of VMT's hand on one device; plain gradient descent, so that a step shows its gradient."""

    def __init__(self):
        config = vmt.get_config("tiny")
        self.model = Amt(None, factory.build_vmt(config.vmt, config.model, 32))
        self.objective = Objective(dict.fromkeys(WEIGHTS, 0.0) | {"hand_coarse": 1.0}, "perception")
        self.optimizer = optax.sgd(1e-2)
        params = init_params(self.model, 0, 32, 32, HAND)
        self.start = create_state(params, self.optimizer, one_device(), with_gains=True)

    def step(self, batch, accumulation=1):
        """The state after one step from the start, and its scalars."""
        step = make_train_step(
            perception_loss(self.model, self.objective, HAND),
            self.optimizer,
            0.9,
            self.start,
            one_device(),
            accumulation=accumulation,
        )
        state = jax.tree.map(jnp.copy, self.start)  # a step takes its state's memory
        return step(state, to_mesh(batch, batch_sharding(one_device())))


@pytest.fixture(scope="module")
def small():
    return Small()


def some(batch, index):
    return jax.tree.map(lambda x: x[index], batch)


def test_an_update_of_two_batches_is_the_mean_of_their_gradients(small, batch):
    start = jax.tree.map(np.asarray, small.start.params)
    both, scalars = small.step(batch, accumulation=2)
    # Samples of a batch are dealt out in turns.
    (even, one), (odd, two) = (small.step(some(batch, slice(k, None, 2))) for k in (0, 1))
    assert float(scalars["loss"]) == pytest.approx((float(one["loss"]) + float(two["loss"])) / 2, rel=1e-5)
    moved = [jax.tree.map(lambda a, b: np.asarray(a) - b, s.params, start) for s in (both, even, odd)]
    for ours, a, b in zip(*map(jax.tree.leaves, moved), strict=True):
        np.testing.assert_allclose(ours, (a + b) / 2, atol=1e-6)
    assert int(both.step) == 1


def test_an_update_that_is_not_finite_is_left_out_and_counted(small, batch):
    """A label that is not a number leaves all but the counters as they were, to the bit."""
    joints = batch.joints_3d.copy()
    joints[np.flatnonzero(batch.joints_valid)[0], 3, 1] = np.nan
    state, scalars = small.step(batch.replace(joints_3d=joints))
    assert int(state.step) == 1 and int(state.skipped) == 1 == float(scalars[SKIPPED])
    assert not np.isfinite(float(scalars["hand_coarse"])) and not np.isfinite(float(scalars["grad_norm_hand_encoder"]))
    before, after = (jax.tree.leaves((s.params, s.ema, s.opt_state, s.spectral)) for s in (small.start, state))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    _, scalars = small.step(batch)
    assert float(scalars[SKIPPED]) == 0 and np.isfinite(float(scalars["loss"]))


def test_another_seed_gives_other_parameters(params):
    model = factory.build(CONFIG.model, CONFIG.finder, CONFIG.data.image_size)
    other = init_params(model, 1, CONFIG.data.image_size, CONFIG.finder.frame_size, HAND)
    other["perception"]["joint_logits"] = np.zeros(21, np.float32)  # not the model's: `params` has it for the losses
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(other), strict=True):
        drawn = np.ptp(ours) > 0  # biases, norms and gains start at constants
        assert np.array_equal(ours, theirs) != drawn, path_name(path)
