"""The train state and the jitted train step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from amt import losses, metrics
from amt.data.ycb import OBJECTS
from amt.geometry.primitives import symmetries
from amt.hand import HandModel
from amt.models import sigma_reparam
from amt.models.sigma_reparam import Spectral
from amt.structs import Batch
from amt.training.feed import Prepare
from amt.training.optimizer import belongs
from amt.training.sharding import batch_sharding, path_name, tree_shardings

SKIPPED = "skipped_in_a_row"
# Of parameters, sigma-reparam's state, a batch and how many batches there were before it (of which `accumulation` make
# an update): the value; its scalars by name, and the state after it.
Loss = Callable[[dict, Spectral, Any, Int[Array, ""]], tuple[Float[Array, ""], tuple[dict[str, Array], Spectral]]]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; `ema` is the average of `params` that is evaluated and shipped.

    With sigma-reparam both have gains, and `averaged` gives plain parameters. `step` counts all updates, `skipped`
    those in a row, up to now, that were left out because the loss or a gradient was not finite.
    """

    step: Int[Array, ""]
    skipped: Int[Array, ""]
    params: dict
    ema: dict
    opt_state: optax.OptState
    spectral: Spectral

    def averaged(self) -> dict:
        """The averaged parameters as the model takes them."""
        return sigma_reparam.fold(self.ema, self.spectral)[0]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised: `weights` of all terms by name; those of weight 0 are not computed.

    With a `component` (finder, perception or a part of it) only its network's terms are. `steps_per_epoch`, in batches
    as a `Loss` counts them, times the schedules of `losses.SCHEDULES`; 0 leaves them out.
    """

    weights: Mapping[str, float]
    component: str = "all"
    steps_per_epoch: float = 0.0

    @property
    def network(self) -> str:
        """all, finder or perception: what the component is a part of."""
        return self.component.split("/")[0]

    def has(self, *names: str) -> bool:
        return any(self.weights.get(name) for name in names)

    def total(self, terms: dict[str, Array], step: Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The weighted sum, and the terms that are in it. Raises `ValueError` for a term without a weight."""
        if unknown := sorted(set(terms) - set(self.weights)):
            raise ValueError(f"loss terms without a weight: {unknown}")
        terms = {name: value for name, value in terms.items() if self.weights[name]}
        epoch = step.astype(jnp.float32) / self.steps_per_epoch if self.steps_per_epoch else jnp.inf
        return losses.total(terms, {name: self.weights[name] for name in terms}, epoch), terms


def init_params(model: nn.Module, seed: int, image_size: int, frame_size: int, hand: HandModel) -> dict:
    """Fresh parameters, a pure function of the seed."""
    frame = jnp.zeros((1, frame_size, frame_size, 3), jnp.uint8)
    image = jnp.zeros((1, image_size, image_size, 3), jnp.uint8)
    K = jnp.eye(3)[None]
    rng = jax.random.key(seed)
    init = model.init if isinstance(rng, jax.core.Tracer) else jit_once(model.init)  # where only shapes are asked for
    return init(rng, frame, image, K, hand)["params"]


def jit_once(function: Callable, **options: Any) -> Callable:
    """`jax.jit` of what runs once: a CPU's compiler, which would take longer than that run, does not optimise it."""
    hurry = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=hurry if jax.default_backend() == "cpu" else None, **options)


def initial_state(
    params: dict, optimizer: optax.GradientTransformation, with_gains: bool = False, component: str = "all"
) -> TrainState:
    """The state at step 0; `with_gains` for sigma-reparam of a component."""
    spectral = sigma_reparam.EMPTY
    if with_gains:
        params, spectral = sigma_reparam.init(params, lambda path: belongs(path, component))
    ema, zero = jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, ema, optimizer.init(params), spectral)


def create_state(
    params: dict, optimizer: optax.GradientTransformation, mesh: Mesh, with_gains: bool = False, component: str = "all"
) -> TrainState:
    """The initial state, placed on the mesh by the sharding table."""
    make = functools.partial(initial_state, optimizer=optimizer, with_gains=with_gains, component=component)
    shardings = tree_shardings(jax.eval_shape(make, params), mesh)
    return jit_once(make, out_shardings=shardings)(jax.device_get(params))  # the host's are every process's


def component_norms(gradient: dict) -> dict[str, Float[Array, ""]]:
    """The gradient's norm of the finder and of each part of perception, as `grad_norm_NAME`."""
    parts: dict[str, list] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        names = path_name(path).split("/")
        parts.setdefault(names[1] if names[0] == "perception" else names[0], []).append(x)
    return {f"grad_norm_{name}": optax.tree.norm(x) for name, x in parts.items()}


def _split(batch, parts: int):
    """[n,...] to [parts,n/parts,...]: every device keeps its own samples."""

    def split(x):
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def symmetry_table() -> Float[np.ndarray, "22 24 3 3"]:
    """Symmetries of every object's primitive, by YCB id; row 0 is no object."""
    table = np.tile(np.eye(3, dtype=np.float32), (22, 24, 1, 1))
    for i, obj in OBJECTS.items():
        table[i] = symmetries(obj.primitive.axis)
    return table


