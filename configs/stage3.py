"""Stage 3, everything through the differentiable simulator.

    python launch.py --config=configs/stage3.py --mode=train --workdir=runs/stage3 --config.data.root=DATA \\
        --config.train.start_from=runs/stage2

All parts learn, DINOv2's first 12 blocks stay frozen; the terms of perception stay on, diversity weighs less. Variants:
`physics` (the default); `demo`, of the demo's sizes; `tiny`, for tests.
"""

from ml_collections import ConfigDict

from configs import base, demo


def physics(config: ConfigDict) -> None:
    config.train.update(epochs=30.0, learning_rate=1e-4)
    config.train.update(batch_size=32, accumulation=2, schedule="restarts", restart_epochs=10.0)
    config.train.loss.diversity = 0.005
    config.train.blocks.dtype = "bfloat16"
    _common(config)


def small(config: ConfigDict) -> None:
    demo.demo(config)
    config.train.update(steps=80, learning_rate=1e-4, batch_size=4, warmup_steps=10, window=36, ema_decay=0.95)
    config.train.update(eval_every=80, checkpoint_every=80, log_every=10)
    config.train.rates.update(encoder=0.5, decoder=0.5, finder=0.5)  # four windows are few to see by
    config.rollout.update(curriculum_steps=40)
    config.rollout.weights.update(force=0.001, penetration=5.0)  # a hand that never grips is at rest with more of them
    _common(config)


def tiny(config: ConfigDict) -> None:
    demo.tiny(config)
    config.train.update(batch_size=8, replays=1, window=2)
    config.rollout.update(perception_batch_size=8, curriculum_steps=2)
    config.teacher.num_workers = 0
    _common(config)


def _common(config: ConfigDict) -> None:
    config.train.update(stage="3", component="all", best_metric="val_tips_mm")


VARIANTS = {"physics": physics, "demo": small, "tiny": tiny}


def get_config(variant: str = "physics") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
