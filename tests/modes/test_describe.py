"""`--mode=describe`: what it counts for the configurations that there are, what it writes and what it refuses."""

import json
import re
from pathlib import Path

import pytest

import launch
from amt.errors import UserError
from amt.models import weights
from amt.modes import describe
from configs import base, demo, vmt

DINOV2_LARGE = 304_368_640  # parameters that Hugging Face's has
POLICY = ("temporal_fusion", "action_decoder")
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
    assert rows["joint_refiner"]["outputs"] == {"output": [1, 21, 3]}
    assert rows["temporal_fusion"]["outputs"]["0"] == [1, 1, 4, 1024]
    assert rows["action_decoder"]["outputs"]["0.commands"] == [1, 1, 10, 22]
    # A frame's four tokens through 8 blocks; the products with 7 or 15 kept frames, norms and the tokens' own layers.
    assert rows["temporal_fusion"]["forward_flops"] == pytest.approx(8 * 4 * 24 * 1024**2, rel=0.05)
    assert rows["temporal_fusion"]["training_flops"] == 0  # there is no policy in stage 1
    for key in describe.COLUMNS:
        assert result[key] == sum(row[key] for row in rows.values()) > 0
    assert result["h100_sxm_peak_frames_per_s"] * result["forward_flops"] == pytest.approx(989.4e12)
    printed = capsys.readouterr().out
    assert "304.4" in printed and re.search(rf"parameters +{result['parameters']}\n", printed)


def test_parameters_are_those_of_the_embedded_weights():
    """But for the weights of the joints' errors: they are the objective's. The policy is another stage's to train."""
    flat, _ = weights.read(weights.EMBEDDED, "the embedded weights")
    del flat["perception.joint_logits"]
    figures, rows = described(demo.get_config())
    policy = sum(x.size for path, x in flat.items() if path.startswith("policy."))
    assert figures["trainable_parameters"] == sum(x.size for x in flat.values()) - policy
    assert policy == sum(rows[name]["parameters"] for name in POLICY)
    assert figures["parameters"] == figures["trainable_parameters"] + policy
    assert rows["finder"]["parameters"] == sum(x.size for path, x in flat.items() if path.startswith("finder."))


def test_a_component_that_learns_alone():
    config = demo.get_config("tiny")
    config.train.component = "finder"
    figures, rows = described(config)
    assert figures["trainable_parameters"] == rows["finder"]["parameters"] < figures["parameters"]
    assert figures["training_flops"] == rows["finder"]["training_flops"] > 0
    assert rows["hand_encoder"]["forward_flops"] > 0


def test_the_policy_learns_alone_behind_a_perception_that_is_frozen():
    config = demo.get_config("tiny")
    config.train.update(stage="2", component="policy")
    figures, rows = described(config)
    assert figures["trainable_parameters"] == sum(rows[name]["parameters"] for name in POLICY) > 0
    for name in POLICY:
        assert rows[name]["training_flops"] > 2 * rows[name]["forward_flops"] > 0 < rows[name]["activation_bytes"]
    assert rows["hand_encoder"]["training_flops"] == rows["hand_encoder"]["forward_flops"] > 0
    assert rows["hand_encoder"]["activation_bytes"] == 0


def test_the_original_model():
    config = vmt.get_config("full")
    for part in (config.vmt.hand, config.vmt.contact):
        part.depth = 1
    figures, rows = described(config)
    block = 4 * 2048**2 + 2 * 2048 * 8192 + (4 + 1 + 4) * 2048 + 8192  # kernels, biases and norms
    tokens = 16 * 16 * 3 * 2048 + 2048 + 28 * 2048 + 2 * 2048 + 10 * 2048  # patches, positions, norm, queries
    assert rows["object_encoder"]["parameters"] == block + tokens
    assert rows["object_heads"]["parameters"] > 0 and rows["contact_encoder"]["parameters"] > 0
    assert figures["outputs"]["objects.rotation"] == [1, 10, 3, 3]


def test_bad_settings(main, capsys):
    assert main("--config=configs/base.py", "--config.model.encoder=resnet") == 2
    assert "config.model.encoder=resnet: expected one of conv, dinov2_small" in capsys.readouterr().err
    assert main("--config=configs/vmt.py", "--config.vmt.contact.num_heads=3") == 2
    assert "config.vmt.contact.num_heads=3: expected a divisor of vmt.contact.hidden_dim=512" in capsys.readouterr().err
    for path, value in (("family", "gpt"), ("train.component", "hand")):
        config = base.get_config()
        config.update_from_flattened_dict({path: value})
        with pytest.raises(UserError, match=f"config.{path}={value}: expected one of"):
            describe.run(config, Path(), None)
