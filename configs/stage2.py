"""Stage 2, temporal fusion and actions, by behaviour cloning of retargeted demonstrations.

    python launch.py --config=configs/stage2.py --mode=train --workdir=runs/stage2 --config.data.root=DATA \\
        --config.train.start_from=runs/stage1b

Fusion, actions and control learn; perception is frozen. Variants: `clone` (the default); `demo`, of the demo's sizes,
which starts from the embedded weights unless told otherwise; `tiny`, for tests.
"""

from ml_collections import ConfigDict

from configs import base, demo


def clone(config: ConfigDict) -> None:
    config.train.update(stage="2", component="policy", epochs=15.0, learning_rate=5e-5)
    config.train.update(batch_size=32, accumulation=2, schedule="restarts", restart_epochs=10.0)
    config.train.blocks.dtype = "bfloat16"
    _common(config)


def small(config: ConfigDict) -> None:
    demo.demo(config)
    config.train.update(stage="2", component="policy", steps=1_500, learning_rate=1e-3, batch_size=8, warmup_steps=100)
    config.train.update(eval_every=250, checkpoint_every=250)
    config.train.blocks.dropout = 0.1
    _common(config)


def tiny(config: ConfigDict) -> None:
    demo.tiny(config)
    config.train.update(stage="2", component="policy", batch_size=8, replays=1, window=2)
    config.teacher.num_workers = 1
    _common(config)


def _common(config: ConfigDict) -> None:
    config.train.best_metric = "val_tips_mm"


VARIANTS = {"clone": clone, "demo": small, "tiny": tiny}


def get_config(variant: str = "clone") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
