"""Stage 2, temporal fusion and actions, by behaviour cloning of retargeted demonstrations: not built yet.

    python launch.py --config=configs/stage2.py --mode=train --workdir=runs/stage2 \\
        --config.train.start_from=runs/stage1b

Fusion, actions and control learn; perception is frozen.
"""

from ml_collections import ConfigDict

from configs import base


def clone(config: ConfigDict) -> None:
    config.train.update(stage="2", component="policy", epochs=15.0, learning_rate=5e-5)
    config.train.update(batch_size=32, accumulation=2, schedule="restarts", restart_epochs=10.0)
    config.train.blocks.dtype = "bfloat16"


VARIANTS = {"clone": clone}


def get_config(variant: str = "clone") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
