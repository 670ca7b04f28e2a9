"""VMT in `--mode=train`: it learns, goes on where it stopped, and is refused where it is not built."""

import csv
import shutil

import numpy as np
import pytest

from amt.errors import UserError
from amt.models import weights
from amt.modes import evaluate, generate, train
from configs import demo, vmt

LONGER = {"steps": 30, "eval_every": 30, "checkpoint_every": 15, "learning_rate": 4e-3}


def tiny(root, **changes):
    config = vmt.get_config("tiny")
    config.data.root = str(root)
    config.train.update(changes)
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate.run(vmt.get_config("tiny"), folder, None)
    return folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """30 steps on 16 samples: the folder and the figures."""
    folder = tmp_path_factory.mktemp("train")
    return folder, train.run(tiny(root, **LONGER), folder, None)


def scalars(folder):
    with (folder / "scalars.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: [float(r["value"]) for r in rows if r["name"] == row["name"]] for row in rows}


@pytest.mark.slow
def test_the_loss_falls_and_a_collapse_would_be_seen(trained):
    folder, figures = trained
    logged = scalars(folder)
    assert np.mean(logged["loss"][-5:]) < 0.7 * np.mean(logged["loss"][:5])
    assert np.mean(logged["hand_coarse"][-5:]) < 0.8 * np.mean(logged["hand_coarse"][:5])
    weighed = {name for name, weight in vmt.get_config("tiny").train.loss.items() if weight}
    watched = {"spread_ratio", "val_mpjpe_mm", "val_spread_ratio", "val_attention_entropy"}
    components = {"hand_encoder", "object_encoder", "object_heads", "contact_encoder"}
    assert weighed | watched | {f"grad_norm_{name}" for name in components} <= logged.keys()
    assert all(np.isfinite(values).all() for values in logged.values())
    assert 0 < figures["val_least_attention_entropy"] <= figures["val_attention_entropy"] <= 1.001
    assert "val_finder_miss_share" not in figures


@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unstopped_one_does(root, trained, tmp_path):
    folder, figures = trained
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(folder / "checkpoints" / "step_15", tmp_path / "checkpoints" / "step_15")
    again = train.run(tiny(root, **LONGER), tmp_path, None)
    assert again["val_mpjpe_mm"] == pytest.approx(figures["val_mpjpe_mm"], rel=1e-3)


@pytest.mark.slow
def test_weights_say_what_they_are(root, trained, tmp_path):
    folder, _ = trained
    _, settings, _ = weights.load(folder / "weights.safetensors")
    assert settings == weights.architecture(vmt.get_config("tiny").to_dict())
    config = tiny(root)
    config.eval.update(checkpoint=str(folder), part="all")
    with pytest.raises(UserError, match="weights of VMT: it has no finder"):
        evaluate.run(config, tmp_path, None)
    other = demo.get_config("tiny")
    other.data.root = str(root)
    with pytest.raises(UserError, match="another configuration: family is vmt there and amt here"):
        train.run(other, folder, None)


def test_it_has_no_finder_to_train(tmp_path):
    config = tiny(tmp_path, component="all")
    with pytest.raises(UserError, match="config.train.component=all: expected perception, vmt has no finder"):
        train.run(config, tmp_path, None)
    config.family = "gpt"
    with pytest.raises(UserError, match="config.family=gpt: expected one of amt, vmt"):
        train.run(config, tmp_path, None)
