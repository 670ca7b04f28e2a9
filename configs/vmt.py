"""VMT, the original model, from scratch: `reduced` (the default), `full`, `demo` and `tiny`.

    python launch.py --config=configs/vmt.py:demo --mode=train --workdir=runs/vmt --config.data.root=DATA

Reduced: 1024 wide, 8 layers, 32 heads, MLP 4096; contacts 512 wide, 6 layers. Full: 2048 wide, 12 layers, MLP 8192;
contacts 1024 wide, 8 layers: about 612 M (hand), 610 M (objects) and 108 M (contacts) parameters. `demo` is what a
laptop trains, on the data of configs/demo.py; `tiny` is for tests, of no use otherwise.
"""

from ml_collections import ConfigDict

from configs import base

# Terms of what it does not predict: heatmaps, stages of the hand, its angles and vertices, the side, a finder.
NOT_ITS = (
    *("keypoint_depth", "keypoint_heatmap", "hand_keypoints", "hand_corrected", "hand_refined", "hand_rotation"),
    *("hand_vertices", "hand_side", "object_heatmap", "physics_joint_limits", "physics_penetration"),
    *("finder_heatmap", "finder_place", "finder_side", "finder_presence"),
)


def reduced(config: ConfigDict) -> None:
    config.family = "vmt"
    config.data.wrong_side_share = 0.0  # such crops teach the side alone
    config.train.component = "perception"  # there is no finder
    config.train.loss.update({name: 0.0 for name in NOT_ITS})
    config.train.loss.update(hand_coarse=1.0, reprojection=0.5)
    # Objects have an encoder of their own, which takes nothing from the hand's.
    config.train.loss.update(object_position=1.0, object_rotation=0.5, object_class=0.1, object_confidence=0.5)


def full(config: ConfigDict) -> None:
    reduced(config)
    config.vmt.hand.update(hidden_dim=2048, depth=12, mlp_dim=8192)
    config.vmt.contact.update(hidden_dim=1024, depth=8, mlp_dim=4096)


def demo(config: ConfigDict) -> None:
    reduced(config)
    config.data.update(image_size=96, rough_share=0.3)
    config.generate.update(grasps="kinematic", num_sequences=2400, num_frames=4, num_cameras=4, seed=1)
    config.generate.gesture_share = 0.4
    config.vmt.hand.update(hidden_dim=160, depth=4, num_heads=5, mlp_dim=640)
    config.vmt.contact.update(hidden_dim=80, depth=2, num_heads=5, mlp_dim=320)
    config.model.object_head_dim = 160
    config.fusion.update(hidden_dim=128, depth=4, num_heads=4, mlp_dim=256)
    config.actions.update(hidden_dim=96, depth=2, num_heads=4, mlp_dim=192)
    config.benchmark.step_batch_size = 32
    config.train.update(steps=14_000, batch_size=32, learning_rate=8e-4, warmup_steps=300, weight_decay=0.02)
    config.train.rates.encoder = 1.0


def tiny(config: ConfigDict) -> None:
    demo(config)
    config.data.update(image_size=32, num_workers=0)
    config.generate.update(num_sequences=5, num_subjects=1, num_frames=2, num_cameras=2)
    config.generate.update(width=160, height=120, num_workers=0)
    config.vmt.hand.update(hidden_dim=32, depth=1, num_heads=2, mlp_dim=32)
    config.vmt.contact.update(hidden_dim=16, depth=1, num_heads=2, mlp_dim=32)
    config.model.object_head_dim = 32
    config.train.update(steps=4, batch_size=8, warmup_steps=1, log_every=1, eval_every=4, checkpoint_every=2)
    config.eval.update(batch_size=8, max_samples=8)


VARIANTS = {"reduced": reduced, "full": full, "demo": demo, "tiny": tiny}


def get_config(variant: str = "reduced") -> ConfigDict:
    return base.get_variant(variant, VARIANTS)
