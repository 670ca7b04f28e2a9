"""Stage 3, everything through the differentiable simulator: not built yet.

    python launch.py --config=configs/stage3.py --mode=train --workdir=runs/stage3 \\
        --config.train.start_from=runs/stage2

All parts learn, DINOv2's first 12 blocks stay frozen; the terms of perception stay on, diversity weighs less.
"""

from ml_collections import ConfigDict

from configs import base


def physics(config: ConfigDict) -> None:
    config.train.update(stage="3", component="all", epochs=30.0, learning_rate=1e-4)
    config.train.update(batch_size=32, accumulation=2, schedule="restarts", restart_epochs=10.0)
    config.train.loss.diversity = 0.005
    config.train.blocks.dtype = "bfloat16"


VARIANTS = {"physics": physics}


def get_config(variant: str = "physics") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
