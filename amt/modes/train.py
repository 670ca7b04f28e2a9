"""`--mode=train`: train finder and perception, amt's or VMT, on a data set in the DexYCB layout."""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from amt.data.augmentation import AugmentConfig
from amt.data.device_cache import cache_iterator, load_cache, num_mesh_parts
from amt.data.hand_labels import HandIds
from amt.data.mixed import find_roots, open_mixed
from amt.data.pipeline import eval_batches, train_iterator, with_context
from amt.data.quarantine import Quarantine, Readable
from amt.data.transforms import TransformConfig
from amt.errors import UserError
from amt.evaluation import baseline
from amt.hand import EMBEDDED_HAND
from amt.models import dinov2, weights
from amt.models.encoder import Dinov2Encoder
from amt.models.factory import FAMILIES, from_settings, frozen_parameters
from amt.models.perception import Amt
from amt.modes.common import Progress, code_version, plain, write_json
from amt.modes.hands import check_labels, load_hand
from amt.modes.validation import FINDER_SCORES, PERCEPTION_SCORES, perceiver, pictures, validation
from amt.training import sharding
from amt.training.checkpoint import Checkpoints
from amt.training.feed import Feed, augmented_feed, cached_feed, host_feed
from amt.training.loop import LoopConfig, make_average, train
from amt.training.optimizer import OptimizerConfig
from amt.training.step import Loss, Objective, TrainState, init_params, perception_loss
from amt.training.stopping import StopRequest

STAGES = ("1a", "1b", "2", "3")
POLICY_STAGES = STAGES[2:]  # whose train step has a policy
FLOAT8_CAPABILITY = 8.9  # of NVIDIA GPUs, from Ada and Hopper on
VALIDATION_SAMPLES = 512
MEAN_SAMPLES = 4000  # of the training set, for the baseline
AUTO = "auto"  # train.batch_size: planned from the devices' memory


class Learning(NamedTuple):
    """What the train step of a stage is made of, what feeds it and what it starts from.

    Parameters whose path is `frozen` do not learn.
    """

    mesh: jax.sharding.Mesh
    loss: Loss
    feed: Feed
    optimizer: OptimizerConfig
    params: dict
    frozen: Callable[[str], bool] | None = None


def transform_config(config, component: str = "all") -> TransformConfig:
    """The fields of `data` and `finder` that make crops and frames."""
    names = {f.name for f in dataclasses.fields(TransformConfig)} - {"frame_size", "component"}
    chosen = {n: config.data[n] for n in names}
    return TransformConfig(frame_size=config.finder.frame_size, component=component, **chosen)


def run(config, workdir: Path, input: str | None) -> dict:
    check_stage(config)
    if config.train.stage in POLICY_STAGES:
        from amt.modes import train_physics, train_policy  # which import this module

        config = _planned(config, sharding.make_mesh(**config.mesh), workdir)
        return (train_policy if config.train.stage == "2" else train_physics).run(config, workdir)
    model, settings = build_model(config)
    _check_best_metric(config.train.best_metric, model)
    backbone = given_backbone(config, model)
    roots = find_roots(config.data.root)
    hand = load_hand(config.hand)
    source = open_mixed(roots, config.data.split, config.data.part, HandIds.of(hand))
    left_out = check_labels(source, hand)
    transforms = transform_config(config, "all" if model.finder else "perception")
    quarantine = Quarantine(workdir, jax.process_index())
    val = open_mixed(roots, config.data.split, "val", HandIds.of(hand))
    held_out = list(eval_batches(val, transforms, config.eval.batch_size, VALIDATION_SAMPLES, quarantine))
    if not any((batch.joints_valid & real).any() for batch, real in held_out):
        raise UserError(f"{val}: no joints in view in any of the samples that validation looks at; expected some")
    readable = Readable(source, quarantine)
    mean = baseline.measure(readable, MEAN_SAMPLES, transforms.crop_margin, transforms.min_visible_share)
    mesh = sharding.make_mesh(**config.mesh)
    config = _planned(config, mesh, workdir)
    hand = jax.tree.map(jnp.asarray, hand)
    params, fresh = first_params(config, model, hand, backbone)
    made = learning(config, mesh, model, source, hand, params, quarantine)
    if (start := config.train.start_from) and weights.hand_fingerprint(weights.resolve(start)) != hand.fingerprint:
        print(f"{start}: trained with another hand model; pose and shape change their meaning", file=sys.stderr)
    if fresh:
        print(f"not in {config.train.start_from}, so fresh: {', '.join(fresh)}", file=sys.stderr)
    taught = _contacts_taught(config, source, fresh)
    perceive = perceiver(model, hand)
    start = time.monotonic()
    validate, draw = validation(model, perceive, held_out), pictures(perceive, held_out)
    state, scores, averaged = learn(config, workdir, settings, made, validate, draw)
    if jax.process_index() == 0:
        weights.save(workdir / "weights.safetensors", averaged, settings, mean.to_json(), taught, hand=hand.fingerprint)
    return {
        "steps": int(state.step),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "train_samples": len(source),
        "train_s": time.monotonic() - start,
        **scores,
        **left_out,
        "weights": str(workdir / "weights.safetensors"),
    }


