"""Sections of the complete configuration (`configs/base.py`): how training goes, and what rollouts teach in stage 3."""

from ml_collections import FieldReference


def train() -> dict:
    return {
        "stage": "1b",  # 1a one component, 1b all of perception, 2 and 3 as in configs/stage2.py and stage3.py
        "steps": 100_000,  # updates
        "epochs": 0.0,  # of the training set; where it is not 0 it counts instead of steps
        # Samples that pass through the network at once, over all devices; auto: the largest whose step fits
        # memory_share of what a device has free, found by compiling
        "batch_size": FieldReference(64, field_type=object),
        "memory_share": 0.9,  # of free memory, for batch_size=auto; the rest is for evaluation and fragments
        "accumulation": 1,  # so many batches make an update
        "learning_rate": 5e-4,  # peak
        "learning_rate_floor": 1e-6,  # which the cosine ends at
        "rates": {  # times the learning rate, by group of parameters (amt/training/optimizer.py); 0 freezes one
            "backbone": 0.01,  # DINOv2's
            "encoder": 0.5,
            "decoder": 1.0,
            "finder": 1.0,
            "policy": 1.0,  # temporal fusion and actions
        },
        "schedule": "cosine",  # cosine: one over the whole run; restarts: again and again, each twice as long
        "restart_steps": 0,  # updates of the first cycle
        "restart_epochs": 0.0,  # where it is not 0 it counts instead of restart_steps
        "warmup_steps": 1_000,  # updates
        "weight_decay": 0.01,
        "clip_norm": 1.0,  # of the global gradient
        "max_skipped": 10,  # updates in a row whose loss or gradient is not finite and that are left out; then it stops
        "ema_decay": 0.999,
        "blocks": {  # of transformer blocks, not DINOv2's
            "dropout": 0.1,
            "dtype": "float32",  # of their products; bfloat16, or float8 on NVIDIA GPUs that have it
            "remat": 0.0,  # share that the backward pass computes again instead of keeping it
        },
        "loss_schedules": True,  # weights of diversity, refined joints and physics change by epoch (amt/losses)
        "sigma_reparam": True,  # attention and MLP weights as gain / sigma(W) W; files hold plain weights
        "log_every": 50,  # steps
        "eval_every": 2_000,  # steps
        "checkpoint_every": 2_000,  # steps
        "keep_checkpoints": 2,  # the newest ones; beside them the best stays
        "window": 32,  # stages 2 and 3: frames of a video that are learned from at once
        "variants": 4,  # stage 2: so often each video is also learned as if hand and object had been seen elsewhere,
        "depth_error": 0.04,  # nearer or farther by this share of the distance (deviation), and
        "angle_error": 0.01,  # radians (deviation) aside
        "turn": 0.4,  # stage 2: radians, either way, that a window is turned about the robot's first axis
        "replays": 32,  # stages 2 and 3: held-out videos whose commands are played in MuJoCo C at every evaluation
        "best_metric": "val_mpjpe_mm",  # of validation; the lowest is best, of checkpoints at a step that is evaluated
        "component": "all",  # what learns: all, finder, perception, or a part of it as perception/object_decoder
        "start_from": "",  # weights to start from: a folder of --mode=train or a file; empty: fresh ones
        "wandb_project": "",  # of Weights & Biases, kept on the disk unless $WANDB_MODE=online; empty: none
        "resume": True,  # from the newest checkpoint in the work directory; False: there must be none
        "loss": {  # weights of the terms, in the units of amt/losses; 0 leaves one out. Heatmaps lead: they teach the
            # image encoder fastest. Objects and contacts weigh little: Adam scales their own layers up, the encoder
            # stays the hand's.
            "keypoint_place": 1.0,
            "keypoint_depth": 1.0,
            "keypoint_scale": 0.3,
            "keypoint_heatmap": 0.3,
            "hand_keypoints": 0.2,
            "hand_absolute": 0.0,  # joints from the camera: the original's only term, for experiments/mode_collapse
            "hand_coarse": 0.4,
            "hand_corrected": 0.1,
            "hand_refined": 0.4,
            "hand_rotation": 0.15,
            "hand_vertices": 0.15,
            "hand_shape": 0.03,
            "hand_confidence": 0.05,
            "hand_side": 0.5,
            "reprojection": 0.2,
            "object_position": 0.2,
            "object_place": 0.2,
            "object_heatmap": 0.05,
            "object_rotation": 0.1,
            "object_class": 0.02,
            "object_confidence": 0.05,
            "contact_point": 0.05,
            "contact_confidence": 0.02,
            "contact_kind": 0.02,  # of simulated contacts, as the force; both 0: predictions do not say them
            "contact_force": 0.02,
            "contact_placement": 0.02,
            "hand_joint_weights": 1.1,  # keeps the learned weights of the joints together; 0: they are fixed. About the
            # sum of the four terms that they weigh: with far less the wrist, which is never wrong, gets all of it
            "physics_joint_limits": 0.1,
            "physics_penetration": 0.1,
            "physics_force": 0.1,
            "diversity": 0.02,
            "kl": 0.001,
            "attention_entropy": 0.001,
            "finder_heatmap": 0.3,
            "finder_place": 0.3,
            "finder_side": 0.2,
            "finder_presence": 0.2,
        },
        "action_loss": {  # of the policy, stages 2 and 3 (amt/losses/actions.py)
            "action_arm": 1.0,
            "action_fingers": 1.0,
            "action_wrist": 1.0,
            "action_tips": 1.0,
            "action_position": 0.1,
            "action_rotation": 0.1,
            "action_grasp": 0.05,
            "action_aperture": 0.1,
            "action_approach": 0.05,
            "action_force": 0.05,
            "action_confidence": 0.05,
            "action_velocity": 0.05,
        },
    }


def rollout() -> dict:
    """Of stage 3: commands of a window are played in the differentiable simulation."""
    return {
        "weight": 1.0,  # of the rollouts' objective beside the terms of train.loss and train.action_loss
        "weights": {  # of its terms (amt/physics/objective.py)
            "object_position": 10.0,
            "object_rotation": 0.5,
            "fingertips": 2.0,
            "wrist_position": 2.0,
            "wrist_rotation": 0.2,
            "slip": 0.2,
            "effort": 0.01,
            "limits": 1.0,
            "penetration": 20.0,
            "force": 0.01,
        },
        "perception_batch_size": 32,  # samples for the terms of perception, which stay on
        "clip_norm": 1.0,  # of the derivative of one rollout with respect to its commands, 1/radian
        "memory": 0.9,  # share of a derivative that is passed from one command to the one before
        "displaced": 0.01,  # metres (deviation) that an object stands elsewhere than the lesson's: contacts are stiff,
        # a derivative at one place says little of the places about it, and so they are averaged over updates
        "curriculum_steps": 500,  # updates until all of a window counts, contact is near and nothing is led
        "first_horizon": 0.5,  # share of a window that counts at first
        "reach_width": 0.04,  # metres, of contact from a distance at first; 0: none
        "last_reach_width": 0.01,  # metres, after the curriculum
        "reach_stiffness": 100.0,  # newtons per metre
        "unrolled": False,  # derivatives through one step of the contact solver, as of stock MJX: a comparison
        "guide": 0.5,  # of what leads the object along its goal at first; 1: all of it, 0: nothing
    }
