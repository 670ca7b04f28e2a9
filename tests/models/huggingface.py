"""Hugging Face folders of a tiny DINOv2, written without transformers."""

import json

import numpy as np
from safetensors.numpy import save_file

WIDTH, DEPTH, GRID, HIDDEN = 16, 3, 2, {False: 64, True: 48}  # SwiGLU: two thirds of 64, rounded up to 8


def config(registers: int = 0, swiglu: bool = False) -> dict:
    kind = {"model_type": "dinov2_with_registers", "num_register_tokens": registers} if registers else {}
    return {
        "model_type": "dinov2",
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 2,
        "image_size": 14 * GRID,
        "patch_size": 14,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": swiglu,
    } | kind


def tensors(registers: int = 0, swiglu: bool = False) -> dict[str, np.ndarray]:
    """Random numbers by the names, and of the shapes, that transformers writes."""
    d, hidden = WIDTH, HIDDEN[swiglu]
    shapes = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.mask_token": (1, d),
        "embeddings.position_embeddings": (1, 1 + GRID**2, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "layernorm.weight": (d,),
        "layernorm.bias": (d,),
    }
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, d)
    linear = {f"attention.attention.{name}": (d, d) for name in ("query", "key", "value")}
    linear["attention.output.dense"] = (d, d)
    if swiglu:
        linear |= {"mlp.weights_in": (2 * hidden, d), "mlp.weights_out": (d, hidden)}
    else:
        linear |= {"mlp.fc1": (hidden, d), "mlp.fc2": (d, hidden)}
    for k in range(DEPTH):
        layer = f"encoder.layer.{k}."
        for name, shape in linear.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for n in (1, 2):
            shapes |= {f"{layer}norm{n}.{name}": (d,) for name in ("weight", "bias")}
            shapes[f"{layer}layer_scale{n}.lambda1"] = (d,)
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, about: dict, state: dict[str, np.ndarray], shards: int = 1):
    """config.json and model.safetensors, or its shards and their index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(about))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    names = [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
    parts = {name: dict(list(state.items())[k::shards]) for k, name in enumerate(names)}
    for name, part in parts.items():
        save_file(part, folder / name)
    weight_map = {key: name for name, part in parts.items() for key in part}
    index = {"metadata": {"total_size": sum(x.nbytes for x in state.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