def learning(config, mesh, model: Amt, source, hand, params: dict, quarantine: Quarantine) -> Learning:
    """Of stages 1a and 1b, on the samples of `source`."""
    return Learning(
        mesh,
        perception_loss(model, objective(config, len(source)), hand, config.seed),
        make_feed(config, source, transform_config(config, network(config)), mesh, quarantine),
        optimizer_config(config, len(source)),
        params,
        frozen_parameters(model),
    )


def learn(
    config, workdir: Path, settings: dict, made: Learning, validate, draw=None
) -> tuple[TrainState, dict[str, float], dict]:
    """`amt.training.loop.train` as `config.train` says, with checkpoints in the work directory, progress and signals.

    Returns what that returns, and the averaged parameters on the host.
    """
    train_config = config.train
    with (
        Checkpoints(
            workdir / "checkpoints", about(config, settings), train_config.keep_checkpoints, train_config.resume
        ) as checkpoints,
        contextlib.closing(made.feed.iterator),  # its worker processes
        Progress(made.optimizer.steps, "steps", silent=jax.process_index() > 0) as progress,
        StopRequest() as stop,
    ):
        state, scores = train(
            made.loss,
            made.feed,
            validate,
            made.optimizer,
            LoopConfig(**{f.name: train_config[f.name] for f in dataclasses.fields(LoopConfig)}),
            made.mesh,
            checkpoints,
            workdir,
            progress,
            made.params,
            train_config.component,
            made.frozen,
            stop,
            draw,
        )
    return state, scores, jax.device_get(make_average(made.mesh)(state))


def with_batch(config, size: int):
    """The configuration with this `train.batch_size`, which may have been `auto`."""
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        config.train.batch_size = size
    return config


def _planned(config, mesh, workdir: Path):
    """The configuration with a number for `train.batch_size`: where it is `auto`, that of the run which is resumed."""
    from amt.modes.planning import choose_batch  # which imports this module

    if config.train.batch_size != AUTO:
        return config
    path = workdir / "batch_size.json"
    if config.train.resume and path.exists():
        return with_batch(config, json.loads(path.read_text())["batch_size"])
    size = choose_batch(config, mesh)
    write_json(path, {"batch_size": size})
    return with_batch(config, size)


def build_model(config) -> tuple[Amt, dict]:
    """The model of either family and the architecture that its weights belong to.

    Raises `UserError` for a family that there is not, and where VMT is to train a finder.
    """
    if config.family not in FAMILIES:
        raise UserError(f"config.family={config.family}: expected one of {', '.join(FAMILIES)}")
    settings = weights.architecture(config.to_dict())
    model = from_settings(settings, config.backbone.to_dict(), config.train.blocks.to_dict())
    if model.finder is None and network(config) != "perception":
        raise UserError(f"config.train.component={config.train.component}: expected perception, vmt has no finder")
    if config.train.blocks.dtype == "float8":
        check_float8(jax.devices()[0])
    return model, settings