def perception_loss(model: nn.Module, objective: Objective, hand: HandModel, seed: int = 0) -> Loss:
    """Of finder and perception on a `Batch`. Dropout is a function of `seed` and the step.

    Beside the terms it gives what shows a collapse: the spread of predicted joints over that of the labels.
    """
    terms_of = perception_terms(model, objective, hand)

    def loss(params, spectral, batch, step):
        plain, after = sigma_reparam.fold(params, spectral)
        terms, watched = terms_of(plain, batch, jax.random.fold_in(jax.random.key(seed), step))
        if objective.has("kl"):
            terms["kl"] = losses.kl_gains(sigma_reparam.gains(params, spectral))
        value, terms = objective.total(terms, step)
        return value, (terms | watched, after)

    return loss


def perception_terms(model: nn.Module, objective: Objective, hand: HandModel) -> Callable:
    """(plain parameters, batch, key of dropout) -> the terms of `perception_loss` but kl, and what is watched."""
    table = jnp.asarray(symmetry_table())
    collections = ["entropy"] if objective.has("attention_entropy") else []

    def terms_of(plain, batch: Batch, rng) -> tuple[dict[str, Array], dict[str, Array]]:
        apply = functools.partial(model.apply, {"params": plain}, rngs={"dropout": rng}, mutable=collections)
        terms, stored, watched = {}, [], {}
        if objective.network != "finder":
            out, seen = apply(batch.image, batch.K, hand, batch.point_noise, method="perceive")
            stored.append(seen)
            terms |= losses.perception_losses(out, batch, hand, table, plain["perception"].get("joint_logits"))
            watched["spread_ratio"] = metrics.spread_ratio(out.joints, batch.joints_3d, batch.joints_valid)
            if objective.has(*losses.PHYSICAL):
                terms |= losses.physical_losses(out, batch, losses.labels(batch, hand), hand)
        if objective.network != "perception":
            found, seen = apply(batch.frame, method="find")
            stored.append(seen)
            terms |= losses.finder_losses(found, batch)
        if objective.has("attention_entropy"):
            terms["attention_entropy"] = losses.attention_entropy(stored)
        return terms, watched

    return terms_of


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    state: TrainState,
    mesh: Mesh,
    prepare: Prepare | None = None,
    accumulation: int = 1,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
    """The jitted step: the state is donated, gradients are averaged over the mesh by the compiler.

    What the step is fed is what the loss takes, or what `prepare` makes that of (`amt.training.feed`). A batch is taken
    in `accumulation` parts, of which only one's activations are held at a time; terms that compare samples of a batch
    compare those of a part.

    Where the loss or the gradient is not finite the state stays as it was, but for its counters. Beside the loss's
    scalars the step returns the gradient's norm by component, and `SKIPPED`, how many updates in a row have been left
    out.
    """

    def gradient_of(params, spectral, batch, step):
        (value, (scalars, spectral)), gradient = jax.value_and_grad(loss, has_aux=True)(params, spectral, batch, step)
        return gradient, spectral, {"loss": value, **scalars}

    def summed(params, spectral, batch, step):
        """Means over `accumulation` batches, one after the other."""
        batches = _split(batch, accumulation)
        first = jax.tree.map(lambda x: x[0], batches)
        shapes = jax.eval_shape(gradient_of, params, spectral, first, step)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[2]))

        def add(carry, k_and_batch):
            k, one = k_and_batch
            gradient, after, scalars = gradient_of(params, spectral, one, step * accumulation + k)
            return jax.tree.map(jnp.add, carry, (gradient, scalars)), after

        sums, after = jax.lax.scan(add, zeros, (jnp.arange(accumulation), batches))
        gradient, scalars = jax.tree.map(lambda x: x / accumulation, sums)
        return gradient, jax.tree.map(lambda x: x[-1], after), scalars

    def step(state, fed):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # the matching of the losses looks for it
            return on_mesh(state, fed)

    def on_mesh(state, fed):
        batch = fed if prepare is None else prepare(state.step, fed)
        take = gradient_of if accumulation == 1 else summed
        gradient, spectral, scalars = take(state.params, state.spectral, batch, state.step)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int and float on purpose
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        norms = {"grad_norm": optax.tree.norm(gradient), **component_norms(gradient)}
        good = jnp.isfinite(scalars["loss"]) & jnp.isfinite(norms["grad_norm"])
        good = jax.lax.optimization_barrier(good)  # else the compiler finds it out again for every parameter

        def kept(new, old):
            return jax.tree.map(functools.partial(jax.lax.select, good), new, old)

        params = kept(optax.apply_updates(state.params, updates), state.params)
        # Early on the average would remember the initialisation: let it forget faster then.
        count = state.step.astype(jnp.float32)
        share = 1.0 - jnp.minimum(ema_decay, (count + 1.0) / (count + 20.0))
        ema = kept(jax.tree.map(lambda e, p: e + (p - e) * share, state.ema, params), state.ema)
        rest = kept((opt_state, spectral), (state.opt_state, state.spectral))
        skipped = jnp.where(good, 0, state.skipped + 1)
        scalars = scalars | norms | {SKIPPED: skipped.astype(jnp.float32)}
        return TrainState(state.step + 1, skipped, params, ema, *rest), scalars

    shardings = tree_shardings(state, mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, NamedSharding(mesh, P())),
        donate_argnums=0,
    )
