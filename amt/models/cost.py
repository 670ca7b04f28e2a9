"""What a model costs, counted in its jaxpr without allocating anything: FLOPs and what the backward pass keeps.

Figures come by scope: the path of the module an operation belongs to, names joined by slashes.

A product counts 2 per multiply-add, arithmetic 1 per element it makes, a reduction 1 per element it reads; moving,
comparing, selecting and converting count nothing. Both passes are counted where they stand: a trained layer costs about
three times its forward pass, a rematerialised one four times, a frozen one whose input needs no gradient once.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var
from jax.interpreters import partial_eval

VIEWS = {"broadcast_in_dim", "copy", "expand_dims", "reshape", "squeeze", "stop_gradient", "transpose"}
MOVES = VIEWS | {
    "concatenate",
    "convert_element_type",
    "dynamic_slice",
    "gather",
    "pad",
    "rev",
    "select_n",
    "slice",
    "split",
    "stack",
    "tile",
    "unstack",
}
PRODUCTS = ("dot_general", "conv_general_dilated")
TRANSFORM = re.compile(r"\w+\(|\)")  # `transpose(jvp(Amt))/finder` names what Amt/finder does in the backward pass


def forward_flops(apply: Callable, params: Any, *inputs: Any) -> Counter[str]:
    """Of `apply(params, *inputs)`, whose arguments may be abstract."""
    return flops(_needed(jax.make_jaxpr(apply)(params, *inputs).jaxpr))


def training_cost(
    apply: Callable, params: Mapping[str, Any], is_trained: Callable[[str], bool], *inputs: Any
) -> tuple[Counter[str], Counter[str]]:
    """FLOPs of both passes, and bytes of activations: what is computed from `inputs` for the backward pass to read.

    The gradient is that of the parameters whose path `is_trained`; losses, and what a step does once (optimizer,
    sigma-reparam), are not counted. Views of one array are kept once; XLA may keep less, where it fuses operations.
    """
    flat = flatten_dict(dict(params), sep="/")
    trained = {path: x for path, x in flat.items() if is_trained(path)}
    frozen = {path: x for path, x in flat.items() if path not in trained}

    def both(gradient, trained, frozen, *inputs):
        out, backward = jax.vjp(lambda trained: apply(unflatten_dict(trained | frozen, sep="/"), *inputs), trained)
        return out, backward(gradient)

    gradient = jax.eval_shape(apply, params, *inputs)
    jaxpr = _needed(jax.make_jaxpr(both)(gradient, trained, frozen, *inputs).jaxpr)
    count = len(jax.tree.leaves(gradient))
    return flops(jaxpr), _activations(jaxpr, jaxpr.invars[:count], jaxpr.invars[count + len(flat) :])


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or convolution: the primitive, its parameters, and its operands' shapes and types."""

    primitive: Primitive
    params: tuple[tuple[str, Any], ...]
    operands: tuple[tuple[tuple[int, ...], np.dtype], ...]

    def __call__(self, *operands: jax.Array) -> jax.Array:
        return self.primitive.bind(*operands, **dict(self.params))


def products(function: Callable, *args: Any) -> Counter[Product]:
    """How often each distinct product runs in `function(*args)`, whose arguments may be abstract.

    Of branches the one with most products is counted.
    Raises: NotImplementedError for products in a while loop, whose length is unknown.
    """
    return _products(_needed(jax.make_jaxpr(function)(*args).jaxpr))


def _products(jaxpr: Jaxpr) -> Counter[Product]:
    total = Counter()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in PRODUCTS:
            operands = tuple((x.aval.shape, x.aval.dtype) for x in eqn.invars)
            total[Product(eqn.primitive, tuple(sorted(eqn.params.items())), operands)] += 1
            continue
        inner = [_products(sub) for sub in _inside(eqn)]
        if eqn.primitive.name == "while" and any(inner):
            raise NotImplementedError("products in a while loop, whose length is unknown")
        if eqn.primitive.name == "cond":
            inner = [max(inner, key=Counter.total)]
        for part in inner:
            total += Counter({product: n * eqn.params.get("length", 1) for product, n in part.items()})
    return total


def by_component(figures: Mapping[str, int], components: Mapping[str, str]) -> Counter[str]:
    """Sums over the scopes of components, which are paths by name; a scope belongs to the longest path above it."""
    total = Counter()
    for scope, figure in figures.items():
        above = [name for name, path in components.items() if not path or f"{scope}/".startswith(f"{path}/")]
        total[max(above, key=lambda name: len(components[name]))] += figure
    return total


def flops(jaxpr: Jaxpr, outer: str = "") -> Counter[str]:
    """By scope, of a jaxpr that stands inside of scope `outer`; a loop's body counts as often as it runs.

    Raises: NotImplementedError for a while loop, whose length is unknown.
    """
    total = Counter()
    for eqn in jaxpr.eqns:
        scope = f"{outer}/{eqn.source_info.name_stack}" if outer else str(eqn.source_info.name_stack)
        inner = [flops(sub, scope) for sub in _inside(eqn)]
        if eqn.primitive.name == "while":
            raise NotImplementedError(f"{scope}: the length of a while loop is unknown")
        if eqn.primitive.name == "cond":
            total += max(inner, key=Counter.total)
        elif inner:
            for part in inner:
                total += Counter({path: n * eqn.params.get("length", 1) for path, n in part.items()})
        else:
            total[_module_path(scope)] += _own_flops(eqn)
    return total


def _inside(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for sub in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(sub, ClosedJaxpr):
                yield sub.jaxpr
            elif isinstance(sub, Jaxpr):
                yield sub


def _own_flops(eqn: JaxprEqn) -> int:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out.size * math.prod(eqn.invars[0].aval.shape[k] for k in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = eqn.invars[1].aval, eqn.params["dimension_numbers"]
        return 2 * out.size * kernel.size // kernel.shape[numbers.rhs_spec[0]]
    if name in MOVES or not jnp.issubdtype(out.dtype, jnp.floating):
        return 0
    return eqn.invars[0].aval.size if name.startswith("reduce_") else out.size


def _module_path(scope: str) -> str:
    """`transpose(jvp(Amt))/finder/Dense_0` is `finder/Dense_0`: what stands behind the root module's name.

    A rematerialised part has that name twice, once where it is called and once where it was traced.
    """
    names = [name for name in TRANSFORM.sub("", scope).split("/") if name not in ("", "rematted_computation")]
    last_root = max((k for k, name in enumerate(names) if name == names[0]), default=0)
    return "/".join(names[last_root + 1 :])


def _needed(jaxpr: Jaxpr) -> Jaxpr:
    """Without what no output depends on, as XLA leaves it out: a custom backward pass makes every gradient."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def _activations(jaxpr: Jaxpr, gradient: list[Var], inputs: list[Var]) -> Counter[str]:
    backward, forward, kept = set(gradient), set(inputs), set()
    origin, scopes = {}, {}
    for eqn in jaxpr.eqns:
        reads = [x for x in eqn.invars if not isinstance(x, Literal)]
        if not backward.isdisjoint(reads):
            backward.update(eqn.outvars)
            kept.update(origin.get(x, x) for x in reads if x in forward)
        elif not forward.isdisjoint(reads):
            forward.update(eqn.outvars)
            if eqn.primitive.name in VIEWS:
                origin[eqn.outvars[0]] = origin.get(reads[0], reads[0])
            else:
                scopes |= dict.fromkeys(eqn.outvars, _module_path(str(eqn.source_info.name_stack)))
    total = Counter()
    for x in kept & scopes.keys():
        total[scopes[x]] += x.aval.size * x.aval.dtype.itemsize
    return total
