"""From plain settings to modules: the one place where a configuration becomes a model."""

from collections.abc import Mapping
from typing import Any

from amt.errors import UserError
from amt.models.contacts import ContactDecoder
from amt.models.encoder import STRIDE, PatchEncoder
from amt.models.finder import HandFinder
from amt.models.hand import MultiCoordinateEncoder
from amt.models.objects import ObjectDecoder
from amt.models.perception import Amt, Perception


def build(model: Mapping[str, Any], finder: Mapping[str, Any], image_size: int) -> Amt:
    """The whole model from the `model` and `finder` sections of a configuration and `data.image_size`.

    Raises `UserError` for sizes that are not whole tokens.
    """
    for name, size in (("data.image_size", image_size), ("finder.frame_size", finder["frame_size"])):
        if size % STRIDE or size <= 0:
            raise UserError(f"config.{name}={size}: expected a multiple of {STRIDE} pixels, the stride of a token")
    width, heads, mlp_dim = model["hidden_dim"], model["num_heads"], model["mlp_dim"]
    encoder = PatchEncoder(width, model["depth"], heads, mlp_dim, tuple(model["stem"]), model["fine_dim"])
    hand_encoder = MultiCoordinateEncoder(
        width,
        model["hand_depth"],
        heads,
        mlp_dim,
        tuple(model["point_widths"]),
        model["vertex_stride"],
    )
    object_decoder = ObjectDecoder(
        width,
        model["object_depth"],
        heads,
        mlp_dim,
        model["num_object_queries"],
        model["num_classes"],
        model["refiner_dim"],
        model["refiner_steps"],
    )
    contact_decoder = ContactDecoder(
        model["contact_hidden_dim"],
        model["contact_depth"],
        heads,
        2 * model["contact_hidden_dim"],
        model["num_contact_queries"],
    )
    perception = Perception(
        image_size,
        encoder,
        model["coarse_dim"],
        hand_encoder,
        model["refiner_dim"],
        model["refiner_steps"],
        object_decoder,
        contact_decoder,
    )
    finder_module = HandFinder(
        finder["hidden_dim"], finder["depth"], finder["num_heads"], finder["mlp_dim"], tuple(finder["stem"])
    )
    return Amt(finder_module, perception)
