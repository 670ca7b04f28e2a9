"""What one accelerator does: products alone, DINOv2 large here and in torch, train steps, gradients through physics.

python experiments/benchmark/card.py --part=products|dinov2|demo|flagship|physics --out=DIR [--batch=N]
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 8192  # of the products
TOKENS = 1 + 16 * 16  # of a picture of 224 pixels
TURNS = 20


def seconds(run: Callable[[], object], turns: int = TURNS) -> float:
    """The median of `turns` runs after two."""
    times = []
    for _ in range(turns + 2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def products(_) -> dict:
    """TFLOP/s of square products of random numbers."""

    @functools.partial(jax.jit, static_argnames="dtype")
    def operand(seed, dtype):
        return jax.random.normal(jax.random.key(seed), (SIDE, SIDE)).astype(dtype)

    figures = {}
    for dtype in ("bfloat16", "float32"):
        a, b = operand(0, dtype), operand(1, dtype)
        multiply = jax.jit(lambda a, b: a @ b)
        spent = seconds(lambda f=multiply, a=a, b=b: jax.block_until_ready(f(a, b)))
        figures[f"{dtype}_tflops"] = 2e-12 * SIDE**3 / spent
    return figures


def forward_flops(width: int, depth: int) -> int:
    """Of the matrix products of one picture's forward pass: twelve width^2 a token and block, and attention."""
    return depth * (2 * TOKENS * 12 * width**2 + 4 * TOKENS**2 * width) + 2 * TOKENS * 14 * 14 * 3 * width


def dinov2(batch: int) -> dict:
    """Pictures a second through DINOv2 large in bfloat16, random weights, 224 pixels."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from amt.models import dinov2

    batch = batch or 64
    width, depth, heads = dinov2.SIZES["large"]
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    pixels = np.random.default_rng(0).standard_normal((batch, 224, 224, 3)).astype(np.float32)
    model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **sizes)).eval().to("cuda", torch.bfloat16)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to("cuda", torch.bfloat16)

    def in_torch(forward):
        with torch.inference_mode():
            forward(planes)
        torch.cuda.synchronize()

    backbone = dinov2.published("large", False, dtype=jnp.bfloat16)
    x = jnp.asarray(pixels)
    params = jax.jit(backbone.init)(jax.random.key(0), x[:1])["params"]
    here = jax.jit(lambda params, x: backbone.apply({"params": params}, x).tokens)
    spent = {
        "torch": seconds(lambda: in_torch(model)),
        "here": seconds(lambda: jax.block_until_ready(here(params, x))),
        "torch_compiled": seconds(functools.partial(in_torch, torch.compile(model))),
    }
    figures = {"batch": batch, "forward_gflop": 1e-9 * forward_flops(width, depth)}
    for name, s in spent.items():
        figures[f"{name}_ms"] = 1e3 * s
        figures[f"{name}_tflops"] = 1e-12 * batch * forward_flops(width, depth) / s
    return figures


def train_step(name: str, batch: int) -> dict:
    """`--mode=benchmark`'s train step, without the links."""
    from amt.modes import benchmark
    from configs import demo, stage1

    config = (demo if name == "demo" else stage1).get_config()
    config.benchmark.update(step_batch_size=batch or config.benchmark.step_batch_size, repeats=3)
    figures, measured = benchmark.train_step(config, Path())
    return {**figures, **{key: float(np.median(values)) for key, values in measured.items()}}


def physics(batch: int) -> dict:
    """Gradients of 50 substeps with 10 commands, a cylinder on a table being lifted, all with commands of their own."""
    from amt import physics
    from amt.robot import SceneObject, build_scene

    held, start = physics.put(build_scene([SceneObject("object", "cylinder", (0.034, 0.05), pos=(0.5, 0.0, 0.05))]))
    rng = np.random.default_rng(0)
    middle = np.asarray(start.qpos[:22], np.float32)
    controls = jnp.asarray(middle + 0.1 * rng.standard_normal((batch, 10, 22)).astype(np.float32))

    def loss(u):
        return jnp.square(physics.rollout(held, start, u).qpos[-1]).sum()

    begin = time.perf_counter()
    gradient = jax.jit(jax.vmap(jax.grad(loss))).lower(controls).compile()
    compile_s = time.perf_counter() - begin
    finite = bool(jnp.isfinite(gradient(controls)).all())
    spent = seconds(lambda: jax.block_until_ready(gradient(controls)), 5)
    return {
        "batch": batch,
        "compile_s": compile_s,
        "ms": 1e3 * spent,
        "substeps_per_s": 50 * batch / spent,
        "finite": finite,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", required=True, choices=("products", "dinov2", "demo", "flagship", "physics"))
    parser.add_argument("--out", type=Path, required=True, help="a folder; PART_BATCH.json is written there")
    parser.add_argument("--batch", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {"products": products, "dinov2": dinov2, "physics": physics}
    run = parts.get(args.part, functools.partial(train_step, args.part))
    figures = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, **run(args.batch)}
    text = json.dumps(figures, indent=2)
    (args.out / f"{args.part}_{args.batch}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
