"""Where arrays live on the mesh ('data', 'fsdp', 'tensor'): one table for all of the train state."""

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from amt.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# First match wins, for parameters, their average, the optimizer's moments and sigma-reparam's state alike. Blocks hold
# nearly all numbers; what is named below them is copied to every device.
RULES = (
    (r"(self|cross)_attention/out/kernel$", P("tensor", "fsdp")),
    (r"(self|cross)_attention/\w+/kernel$", P("fsdp", "tensor")),
    (r"Block_\d+/Dense_0/kernel$", P("fsdp", "tensor")),
    (r"Block_\d+/Dense_1/kernel$", P("tensor", "fsdp")),
    (r"block\d+/(fc1|weights_in)/kernel$", P("fsdp", "tensor")),  # DINOv2's
    (r"block\d+/(fc2|weights_out)/kernel$", P("tensor", "fsdp")),
    (r"(^|/)(kernel|bias|scale\d?|gain)$", P()),
    (r"(^|/)(queries|anchors|joint_embedding|joint_logits|rows|columns|modalities)$", P()),
    (r"backbone/(cls_token|mask_token|register_tokens|positions)$", P()),
)


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices`, or all there are; one of the sizes may be -1 and takes what is left.

    Raises `UserError` if the sizes do not multiply to the number of devices.
    """
    sizes = [data, fsdp, tensor]
    count = jax.device_count() if devices is None else len(devices)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = count // max(1, -int(np.prod(sizes)))
    if min(sizes) < 1 or int(np.prod(sizes)) != count:
        found = f"data={data}, fsdp={fsdp}, tensor={tensor}"
        raise UserError(f"config.mesh: {found} does not cover {count} devices; their product must be {count}")
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def one_device_mesh() -> Mesh:
    """The first device alone."""
    return jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])


def path_name(path) -> str:
    """A pytree path as names joined by slashes."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def tree_shardings(tree, mesh: Mesh):
    """A sharding for every leaf by `RULES`; numbers are copied, and what has fewer axes than its rule.

    Raises `UserError` where there is no rule and where an axis does not divide, naming the parameter.
    """

    def place(path, leaf):
        name = path_name(path)
        spec = next((s for pattern, s in RULES if re.search(pattern, name)), None) if np.ndim(leaf) else P()
        if spec is None:
            raise UserError(f"{name} of shape {np.shape(leaf)}: no rule says where it lives; add one to sharding.RULES")
        spec = spec if np.ndim(leaf) >= len(spec) else P()
        for size, axis in zip(np.shape(leaf), spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise UserError(
                    f"config.mesh.{axis}={mesh.shape[axis]}: does not divide {name} of shape "
                    f"{np.shape(leaf)}; choose a mesh or a width that does"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over data x fsdp."""
    return NamedSharding(mesh, BATCH)


def num_batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, mesh: Mesh, name: str) -> None:
    """Raises `UserError` if a batch is not a number of samples, or does not divide over the mesh."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"{name}={batch_size}: expected a number of samples above 0; --mode=train also takes auto")
    if batch_size % num_batch_parts(mesh):
        raise UserError(f"{name}={batch_size}: must be a multiple of {num_batch_parts(mesh)}, the mesh's data x fsdp")