def about(config, settings: dict) -> dict:
    """What checkpoints say of the run; it goes on with the same architecture and the same way to read."""
    workers = config.data.num_workers if config.data.feed == "stream" else 0
    fingerprint = load_hand(config.hand).fingerprint
    return {
        "architecture": settings,
        "iterator": {
            "config.data.feed": config.data.feed,
            "config.data.num_workers": workers,
            "number of processes": jax.process_count(),
            # Checkpoints from before there was a choice do not say it.
            **({"config.hand.model": fingerprint} if fingerprint != EMBEDDED_HAND else {}),
        },
        "config": plain(config.to_dict()),
        "code": code_version(),
    }


def _check_best_metric(name: str, model: Amt) -> None:
    scores = PERCEPTION_SCORES + (FINDER_SCORES if model.finder else ())
    if name not in scores:
        raise UserError(f"config.train.best_metric={name}: expected one of {', '.join(scores)}")


def check_stage(config) -> None:
    """Raises `UserError` for a stage that there is not."""
    if config.train.stage not in STAGES:
        raise UserError(f"config.train.stage={config.train.stage}: expected one of {', '.join(STAGES)}")


def check_float8(device: jax.Device) -> None:
    """Raises `UserError` for a device without products of 8-bit floats."""
    if device.platform != "gpu" or float(getattr(device, "compute_capability", 0)) < FLOAT8_CAPABILITY:
        raise UserError(
            f"config.train.blocks.dtype=float8: {device.device_kind} has no such products, NVIDIA GPUs of compute "
            f"capability {FLOAT8_CAPABILITY} and above have; use bfloat16"
        )


def network(config) -> str:
    """What learns or has a part that learns: all, finder or perception."""
    return config.train.component.split("/")[0]


def optimizer_config(config, num_samples: int = 0) -> OptimizerConfig:
    """Of a training set of so many samples; without it, where only what a step costs is asked for, lengths in epochs
    are left out.
    """
    train = config.train
    chosen = {f.name: train[f.name] for f in dataclasses.fields(OptimizerConfig)} | {"rates": train.rates.to_dict()}
    for steps, epochs in (("steps", train.epochs), ("restart_steps", train.restart_epochs)):
        if epochs and num_samples:
            chosen[steps] = math.ceil(epochs * updates_per_epoch(config, num_samples))
    return OptimizerConfig(**chosen)


def updates_per_epoch(config, num_samples: int) -> float:
    return num_samples / (config.train.batch_size * config.train.accumulation)


def objective(config, num_samples: int) -> Objective:
    """Raises `UserError` for weights of terms that are not computed as the rest of the configuration is."""
    train = config.train
    if train.loss.kl and not train.sigma_reparam:
        raise UserError(f"config.train.loss.kl={train.loss.kl}: needs config.train.sigma_reparam; set one or the other")
    epoch = num_samples / train.batch_size if train.loss_schedules else 0.0
    return Objective(train.loss.to_dict(), train.component, epoch)


def _contacts_taught(config, source, fresh: list[str]) -> bool:
    """Whether kind and force of contacts are learned here, or were in the weights of which only the finder changes."""
    train = config.train
    if network(config) != "finder":
        return bool(train.loss.contact_kind and train.loss.contact_force and source.has_contacts)
    kept = train.start_from and "perception.contact_decoder" not in fresh
    return bool(kept) and weights.contacts_taught(weights.resolve(train.start_from))


def augment_config(config, component: str = "all") -> tuple[TransformConfig, AugmentConfig]:
    """Of augment=device: what is read on the host, and what the devices make of it."""
    seen = transform_config(config, component)
    read = with_context(seen, config.data.context)
    jitter = seen.crop != "full"
    return read, AugmentConfig(
        image_size=seen.image_size,
        context=read.image_size / seen.image_size,
        min_visible_share=seen.min_visible_share,
        wrong_side_share=seen.wrong_side_share,
        box_shift=jitter * seen.crop_jitter,
        box_scale=jitter * 1.5 * seen.crop_jitter,
        box_roll=jitter * seen.roll_jitter,
        rough_share=jitter * seen.rough_share,
        **config.data.augmentation,
    )


