"""Conversion of DINOv2: from where it may come, and what is said of what cannot be converted.

That every tensor lands in its place is shown by test_dinov2_parity.py.
"""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import launch
from amt.errors import UserError
from amt.models import dinov2
from tests.data.layout import POINTER
from tests.models import huggingface
from tests.models.huggingface import DEPTH, WIDTH

KINDS = [{}, {"registers": 4}, {"swiglu": True}]


def folder_of(path, registers=0, swiglu=False, shards=1):
    state = huggingface.tensors(registers, swiglu)
    return huggingface.write(path, huggingface.config(registers, swiglu), state, shards)


def same(ours, theirs):
    equal = jax.tree.map(lambda a, b: a.dtype == b.dtype == np.float32 and np.array_equal(a, b), ours, theirs)
    assert jax.tree.all(equal)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_folder_gives_a_backbone_and_all_of_its_numbers(kind, tmp_path):
    backbone, params = dinov2.from_huggingface(folder_of(tmp_path, **kind))
    assert (backbone.width, backbone.depth, backbone.position_grid) == (WIDTH, DEPTH, 2)
    assert backbone.num_registers == kind.get("registers", 0) and backbone.swiglu == kind.get("swiglu", False)
    stored = np.concatenate([x.ravel() for x in load_file(tmp_path / "model.safetensors").values()])
    ours = np.concatenate([x.ravel() for x in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(ours), np.sort(stored))


@pytest.mark.parametrize("prefix", ["dinov2.", "dinov2_with_registers."])
def test_shards_prefixes_a_classifier_and_half_precision_give_the_same(prefix, tmp_path):
    _, plain = dinov2.from_huggingface(folder_of(tmp_path / "plain"))
    _, sharded = dinov2.from_huggingface(folder_of(tmp_path / "shards", shards=3))
    same(sharded, plain)
    state = {prefix + k: v.astype(np.float16) for k, v in huggingface.tensors().items()}
    state["classifier.weight"] = np.zeros((10, 2 * WIDTH), np.float32)
    _, half = dinov2.from_huggingface(huggingface.write(tmp_path / "half", huggingface.config(), state))
    same(half, jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), plain))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vit"}, ["model_type is 'vit'", "dinov2_with_registers"]),
        ({"hidden_size": "16"}, ["hidden_size is '16'", "positive integer"]),
        ({"num_hidden_layers": None, "image_size": [28, 28]}, ["num_hidden_layers is None", "image_size is [28, 28]"]),
        ({"patch_size": 16, "hidden_act": "relu"}, ["patch_size is 16, expected 14", "hidden_act is 'relu'"]),
        ({"num_attention_heads": 3}, ["not a multiple of num_attention_heads"]),
    ],
)
def test_a_configuration_of_another_model_is_named(change, says, tmp_path):
    huggingface.write(tmp_path, huggingface.config() | change, huggingface.tensors())
    with pytest.raises(UserError) as error:
        dinov2.from_huggingface(tmp_path)
    assert all(words in str(error.value) for words in (*says, "config.json"))


def test_all_tensors_that_do_not_fit_are_named_at_once(tmp_path):
    state = huggingface.tensors()
    for k in range(DEPTH):
        del state[f"encoder.layer.{k}.norm1.bias"]
    del state["layernorm.weight"], state["encoder.layer.2.mlp.fc1.weight"]
    state["encoder.layer.7.norm1.bias"] = state["pooler.weight"] = np.zeros(3, np.float32)
    state["encoder.layer.1.mlp.fc2.weight"] = np.zeros((WIDTH, 5), np.float32)
    with pytest.raises(UserError) as error:
        dinov2.from_huggingface(huggingface.write(tmp_path, huggingface.config(), state))
    _, text = str(error.value).split("; ", 1)
    assert text.split("; ") == [
        "missing: encoder.layer.[0-2].norm1.bias, encoder.layer.[2].mlp.fc1.weight, layernorm.weight",
        "unexpected: encoder.layer.[7].norm1.bias, pooler.weight",
        "misshaped: encoder.layer.[1].mlp.fc2.weight (16, 5) not (16, 64)",
    ]


def break_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


def break_config_kind(folder):
    (folder / "config.json").write_text("[1]")


def remove_config(folder):
    (folder / "config.json").unlink()


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def damage_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(folder):
    folder_of(folder, shards=3)
    remove_weights(folder)
    next(folder.glob("*00002-of-00003*")).unlink()


def break_index(folder):
    remove_weights(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')


def point_to_weights(folder):
    (folder / "model.safetensors").write_text(POINTER)


def spoil_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    key = "encoder.layer.0.norm1.bias"
    tensors[key] = np.array(tensors[key])
    tensors[key][:3] = np.nan, np.inf, -np.inf
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (point_to_weights, "model.safetensors: a Git LFS pointer, not the file: run `git lfs pull` in its repository"),
        (spoil_weights, f"values that are not finite: encoder.layer.0.norm1.bias has 3 of {WIDTH};"),
        (remove_config, "config.json: no such file; expected a Hugging Face folder"),
        (break_config, "config.json: not readable JSON"),
        (break_config_kind, "config.json: found a list"),
        (remove_weights, "no model.safetensors and no model.safetensors.index.json"),
        (damage_weights, "model.safetensors: not a readable safetensors file"),
        (lose_a_shard, "00002-of-00003.safetensors: no such file"),
        (break_index, "model.safetensors.index.json: weight_map is not a table"),
    ],
)
def test_a_damaged_folder_gets_one_clear_answer(damage, says, tmp_path):
    damage(folder_of(tmp_path))
    with pytest.raises(UserError) as error:
        dinov2.from_huggingface(tmp_path)
    assert says in str(error.value)


def test_convert_writes_a_file_that_training_loads(tmp_path, capsys):
    folder, out = folder_of(tmp_path / "hf", registers=4), tmp_path / "out"
    assert launch.main(["", "--mode=convert", f"--input={folder}", f"--workdir={out}"]) == 0
    backbone, params = dinov2.from_huggingface(folder)
    found, loaded = dinov2.load(out / "backbone.safetensors")
    assert found == backbone
    same(loaded, params)
    figures = json.loads((out / "convert.json").read_text())
    assert figures["parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert (figures["width"], figures["num_registers"]) == (WIDTH, 4)
    assert launch.main(["", "--mode=convert", f"--input={tmp_path / 'none'}", f"--workdir={out}"]) == 2
    assert "none/config.json: no such file" in capsys.readouterr().err


def test_a_file_of_something_else_is_refused(tmp_path):
    folder_of(tmp_path)
    with pytest.raises(UserError, match=r"no dinov2 in its metadata; expected a backbone\.safetensors written by"):
        dinov2.load(tmp_path / "model.safetensors")
    about = dinov2.architecture(dinov2.from_huggingface(tmp_path)[0])
    path = tmp_path / "backbone.safetensors"
    save_file({"norm/bias": np.zeros(WIDTH, np.float32)}, path, {"dinov2": json.dumps(about)})
    with pytest.raises(UserError, match="its tensors are not those of its architecture"):
        dinov2.load(path)
