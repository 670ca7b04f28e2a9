"""From plain settings to modules: the one place where a configuration becomes a model."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from amt.errors import UserError
from amt.models import dinov2
from amt.models.actions import ActionDecoder
from amt.models.contacts import ContactDecoder
from amt.models.encoder import GRID_SIZE, STRIDE, Dinov2Encoder, PatchEncoder
from amt.models.finder import HandFinder
from amt.models.hand import MultiCoordinateEncoder
from amt.models.layers import BLOCK_DTYPES, BlockConfig
from amt.models.objects import ObjectDecoder
from amt.models.perception import Amt, Perception
from amt.models.policy import Policy
from amt.models.refiner import RefinerConfig
from amt.models.temporal import TemporalFusion
from amt.models.vmt import PATCH, PatchTransformer, Vmt, VmtContactEncoder, VmtHandEncoder
from amt.robot.model import load_robot

FAMILIES = ("amt", "vmt")
ENCODERS = ("conv", *(f"dinov2_{size}{kind}" for size in dinov2.SIZES for kind in ("", "_registers")))
DTYPES = ("float32", "bfloat16")
BACKBONE = "perception/encoder/backbone/"  # where a backbone's parameters are in the whole model's


def from_settings(
    settings: Mapping[str, Any],
    backbone: Mapping[str, Any] | None = None,
    blocks: Mapping[str, Any] = types.MappingProxyType({}),
) -> Amt:
    """The model of either family that `weights.architecture` describes; the rest as in `build` and `build_vmt`."""
    if settings.get("family") == "vmt":
        return Amt(None, build_vmt(settings["vmt"], settings["model"], settings["image_size"], blocks))
    return build(settings["model"], settings["finder"], settings["image_size"], backbone, blocks)


def build(
    model: Mapping[str, Any],
    finder: Mapping[str, Any],
    image_size: int,
    backbone: Mapping[str, Any] | None = None,
    blocks: Mapping[str, Any] = types.MappingProxyType({}),
) -> Amt:
    """The whole model from the `model` and `finder` sections of a configuration and `data.image_size`.

    `backbone` is the section of that name, which says how a DINOv2 is trained; without it all is float32. `blocks` says
    it of the blocks of all other parts: dropout, dtype and remat of `BlockConfig`.
    Raises `UserError` for sizes that are not whole tokens, widths that are not whole attention heads, and for fields of
    the encoder and of the blocks that are not possible.
    """
    _check_blocks(blocks)
    _check_tokens("finder.frame_size", finder["frame_size"], STRIDE)
    _check_heads("finder", finder)
    _check_heads("model", model)
    _check_heads("model", model, "contact_hidden_dim")
    encoder = build_encoder(model, image_size, backbone or {}, blocks)
    width = model["hidden_dim"]
    block = BlockConfig(model["num_heads"], model["mlp_dim"], **blocks)
    refiner = RefinerConfig(model["refiner_dim"], model["refiner_steps"], tuple(model["refiner_point_dims"]))
    hand_encoder = MultiCoordinateEncoder(
        width,
        model["hand_depth"],
        block,
        tuple(model["point_widths"]),
        model["vertex_stride"],
        tuple(tuple(dims) for dims in model["hand_head_dims"]),
    )
    object_decoder = ObjectDecoder(
        width,
        model["object_depth"],
        block,
        model["num_object_queries"],
        model["num_classes"],
        model["object_head_dim"],
        refiner,
    )
    contact_decoder = ContactDecoder(
        model["contact_hidden_dim"],
        model["contact_depth"],
        BlockConfig(model["num_heads"], model["contact_mlp_dim"], **blocks),
        model["num_contact_queries"],
    )
    perception = Perception(
        image_size, encoder, model["coarse_dim"], hand_encoder, refiner, object_decoder, contact_decoder
    )
    finder_block = BlockConfig(finder["num_heads"], finder["mlp_dim"], **blocks)
    finder_module = HandFinder(finder["hidden_dim"], finder["depth"], finder_block, tuple(finder["stem"]))
    return Amt(finder_module, perception)


def build_vmt(
    vmt: Mapping[str, Any],
    model: Mapping[str, Any],
    image_size: int,
    blocks: Mapping[str, Any] = types.MappingProxyType({}),
) -> Vmt:
    """The original model from the `vmt` section, and the numbers of queries and classes from `model`.

    `blocks` and the errors are those of `build`.
    """
    _check_blocks(blocks)
    _check_tokens("data.image_size", image_size, PATCH)
    _check_heads("vmt.hand", vmt["hand"])
    _check_heads("vmt.contact", vmt["contact"])

    def sizes(part):
        return part["hidden_dim"], part["depth"], BlockConfig(part["num_heads"], part["mlp_dim"], **blocks)

    hand, positions = sizes(vmt["hand"]), vmt["positions"]
    return Vmt(
        image_size,
        VmtHandEncoder(PatchTransformer(*hand, positions=positions), image_size),
        PatchTransformer(*hand, num_queries=model["num_object_queries"], positions=positions),
        VmtContactEncoder(*sizes(vmt["contact"]), num_queries=model["num_contact_queries"]),
        model["num_classes"],
        model["object_head_dim"],
    )


def build_policy(
    fusion: Mapping[str, Any], actions: Mapping[str, Any], blocks: Mapping[str, Any] = types.MappingProxyType({})
) -> Policy:
    """Temporal fusion and action decoder from the sections of these names, for tokens of either family.

    `blocks` is that of `build`. Raises `UserError` for widths that are not whole attention heads, of fusion and actions
    of an even number of features, and for windows, numbers of layers and of steps that are not possible.
    """
    _check_blocks(blocks)
    _check_heads("fusion", fusion)
    _check_heads("actions", actions)
    for section, fields in (("fusion", fusion), ("actions", actions)):
        size, heads = fields["hidden_dim"], fields["num_heads"]
        if size // heads % 2:
            raise UserError(
                f"config.{section}.hidden_dim={size}: expected an even number of features for each of {heads} heads"
            )
    count = ("1 or more", lambda x: x >= 1)
    window = fusion["window"]
    short = (f"1 to {window}, fusion.window", lambda x: 1 <= x <= window)
    _check("fusion", fusion, {"depth": count, "window": count, "short_window": short})
    _check("actions", actions, {"depth": count, "num_steps": count})

    def sizes(part):
        return part["hidden_dim"], part["depth"], BlockConfig(part["num_heads"], part["mlp_dim"], **blocks)

    decoder = ActionDecoder(
        *sizes(actions),
        window,
        actions["num_steps"],
        tuple(actions["arm_dims"]),
        tuple(actions["hand_dims"]),
        load_robot(),
    )
    return Policy(TemporalFusion(*sizes(fusion), fusion["short_window"], window), decoder)


def build_encoder(
    model: Mapping[str, Any],
    image_size: int,
    backbone: Mapping[str, Any],
    blocks: Mapping[str, Any] = types.MappingProxyType({}),
) -> nn.Module:
    """The image encoder that `model.encoder` names; `conv` where there is none."""
    name = model.get("encoder", "conv")
    if name not in ENCODERS:
        raise UserError(f"config.model.encoder={name}: expected one of {', '.join(ENCODERS)}")
    if name == "conv":
        _check_tokens("data.image_size", image_size, STRIDE)
        block = BlockConfig(model["num_heads"], model["mlp_dim"], **blocks)
        return PatchEncoder(model["hidden_dim"], model["depth"], block, tuple(model["stem"]), model["fine_dim"])
    if model["grid"] not in (14, 16):
        raise UserError(f"config.model.grid={model['grid']}: expected 14 or 16 tokens along {GRID_SIZE} pixels")
    _check_tokens("data.image_size", image_size, GRID_SIZE // model["grid"])
    _, size, *registers = name.split("_")
    settings = {k: v for k, v in backbone.items() if k != "weights"}
    _check_backbone(settings, dinov2.SIZES[size][1])
    return Dinov2Encoder(dinov2.published(size, bool(registers), **settings), model["grid"], model["fine_dim"])


def frozen_parameters(model: Amt) -> Callable[[str], bool] | None:
    """Which parameters, by their path (names joined by slashes), get no gradient; None where there are none."""
    encoder = getattr(model.perception, "encoder", None)
    if not isinstance(encoder, Dinov2Encoder) or not encoder.backbone.num_frozen_blocks:
        return None
    count = encoder.backbone.num_frozen_blocks
    return lambda path: path.startswith(BACKBONE) and dinov2.is_frozen(path.removeprefix(BACKBONE), count)


def _check_tokens(name: str, size: int, stride: int) -> None:
    if size % stride or size <= 0:
        raise UserError(f"config.{name}={size}: expected a multiple of {stride} pixels, the stride of a token")


def _check_heads(section: str, fields: Mapping[str, Any], width: str = "hidden_dim") -> None:
    heads = fields["num_heads"]
    if heads <= 0 or fields[width] % heads:
        raise UserError(f"config.{section}.num_heads={heads}: expected a divisor of {section}.{width}={fields[width]}")


def _check_backbone(settings: Mapping[str, Any], depth: int) -> None:
    _check(
        "backbone",
        settings,
        {
            "dtype": ("float32 or bfloat16", lambda x: x in DTYPES),
            "num_frozen_blocks": (f"0 to {depth}, the blocks that there are", lambda x: 0 <= x <= depth),
            "remat": ("a share of 0 to 1", lambda x: 0 <= x <= 1),
        },
    )


def _check_blocks(settings: Mapping[str, Any]) -> None:
    _check(
        "train.blocks",
        settings,
        {
            "dropout": ("a probability below 1", lambda x: 0 <= x < 1),
            "dtype": (" or ".join(BLOCK_DTYPES), lambda x: x in BLOCK_DTYPES),
            "remat": ("a share of 0 to 1", lambda x: 0 <= x <= 1),
        },
    )


def _check(section: str, settings: Mapping[str, Any], possible: Mapping[str, tuple[str, Callable]]) -> None:
    for name, (expected, holds) in possible.items():
        if name in settings and not holds(settings[name]):
            raise UserError(f"config.{section}.{name}={settings[name]}: expected {expected}")
