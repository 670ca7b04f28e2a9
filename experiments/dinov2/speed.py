"""DINOv2 small here and in torch: the same weights, one core, alternating turns, medians.

taskset -c 0 python experiments/dinov2/speed.py
"""

import os
import tempfile
import time

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import jax  # noqa: E402 (reads XLA_FLAGS)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
from transformers import Dinov2Config, Dinov2Model  # noqa: E402

from amt.models import dinov2  # noqa: E402

TURNS = 15
RATE = 1e-5
BATCH = 8  # of the training step
WIDTH, DEPTH, HEADS = dinov2.SIZES["small"]
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 224, 224, 3)).astype(np.float32)


def forwards(model, backbone, params, batch: int) -> dict:
    """One forward pass of each contender."""
    x = pixels(batch)
    planes = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    def in_torch():
        with torch.inference_mode():
            model(planes)

    def here(dtype):
        module = backbone.clone(dtype=dtype)
        run = jax.jit(lambda params, x: module.apply({"params": params}, x).tokens)
        return lambda: jax.block_until_ready(run(params, x))

    return {"torch float32": in_torch, "float32": here(jnp.float32), "bfloat16": here(jnp.bfloat16)}


def steps(model, backbone, params, batch: int) -> dict:
    """One step of AdamW of each contender, nothing frozen, nothing computed again."""
    x = pixels(batch)
    planes = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    torch_optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

    def in_torch():
        torch_optimizer.zero_grad()
        model(planes).last_hidden_state.pow(2).mean().backward()
        torch_optimizer.step()

    def here(dtype):
        module, optimizer = backbone.clone(dtype=dtype, remat=0.0), optax.adamw(RATE)

        def loss(params, x):
            return jnp.square(module.apply({"params": params}, x).tokens.astype(jnp.float32)).mean()

        @jax.jit
        def step(params, state, x):
            updates, state = optimizer.update(jax.grad(loss)(params, x), state, params)
            return optax.apply_updates(params, updates), state

        now = [params, optimizer.init(params)]

        def run():
            now[:] = jax.block_until_ready(step(*now, x))

        return run

    return {"torch float32": in_torch, "float32": here(jnp.float32), "bfloat16": here(jnp.bfloat16)}


def compare(name: str, contenders: dict) -> None:
    """Prints the median time of each and its speed relative to the first."""
    for run in contenders.values():
        run()
    times = {contender: [] for contender in contenders}
    for _ in range(TURNS):
        for contender, run in contenders.items():
            start = time.perf_counter()
            run()
            times[contender].append(time.perf_counter() - start)
    median = {contender: np.median(t) for contender, t in times.items()}
    first = median["torch float32"]
    print(name, *(f"{c} {1000 * t:.0f} ms ({first / t:.2f} x)" for c, t in median.items()), sep="  ", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **SIZES)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        backbone, params = dinov2.from_huggingface(folder)
    params = jax.tree.map(jnp.asarray, params)
    compare("forward, batch 1", forwards(model, backbone, params, 1))
    compare("forward, batch 8", forwards(model, backbone, params, 8))
    compare(f"training step, batch {BATCH}", steps(model, backbone, params, BATCH))


if __name__ == "__main__":
    main()
