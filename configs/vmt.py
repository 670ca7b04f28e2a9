"""VMT, the original model, from scratch: `reduced` (the default) and `full`.

Reduced: 1024 wide, 8 layers, 32 heads, MLP 4096; contacts 512 wide, 6 layers. Full: 2048 wide, 12 layers, MLP 8192;
contacts 1024 wide, 8 layers: about 612 M (hand), 610 M (objects) and 108 M (contacts) parameters.
"""

from ml_collections import ConfigDict

from configs import base


def reduced(config: ConfigDict) -> None:
    config.family = "vmt"


def full(config: ConfigDict) -> None:
    config.family = "vmt"
    config.vmt.hand.update(hidden_dim=2048, depth=12, mlp_dim=8192)
    config.vmt.contact.update(hidden_dim=1024, depth=8, mlp_dim=4096)


VARIANTS = {"reduced": reduced, "full": full}


def get_config(variant: str = "reduced") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
