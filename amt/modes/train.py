"""`--mode=train`: train finder and perception on a data set in the DexYCB layout."""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from amt import hand as hand_model
from amt.data.dexycb import DexYCB, find_root
from amt.data.pipeline import eval_batches, train_iterator
from amt.data.transforms import TransformConfig
from amt.evaluation import baseline
from amt.models import weights
from amt.models.factory import build
from amt.modes.common import Progress
from amt.training import sharding
from amt.training.loop import LoopConfig, train
from amt.training.step import OptimizerConfig

VALIDATION_SAMPLES = 512
MEAN_SAMPLES = 4000  # of the training set, for the baseline


def transform_config(config) -> TransformConfig:
    """The fields of `data` and `finder` that make crops."""
    names = {f.name for f in dataclasses.fields(TransformConfig)} - {"frame_size"}
    return TransformConfig(frame_size=config.finder.frame_size, **{n: config.data[n] for n in names})


def run(config, workdir: Path, input: str | None) -> dict:
    root = find_root(config.data.root)
    source = DexYCB(root, config.data.split, config.data.part)
    transforms = transform_config(config)
    mesh = sharding.make_mesh(**config.mesh)
    hand = jax.tree.map(jnp.asarray, hand_model.load())
    settings = weights.architecture(config.to_dict())
    model = build(settings["model"], settings["finder"], settings["image_size"])
    iterator = train_iterator(source, transforms, config.train.batch_size, config.seed, config.data.num_workers)
    names = {f.name for f in dataclasses.fields(OptimizerConfig)}
    optimizer = OptimizerConfig(**{n: config.train[n] for n in names})
    loop = LoopConfig(**{f.name: config.train[f.name] for f in dataclasses.fields(LoopConfig)})
    start = time.monotonic()
    with Progress(optimizer.steps, "steps") as progress:
        state, scores = train(
            model,
            hand,
            iterator,
            _validation(model, hand, config, transforms, root),
            optimizer,
            loop,
            config.train.loss,
            mesh,
            config.seed,
            (transforms.image_size, transforms.frame_size),
            settings,
            workdir,
            progress.update,
            _start(config.train.start_from, settings),
        )
    mean = baseline.measure(source, MEAN_SAMPLES, transforms.crop_margin, transforms.min_visible_share)
    weights.save(workdir / "weights.safetensors", jax.device_get(state.ema), settings, mean.to_json())
    return {
        "steps": int(state.step),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "train_samples": len(source),
        "train_s": time.monotonic() - start,
        **scores,
        "weights": str(workdir / "weights.safetensors"),
    }


def _start(path: str, settings: dict) -> dict | None:
    """The parameters of another run, if one is named; they must be of the same architecture."""
    if not path:
        return None
    params, found, _ = weights.load(weights.resolve(path))
    weights.check_architecture(found, settings, path)
    return jax.tree.map(jnp.asarray, params)


def _validation(model, hand, config, transforms, root):
    """Root-relative MPJPE on label crops of the held-out sequences of the same root: enough to watch a run."""
    held_out = DexYCB(root, config.data.split, "val")
    batches = list(eval_batches(held_out, transforms, config.eval.batch_size, VALIDATION_SAMPLES))
    perceive = jax.jit(lambda params, b: model.apply({"params": params}, b.image, b.K, hand, method="perceive").joints)

    def validate(params) -> dict[str, float]:
        joints = np.concatenate([np.asarray(perceive(params, b)) for b, _ in batches])
        truth = np.concatenate([b.joints_3d for b, _ in batches])
        valid = np.concatenate([b.joints_valid & real for b, real in batches])
        error = np.linalg.norm((joints - joints[:, :1]) - (truth - truth[:, :1]), axis=-1)
        return {"val_mpjpe_mm": float(error[valid].mean()) * 1000}

    return validate
