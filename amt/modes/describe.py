"""`--mode=describe`: what the model's components cost for one sample (of the policy: one frame of a stream), and what
the train step takes on a mesh (`config.plan`); nothing is allocated, no data are read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from amt.errors import UserError
from amt.models import cost, weights
from amt.models.factory import build, build_policy, build_vmt, frozen_parameters
from amt.models.policy import NUM_SIZED, observe
from amt.modes.hands import load_hand
from amt.modes.planning import describe_plan, planned_devices
from amt.modes.train import POLICY_STAGES
from amt.robot.model import NUM_JOINTS
from amt.training.optimizer import belongs

COMPONENTS = {  # paths in the model by name; what lies in none of them belongs to the empty path
    "amt": {
        "finder": "finder",
        "backbone": "perception/encoder/backbone",
        "image_encoder": "perception/encoder",
        "keypoints": "perception/keypoints",
        "coarse_hand": "perception/coarse_hand",
        "hand_encoder": "perception/hand_encoder",
        "joint_refiner": "perception/joint_refiner",
        "side": "perception/side",
        "object_decoder": "perception/object_decoder",
        "contact_decoder": "perception/contact_decoder",
        "rest": "",
    },
    "vmt": {
        "hand_encoder": "hand_encoder",
        "object_encoder": "object_encoder",
        "object_heads": "",
        "contact_encoder": "contact_encoder",
    },
}
POLICY = {"temporal_fusion": "fusion", "action_decoder": "actions", "policy": ""}
COLUMNS = {  # what is counted: heading, divisor
    "parameters": ("parameters M", 1e6),
    "trainable_parameters": ("trainable M", 1e6),
    "activation_bytes": ("activations MB", 1e6),
    "forward_flops": ("forward GFLOP", 1e9),
    "training_flops": ("training GFLOP", 1e9),
}
# Dense bfloat16 operations per second: NVIDIA's data sheet of the H100 SXM, Google's documentation of the TPU v5e.
PEAKS = {"h100_sxm": 989.4e12, "tpu_v5e": 197e12}


class Subject(NamedTuple):
    """A model, its components, the abstract inputs of one sample, what else it is given, and which parameters learn.

    `learned` is the part of the model's output that is learned from; None where the train step does without the model.
    """

    model: nn.Module
    components: dict[str, str]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    constants: tuple[Any, ...]
    is_trained: Callable[[str], bool]
    learned: Callable[[Any], Any] | None


def run(config, workdir: Path, input: str | None) -> dict:
    devices = planned_devices(config) if config.plan.enabled else []
    subject = _subject(config)
    rows, outputs, out = _described(subject)
    rows += _described(_policy(config, out if config.family == "vmt" else out[1]))[0]
    print_components(rows)
    totals = {key: sum(row[key] for row in rows) for key in COLUMNS}
    # What arithmetic alone would allow one stream; no program reaches it.
    limits = {f"{name}_peak_frames_per_s": peak / totals["forward_flops"] for name, peak in PEAKS.items()}
    plan = {"plan": describe_plan(config, devices)} if devices else {}
    return {**totals, **limits, "outputs": outputs, "components": rows, **plan}


def _described(subject: Subject) -> tuple[list[dict], dict, Any]:
    """A row of figures and output shapes for each component; what the model returns, as shapes by field and itself."""

    def apply(params, *inputs, rngs=None):
        return subject.model.apply({"params": params}, *inputs, *subject.constants, rngs=rngs)

    def learn(params, rng, *inputs):
        return subject.learned(apply(params, *inputs, rngs={"dropout": rng}))

    rng = jax.eval_shape(lambda: jax.random.key(0))
    params, outputs, out = _initialised(subject, rng)
    sizes = {path: x.size for path, x in flatten_dict(params, sep="/").items()}
    trainable = {path: size for path, size in sizes.items() if subject.is_trained(path)}
    forward = cost.forward_flops(apply, params, *subject.inputs)
    training, activations = {}, {}
    if subject.learned is not None:
        training, activations = cost.training_cost(learn, params, subject.is_trained, rng, *subject.inputs)
    counted = zip(COLUMNS, (sizes, trainable, activations, forward, training), strict=True)
    figures = {key: cost.by_component(x, subject.components) for key, x in counted}
    rows = [
        {"name": name, **{key: figure[name] for key, figure in figures.items()}, "outputs": outputs.get(name, {})}
        for name in subject.components
        if any(figure[name] for figure in figures.values())
    ]
    return rows, outputs[""], out


def print_components(rows: list[dict]) -> None:
    """A line per component, for one sample."""
    print(f"{'one sample':<16}" + "".join(f"{heading:>16}" for heading, _ in COLUMNS.values()))
    for row in rows:
        print(f"{row['name']:<16}" + "".join(f"{row[key] / unit:>16.4g}" for key, (_, unit) in COLUMNS.items()))


def _subject(config) -> Subject:
    """Raises `UserError` for a family or a component that there is not, and for what the factory refuses."""
    if config.family not in COMPONENTS:
        raise UserError(f"config.family={config.family}: expected one of {', '.join(COMPONENTS)}")
    size = config.data.image_size
    image, K = _pixels(size), jax.ShapeDtypeStruct((1, 3, 3), jnp.float32)
    if config.family == "vmt":
        model = build_vmt(config.vmt, config.model, size, config.train.blocks.to_dict())
        return Subject(model, COMPONENTS["vmt"], (image, K), (), lambda path: True, lambda out: out)
    learned = {"all": lambda out: out, "finder": lambda out: out[0], "perception": lambda out: out[1]}
    if config.train.stage in POLICY_STAGES:
        learned["policy"] = learned["perception"]  # which it looks through
    component = config.train.component
    network = component.split("/")[0]
    if network not in learned:
        raise UserError(f"config.train.component={component}: expected one of {', '.join(learned)}")
    settings = weights.architecture(config.to_dict())
    sections = settings["model"], settings["finder"], settings["image_size"]
    model = build(*sections, config.backbone.to_dict(), config.train.blocks.to_dict())
    frozen = frozen_parameters(model)

    def is_trained(path: str) -> bool:
        return belongs(path, component) and not (frozen and frozen(path))

    hand = jax.tree.map(jnp.asarray, load_hand(config.hand))
    inputs = (_pixels(config.finder.frame_size), image, K)
    return Subject(model, COMPONENTS["amt"], inputs, (hand,), is_trained, learned[network])


def _policy(config, perceived: Any) -> Subject:
    """The policy on one frame of a stream, of which this is perceived. Raises `UserError` as its factory."""
    model = build_policy(config.fusion, config.actions, config.train.blocks.to_dict())
    shapes = ((1, 1, 4, 4), (NUM_SIZED, 3), (1, 1, NUM_JOINTS))
    others = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    seen = jax.eval_shape(
        observe, perceived, *others, *(jax.ShapeDtypeStruct((1, 1), t) for t in (jnp.bool_, jnp.float32))
    )
    component = config.train.component
    runs = config.train.stage in POLICY_STAGES and component.split("/")[0] in ("all", "policy")
    return Subject(
        model,
        POLICY,
        (seen, jax.eval_shape(lambda: model.empty_cache(1))),
        (),
        lambda path: runs and belongs(f"policy/{path}", component),
        (lambda out: out[0]) if runs else None,
    )


def _pixels(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)


def _initialised(subject: Subject, rng: Any) -> tuple[dict, dict[str, dict], Any]:
    """Abstract parameters; shapes of what each component and, at "", the model returns, by field, batch axis first;
    and what the model returns.
    """
    names = {path: name for name, path in subject.components.items() if path} | {"": ""}

    def wanted(module, method):
        return method == "__call__" and "/".join(module.path) in names

    def init(rng, *inputs):
        return subject.model.init(
            rng,
            *inputs,
            *subject.constants,
            mutable=["params", "intermediates"],
            capture_intermediates=wanted,
        )

    variables = jax.eval_shape(init, rng, *subject.inputs)
    outputs = {}
    for path, out in flatten_dict(variables["intermediates"], sep="/").items():
        leaves = jax.tree_util.tree_leaves_with_path(out[0])
        shapes = {jax.tree_util.keystr(key, simple=True, separator=".") or "output": list(x.shape) for key, x in leaves}
        outputs[names[path.removesuffix("__call__").rstrip("/")]] = shapes
    return variables["params"], outputs, variables["intermediates"]["__call__"][0]
