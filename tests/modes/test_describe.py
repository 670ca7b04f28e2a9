"""`--mode=describe`: what it counts for the configurations that there are, what it writes and what it refuses."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import launch
from amt import hand
from amt.errors import UserError
from amt.models import weights
from amt.models.factory import build
from amt.modes import describe
from amt.training.step import init_params
from configs import base, demo, vmt

DINOV2_LARGE = 304_368_640  # parameters that Hugging Face's has
LARGE_BLOCK = 12 * 1024**2 + 15 * 1024  # kernels; biases (9), norms (4) and scales (2)


def described(config) -> tuple[dict, dict]:
    figures = describe.run(config, Path(), None)
    return figures, {row["name"]: row for row in figures["components"]}


@pytest.fixture
def main(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "set_up_jax", lambda cache_dir: None)
    return lambda *options: launch.main(["", "--mode=describe", f"--workdir={tmp_path}", *options])


def test_full_model_in_the_file_and_on_the_screen(main, tmp_path, capsys):
    assert main("--config=configs/base.py") == 0
    result = json.loads((tmp_path / "describe.json").read_text())
    rows = {row["name"]: row for row in result["components"]}
    backbone = rows["backbone"]
    assert backbone["parameters"] == DINOV2_LARGE
    assert backbone["trainable_parameters"] == 12 * LARGE_BLOCK + 2 * 1024  # and the last norm
    # 197 tokens: 12 blocks are frozen, 6 computed again, 6 kept; norms and the like and the patches are 2%.
    block = 24 * 197 * 1024**2 + 4 * 197**2 * 1024
    assert backbone["forward_flops"] == pytest.approx(24 * block, rel=0.02)
    assert backbone["training_flops"] == pytest.approx((12 + 6 * 4 + 6 * 3) * block, rel=0.02)
    assert backbone["outputs"]["tokens"] == [1, 197, 1024]
    assert rows["hand_encoder"]["outputs"]["tokens"] == [1, 21, 1024]
    for key in describe.COLUMNS:
        assert result[key] == sum(row[key] for row in rows.values()) > 0
    printed = capsys.readouterr().out
    assert "304.4" in printed and f"parameters            {result['parameters']}" in printed


def test_parameters_are_those_of_the_model_in_training():
    config = demo.get_config("tiny")
    settings = weights.architecture(config.to_dict())
    model = build(settings["model"], settings["finder"], settings["image_size"])
    loaded = jax.tree.map(jnp.asarray, hand.load())
    params = init_params(model, 0, config.data.image_size, config.finder.frame_size, loaded)
    figures, rows = described(config)
    assert figures["parameters"] == figures["trainable_parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert rows["finder"]["parameters"] == sum(x.size for x in jax.tree.leaves(params["finder"]))


def test_a_component_that_learns_alone():
    config = demo.get_config("tiny")
    config.train.component = "finder"
    figures, rows = described(config)
    assert figures["trainable_parameters"] == rows["finder"]["parameters"] < figures["parameters"]
    assert figures["training_flops"] == rows["finder"]["training_flops"] > 0
    assert rows["hand_encoder"]["forward_flops"] > 0


def test_the_original_model():
    """Its published sizes, to 3%."""
    _, rows = described(vmt.get_config("full"))
    sizes = [rows[name]["parameters"] for name in ("hand_encoder", "object_encoder", "contact_encoder")]
    assert sizes == pytest.approx([612e6, 610e6, 108e6], rel=0.03)
    assert rows["object_heads"]["parameters"] > 0


def test_bad_settings(main, capsys):
    assert main("--config=configs/base.py", "--config.model.encoder=resnet") == 2
    assert "config.model.encoder=resnet: expected one of conv, dinov2_small" in capsys.readouterr().err
    for path, value in (("family", "gpt"), ("train.component", "hand")):
        config = base.get_config()
        config.update_from_flattened_dict({path: value})
        with pytest.raises(UserError, match=f"config.{path}={value}: expected one of"):
            describe.run(config, Path(), None)
