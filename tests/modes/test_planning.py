"""The plan of a configuration: its inputs are those of training, its bytes those of arrays, its errors clear."""

import jax
import numpy as np
import pytest

from amt import hand
from amt.data.mixed import find_roots, open_mixed
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.models.factory import frozen_parameters
from amt.modes import generate, planning, train
from amt.training.optimizer import make_optimizer
from amt.training.sharding import make_mesh, one_device_mesh
from amt.training.step import create_state
from configs import base, demo


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate.run(demo.get_config("tiny"), folder, None)
    return str(folder)


@pytest.mark.parametrize("augment", ["host", "device"])
@pytest.mark.parametrize("component", ["all", "finder", "perception"])
def test_it_plans_for_what_training_feeds(augment, component, root, tmp_path):
    config = demo.get_config("tiny")
    config.data.update(root=root, augment=augment)
    config.train.component = component
    mesh = make_mesh(-1, 1, 1)
    source = open_mixed(find_roots(root), config.data.split, config.data.part)
    learned = train.transform_config(config, component)
    feed = train.make_feed(config, source, learned, mesh, Quarantine(tmp_path))
    fed = next(feed.iterator)
    planned, prepare = planning.abstract_feed(config, config.train.batch_size, mesh)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (planned, jax.tree.map(np.asarray, fed)))
    assert shapes[0] == shapes[1]
    assert (prepare is None) == (feed.prepare is None)


@pytest.mark.slow
def test_bytes_are_those_of_the_arrays():
    config = demo.get_config("tiny")
    config.train.component = "finder"
    planner = planning.Planner(config, one_device_mesh())
    plan, double = planner.plan(8), planner.plan(16)
    model, _ = train.build_model(config)
    params = train.fresh_params(config, model, hand.load())
    optimizer = make_optimizer(train.optimizer_config(config), "finder", frozen_parameters(model))
    state = create_state(params, optimizer, planner.mesh, config.train.sigma_reparam, "finder")
    for name, part in (("weights", "params"), ("ema", "ema"), ("optimizer", "opt_state"), ("spectral", "spectral")):
        assert getattr(plan, name) == sum(x.nbytes for x in jax.tree.leaves(getattr(state, part)))
    assert plan.batch == 8 * (32 * 32 * 3 + 21 * 2 * 4 + 21 + 3)  # a frame and its labels
    assert plan.peak == sum(getattr(plan, name) for name in planning.ROWS[:-1])
    assert 1.5 < double.temporaries / plan.temporaries < 2.5
    assert not plan.collectives


def test_auto_takes_what_fits_and_keeps_it(monkeypatch, tmp_path):
    class Made:
        def __init__(self, peak):
            self.peak = peak

    monkeypatch.setattr(planning.Planner, "__init__", lambda self, config, mesh: setattr(self, "mesh", mesh))
    monkeypatch.setattr(planning.Planner, "plan", lambda self, size: Made(1e6 + 1e4 * size))
    monkeypatch.setattr(planning, "free_bytes", lambda device: 2e6)
    config, mesh = demo.get_config("tiny"), make_mesh(-1, 1, 1)
    config.train.batch_size = "auto"
    assert train._planned(config, mesh, tmp_path).train.batch_size == 80  # 0.9 of 2 MB, in multiples of 8
    monkeypatch.setattr(planning, "free_bytes", lambda device: 1.1e6)
    assert train._planned(config, mesh, tmp_path).train.batch_size == 80  # a resumed run goes on with its own
    config.train.resume = False
    with pytest.raises(UserError, match=r"config\.train\.batch_size=auto: not even 8 samples fit 0\.00 GB"):
        train._planned(config, mesh, tmp_path)
    config.train.batch_size = 24
    assert train._planned(config, mesh, tmp_path) is config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan.devices": 8, "plan.topology": "v5e:2x2"}, "give one of them"),
        ({"plan.devices": -1}, r"config\.plan\.devices=-1: expected a number"),
        ({"plan.devices": 8, "plan.find_batch": True}, r"config\.plan\.memory_gb=0"),
        ({"plan.devices": 8, "train.batch_size": "auto"}, r"config\.plan\.memory_gb=0"),
        ({"train.batch_size": 12}, r"config\.train\.batch_size=12: must be a multiple of 8"),
        ({"train.batch_size": "many"}, r"config\.train\.batch_size=many: expected a number of samples"),
        ({"mesh.fsdp": 3}, r"config\.mesh: .* does not cover 8 devices"),
    ],
)
def test_plans_that_cannot_be(change, says):
    config = base.get_config()
    config.update_from_flattened_dict({"plan.enabled": True} | change)
    with pytest.raises(UserError, match=says):
        planning.describe_plan(config, planning.planned_devices(config))
