"""DINOv2 from a Hugging Face folder: config.json, and model.safetensors or the shards of its index.

Names and layouts of the tensors as transformers writes them (models/dinov2, models/dinov2_with_registers).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amt.errors import UserError
from amt.models import weights
from amt.storage import refuse_pointer

CONFIG, FILE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
PREFIX = re.compile(r"^(dinov2|dinov2_with_registers)\.")
LEFT_BEHIND = re.compile(r"^classifier\.")  # a linear classifier on top, as in dinov2-large-imagenet1k-1-layer
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size")
# What our module takes for granted, where config.json says something about it.
FIXED = {
    "patch_size": 14,
    "num_channels": 3,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_mask_token": True,
}


class Layout(NamedTuple):
    """How a parameter of ours is stored: its shape there, and the way back."""

    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    load: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda shape: shape, lambda x: x)
TRANSPOSED = Layout(lambda shape: shape[::-1], lambda x: x.T)
BATCHED = Layout(lambda shape: (1, *shape), lambda x: x[0])
PATCHES = Layout(lambda shape: (shape[1], 3, 14, 14), lambda x: x.transpose(2, 3, 1, 0).reshape(-1, len(x)))

# Our path, the key there, its layout; the first match counts.
TABLE = (
    (r"(cls_token|register_tokens)", r"embeddings.\1", BATCHED),
    (r"mask_token", r"embeddings.mask_token", SAME),
    (r"positions", r"embeddings.position_embeddings", BATCHED),
    (r"patch/kernel", r"embeddings.patch_embeddings.projection.weight", PATCHES),
    (r"patch/bias", r"embeddings.patch_embeddings.projection.bias", SAME),
    (r"block(\d+)/(norm\d)/scale", r"encoder.layer.\1.\2.weight", SAME),
    (r"block(\d+)/(norm\d)/bias", r"encoder.layer.\1.\2.bias", SAME),
    (r"block(\d+)/self_attention/out/kernel", r"encoder.layer.\1.attention.output.dense.weight", TRANSPOSED),
    (r"block(\d+)/self_attention/out/bias", r"encoder.layer.\1.attention.output.dense.bias", SAME),
    (r"block(\d+)/self_attention/(\w+)/kernel", r"encoder.layer.\1.attention.attention.\2.weight", TRANSPOSED),
    (r"block(\d+)/self_attention/(\w+)/bias", r"encoder.layer.\1.attention.attention.\2.bias", SAME),
    (r"block(\d+)/scale(\d)", r"encoder.layer.\1.layer_scale\2.lambda1", SAME),
    (r"block(\d+)/(\w+)/kernel", r"encoder.layer.\1.mlp.\2.weight", TRANSPOSED),
    (r"block(\d+)/(\w+)/bias", r"encoder.layer.\1.mlp.\2.bias", SAME),
    (r"norm/scale", r"layernorm.weight", SAME),
    (r"norm/bias", r"layernorm.bias", SAME),
)


def stored_as(path: str) -> tuple[str, Layout]:
    """The key in Hugging Face's file, and the layout, of our parameter (names joined by slashes)."""
    matches = ((re.fullmatch(ours, path), theirs, layout) for ours, theirs, layout in TABLE)
    return next((match.expand(theirs), layout) for match, theirs, layout in matches if match)


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of `Dinov2` that config.json describes.

    Raises `UserError` for a folder without one, one that is not DINOv2's, and one that our module cannot follow.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a Hugging Face folder with {CONFIG} and {FILE}")
    config = _read_json(path)
    if config.get("model_type") not in MODEL_TYPES:
        raise UserError(f"{path}: model_type is {config.get('model_type')!r}; expected {' or '.join(MODEL_TYPES)}")
    wrong = [f"{k} is {config.get(k)!r}, expected a positive integer" for k in SIZES if not _positive(config.get(k))]
    wrong += [f"{k} is {config[k]!r}, expected {v!r}" for k, v in FIXED.items() if config.get(k, v) != v]
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong.append("hidden_size is not a multiple of num_attention_heads")
    if wrong:
        raise UserError(f"{path}: {'; '.join(wrong)}; only the published DINOv2 architectures can be converted")
    registers = config.get("num_register_tokens", 4) if config["model_type"] == MODEL_TYPES[1] else 0
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_registers": registers,
        "swiglu": bool(config.get("use_swiglu_ffn", False)),
        "position_grid": config["image_size"] // FIXED["patch_size"],
    }


def read_params(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Float32 parameters by path, of the shapes that the module wants.

    Raises `UserError` for files that are missing or damaged, and one that names every tensor that is missing,
    unexpected or of another shape.
    """
    found: dict[str, np.ndarray] = {}
    for path in _files(folder):
        tensors, _ = weights.read(path, f"a file that {folder / INDEX} names")
        found |= {PREFIX.sub("", key): x for key, x in tensors.items() if not LEFT_BEHIND.match(key)}
    stored = {path: stored_as(path) for path in shapes}
    wanted = {key: layout.shape(shapes[path]) for path, (key, layout) in stored.items()}
    both = wanted.keys() & found.keys()
    faults = {
        "missing": _grouped(wanted.keys() - both),
        "unexpected": _grouped(found.keys() - both),
        "misshaped": _grouped(f"{k} {found[k].shape} not {wanted[k]}" for k in both if found[k].shape != wanted[k]),
    }
    if any(faults.values()):
        text = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys)
        raise UserError(f"{folder}: its tensors are not those that its {CONFIG} describes; {text}")
    # Taken out one by one: the giant's parameters need not fit twice.
    return {
        path: np.ascontiguousarray(layout.load(found.pop(key)), np.float32) for path, (key, layout) in stored.items()
    }


def _files(folder: Path) -> list[Path]:
    if (folder / FILE).is_file():
        return [folder / FILE]
    index = folder / INDEX
    if not index.is_file():
        raise UserError(
            f"{folder}: no {FILE} and no {INDEX}; expected one of them; a pytorch_model.bin becomes one by "
            "transformers' save_pretrained"
        )
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index}: weight_map is not a table of tensors and files; download it again")
    return [folder / name for name in sorted(set(shards.values()))]


def _read_json(path: Path) -> dict[str, Any]:
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected a JSON object; download it again")
    return content


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def _grouped(names: Iterable[str]) -> list[str]:
    """Names that differ only in the number of their block as one, with the numbers: layer.[0-10,23].norm1.bias."""
    groups: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"(?<=layer\.)\d+", name)
        groups.setdefault(re.sub(r"(?<=layer\.)\d+", "[]", name), []).extend([int(number[0])] if number else [])
    return sorted(name.replace("[]", f"[{_ranges(numbers)}]") for name, numbers in groups.items())


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
