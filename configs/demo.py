"""What a laptop trains in an hour or two on generated data; the embedded weights are of this architecture and data.

    python launch.py --config=configs/demo.py --mode=train --workdir=runs/train --config.data.root=DATA

Variants: `demo` (the default); `tiny`, for tests: every size as small as it goes, of no use otherwise.
"""

from ml_collections import ConfigDict

from configs import base


def demo(config: ConfigDict) -> None:
    config.data.update(image_size=96, rough_share=0.35, wrong_side_share=0.25, no_hand_share=0.1)
    config.generate.update(grasps="crops", num_sequences=360, num_frames=64, width=320, height=240, seed=1)
    config.generate.gesture_share = 0.4
    config.model.update(encoder="conv", hidden_dim=160, stem=(32, 80), depth=4, num_heads=5, mlp_dim=640, fine_dim=32)
    config.model.update(coarse_dim=256, point_widths=(32, 64, 128), vertex_stride=4, hand_depth=1)
    config.model.update(hand_head_dims=((), (), ()), refiner_dim=96, refiner_point_dims=())
    config.model.update(object_depth=2, object_head_dim=160)
    config.model.update(contact_hidden_dim=80, contact_mlp_dim=160, contact_depth=1)
    config.finder.update(hidden_dim=96, stem=(24, 48), depth=2, mlp_dim=192)
    config.fusion.update(hidden_dim=128, depth=4, num_heads=4, mlp_dim=256)
    config.actions.update(hidden_dim=96, depth=2, num_heads=4, mlp_dim=192)
    config.benchmark.step_batch_size = 32
    config.train.loss.hand_confidence = 0.4  # choosing among guesses of the finder hangs on it
    config.train.update(steps=14_000, batch_size=32, learning_rate=8e-4, warmup_steps=300, weight_decay=0.02)
    # A small model learns objects late, and which queries are contacts later still.
    config.train.loss.update(object_position=0.4, object_place=0.6, object_heatmap=0.3, object_class=0.2)
    config.train.loss.update(contact_point=0.1, contact_confidence=0.2, contact_kind=0.05)
    # A few epochs are too few for dropout, and for schedules that take 50.
    config.train.blocks.dropout = 0.0
    config.train.loss_schedules = False
    config.train.rates.encoder = 1.0  # nothing of it was trained before


def tiny(config: ConfigDict) -> None:
    demo(config)
    config.data.update(image_size=32, num_workers=0)
    config.generate.update(grasps="kinematic", num_sequences=5, num_subjects=1, num_frames=2, num_cameras=2)
    config.generate.update(width=160, height=120, num_workers=0)
    config.model.update(hidden_dim=32, stem=(8, 16), depth=1, num_heads=2, mlp_dim=32, fine_dim=8)
    config.model.update(coarse_dim=32, point_widths=(8, 16), vertex_stride=64, refiner_dim=16)
    config.model.update(object_depth=1, object_head_dim=32, contact_hidden_dim=16, contact_mlp_dim=32)
    config.finder.update(frame_size=32, hidden_dim=16, stem=(8, 8), depth=1, num_heads=2, mlp_dim=16)
    config.fusion.update(hidden_dim=16, depth=2, num_heads=2, mlp_dim=32, short_window=2, window=4)
    config.actions.update(hidden_dim=16, depth=1, num_heads=2, mlp_dim=32, arm_dims=(8, 8), hand_dims=(8, 8))
    config.train.update(steps=4, batch_size=8, warmup_steps=1, log_every=1, eval_every=4, checkpoint_every=2)
    config.eval.update(batch_size=8, max_samples=8)
    config.retarget.iterations = 5
    config.replay.update(width=160, height=120)


VARIANTS = {"demo": demo, "tiny": tiny}


def get_config(variant: str = "demo") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
