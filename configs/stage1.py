"""Stage 1, perception: `joint` (1b, the default) and, if you like before it, `component` (1a).

    python launch.py --config=configs/stage1.py --mode=train --workdir=runs/stage1b --config.data.root=DATA \\
        --config.backbone.weights=BACKBONE

1a: one component learns, the rest is frozen; name it by `--config.train.component`. 1b: all of perception and the
finder, but DINOv2's first 12 blocks. It starts from 1a by `--config.train.start_from=runs/stage1a`.
"""

from ml_collections import ConfigDict

from configs import base


def component(config: ConfigDict) -> None:
    config.train.update(stage="1a", component="perception/object_decoder", epochs=20.0, learning_rate=1e-3)
    _common(config)


def joint(config: ConfigDict) -> None:
    config.train.update(stage="1b", component="all", epochs=50.0, learning_rate=5e-4)
    config.train.loss.diversity = 0.02
    _common(config)


def _common(config: ConfigDict) -> None:
    config.train.update(batch_size=32, accumulation=2, schedule="restarts", restart_epochs=10.0)
    config.train.blocks.dtype = "bfloat16"


VARIANTS = {"joint": joint, "component": component}


def get_config(variant: str = "joint") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