def make_feed(config, source, learned: TransformConfig, mesh, quarantine) -> Feed:
    """Batches as `data.feed` and `data.augment` say. Raises `UserError` for what does not go together."""
    data, size = config.data, config.train.batch_size
    for name, choices in (("augment", ("host", "device")), ("feed", ("stream", "cache"))):
        if data[name] not in choices:
            raise UserError(f"config.data.{name}={data[name]}: expected {' or '.join(choices)}")
    sharding.check_batch(size, mesh, "config.train.batch_size")
    size *= config.train.accumulation
    if data.augment == "host":
        if data.feed == "cache":
            raise UserError(
                "config.data.feed=cache: needs config.data.augment=device; jitter on the host is not cached"
            )
        iterator = train_iterator(source, learned, size, config.seed, data.num_workers, quarantine)
        return host_feed(iterator, mesh)
    read, augmentation = augment_config(config, network(config))
    read.check()
    augmentation.check()
    if data.feed == "stream":
        iterator = train_iterator(source, read, size, config.seed, data.num_workers, quarantine, jitter=False)
        return augmented_feed(iterator, mesh, augmentation, config.seed)
    split = sharding.batch_sharding(mesh)
    with Progress(len(source), "samples into the cache") as progress:
        cache = load_cache(source, read, split, data.num_workers, data.cache_share, quarantine, progress.update)
    iterator = cache_iterator(source, num_mesh_parts(split), size, config.seed)
    return cached_feed(iterator, cache, mesh, augmentation, config.seed)


def given_backbone(config, model) -> dict | None:
    """DINOv2's parameters where the encoder is one: `backbone.weights`, else those in `train.start_from`.

    Raises `UserError` for those of another DINOv2, and where it would start from random numbers.
    """
    encoder = getattr(model.perception, "encoder", None)
    if not isinstance(encoder, Dinov2Encoder):
        return None
    if path := config.backbone.weights:
        backbone, params = dinov2.load(path)
        found, expected = (dinov2.architecture(x) for x in (backbone, encoder.backbone))
        weights.check_architecture(found, expected, f"config.backbone.weights={path}")
        return params
    if path := config.train.start_from:
        params = weights.load(weights.resolve(path))[0]["perception"]["encoder"].get("backbone", {})
        shapes = {name: x.shape for name, x in flatten_dict(params, sep="/").items()}
        if shapes == dinov2.parameter_shapes(encoder.backbone):
            return params
    raise UserError(
        f"config.backbone.weights: empty, but config.model.encoder={config.model.encoder} starts from DINOv2's; "
        "convert them with --mode=convert --input=HF_FOLDER and name the backbone.safetensors that it writes, or "
        "learn from scratch with --config.model.encoder=conv"
    )


def fresh_params(config, model: Amt, hand) -> dict:
    """Drawn by `config.seed`, with the learnable weights of the joints where the loss has them."""
    params = init_params(model, config.seed, config.data.image_size, config.finder.frame_size, hand)
    if config.train.loss.hand_joint_weights:
        params["perception"]["joint_logits"] = jnp.zeros(21)
    return params


def first_params(config, model, hand, backbone: dict | None) -> tuple[dict, list[str]]:
    """Fresh parameters around `backbone`, or those of another run where names and shapes fit; and what stayed fresh.

    Raises `UserError` for a run of which nothing fits.
    """
    path = config.train.start_from
    params = fresh_params(config, model, hand)
    if backbone is not None:
        params["perception"]["encoder"]["backbone"] = jax.tree.map(jnp.asarray, backbone)
    if not path:
        return params, []
    given, _, _ = weights.load(weights.resolve(path))
    given, flat = flatten_dict(given, sep="."), flatten_dict(params, sep=".")
    fits = {k for k, v in flat.items() if k in given and given[k].shape == v.shape}
    if not fits:
        raise UserError(f"config.train.start_from={path}: no parameter has the name and shape of this configuration's")
    fresh = flat.keys() - fits
    flat |= {k: jnp.asarray(given[k]) for k in fits}
    return unflatten_dict(flat, sep="."), sorted({".".join(k.split(".")[:2]) for k in fresh})
