"""DINOv2 against transformers' own in torch: the same random weights, through a folder on the disk, stage by stage."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.models import dinov2

MISSING = "the parity extra is not installed: pip install -e '.[parity]'"
torch = pytest.importorskip("torch", reason=MISSING)
transformers = pytest.importorskip("transformers", reason=MISSING)

LIMIT = 2e-5  # largest absolute difference; sums of a thousand float32 products of order 1, taken in another order


def make(size, registers=False, depth=None):
    """A transformers model in which no parameter has a value that could hide a mistake."""
    width, full_depth, heads = dinov2.SIZES[size]
    config, model = {
        False: (transformers.Dinov2Config, transformers.Dinov2Model),
        True: (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel),
    }[registers]
    sizes = {"hidden_size": width, "num_hidden_layers": depth or full_depth, "num_attention_heads": heads}
    with torch.device("meta"):
        model = model(config(image_size=518, patch_size=14, use_swiglu_ffn=size == "giant", **sizes))
    model = model.to_empty(device="cpu").eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            center = 0.35 if "lambda1" in name else float("norm" in name and name.endswith("weight"))
            spread = 0.5 if "embeddings." in name and p.ndim == 3 else 0.1 if center else 0.03
            p.normal_(center, spread, generator=rng)
    return model


def convert(model):
    """Through the folder that `save_pretrained` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        backbone, params = dinov2.from_huggingface(folder)
    return backbone, jax.tree.map(jnp.asarray, params)


def images(*shape):
    return np.random.default_rng(0).standard_normal((*shape, 3)).astype(np.float32)


def reference(model, x):
    with torch.no_grad():
        out = model(torch.from_numpy(x).to(model.dtype).permute(0, 3, 1, 2), output_hidden_states=True)
    return [h.float().numpy() for h in (*out.hidden_states, out.last_hidden_state)]


def ours(backbone, params, x):
    out = jax.jit(lambda p, x: backbone.apply({"params": p}, x))(params, x)
    return [np.asarray(h, np.float32) for h in (*out.hidden, out.tokens)]


def compare(model, *shapes):
    backbone, params = convert(model)
    for shape in shapes:
        x = images(1, *shape)
        stages = list(zip(ours(backbone, params, x), reference(model, x), strict=True))
        assert len(stages) == backbone.depth + 2
        errors = [np.abs(a - b).max() for a, b in stages]
        inner = [e / b.std() for e, (_, b) in zip(errors, stages, strict=True)]
        print(f"{shape}: last {errors[-1]:.1e}, of any stage {max(inner):.1e} of its deviation")
        assert errors[-1] <= LIMIT and max(inner) <= LIMIT, errors
    return backbone, params


@pytest.mark.slow
def test_small_at_every_size_and_in_bfloat16():
    model = make("small")
    backbone, params = compare(model, (196, 196), (224, 224), (518, 518), (308, 196))
    bfloat16_errors(model, backbone, params)


@pytest.mark.slow
def test_registers_and_their_antialiased_positions():
    compare(make("small", registers=True), (196, 196), (224, 224), (518, 518), (308, 196))


@pytest.mark.slow
def test_the_giants_gated_feed_forward():
    compare(make("giant", depth=2), (196, 196), (224, 224))


@pytest.mark.slow
def test_large():
    model = make("large")
    backbone, params = compare(model, (196, 196), (224, 224), (518, 518))
    bfloat16_errors(model, backbone, params)


def bfloat16_errors(model, backbone, params):
    """Both in bfloat16 against torch in float32: the mean square, for a largest error is one number's luck."""
    x = images(1, 224, 224)
    exact = reference(model, x)[-1]
    here = ours(backbone.clone(dtype=jnp.bfloat16), params, x)[-1]
    there = reference(model.bfloat16(), x)[-1]
    errors = [np.sqrt(np.mean((y - exact) ** 2)) for y in (here, there)]
    largest = [np.abs(y - exact).max() for y in (here, there)]
    print(f"bfloat16: rms {errors[0]:.2e} here, {errors[1]:.2e} in torch; largest {largest[0]:.2e}, {largest[1]:.2e}")
    assert errors[0] <= 1.25 * errors[1]
