"""The complete configuration: every field, with its unit or its reason. Other files hold only differences.

The sections train and rollout are written in `_training.py`.

Sizes are those of the full perception model (an accelerator's); `configs/demo.py` is what a laptop trains.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from configs._training import rollout, train


def get_variant(name: str, variants: Mapping[str, Callable[[ConfigDict], None]]) -> ConfigDict:
    """The base with the differences of one variant. Raises: ValueError for one that is not there."""
    if name not in variants:
        raise ValueError(f"no variant {name!r}; expected one of {', '.join(variants)}")
    config = get_config()
    variants[name](config)
    return config


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,  # of parameters, shuffling and augmentation
            "compilation_cache_dir": "~/.cache/amt/jax",  # $JAX_COMPILATION_CACHE_DIR wins
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},  # devices along each axis; -1 takes what is left
            "distributed": {  # training and evaluation by several processes, usually one a host (docs/training.md)
                "enabled": False,
                "coordinator": "",  # HOST:PORT of process 0; empty: found by jax (Slurm, GKE, TPU pods)
                "num_processes": 0,  # 0: found by jax
                "process_id": -1,  # -1: found by jax
            },
            "hand": {  # whose pose and shape parameters are predicted, and read from labels (docs/training.md)
                "model": "",  # MANO_RIGHT.pkl or a .npz; empty: the embedded CC0 hand
                "left_model": "",  # MANO_LEFT.pkl, which DexYCB's left hands need; empty: the one beside model, if any
            },
            "data": data(),
            "validate": {"num_workers": 2},  # processes that read; 0 reads in this one
            "convert": {"shard_samples": 4096},  # samples in one shard, about 400 MB of DexYCB's
            "generate": generate(),
            "family": "amt",  # amt: the sections model, finder and backbone; vmt: the original model, the section vmt
            "model": model(),
            "vmt": vmt(),
            "finder": finder(),
            "backbone": backbone(),
            "fusion": fusion(),
            "actions": actions(),
            "teacher": {  # of stages 2 and 3
                "folder": "",  # where lessons and what was seen are kept; empty: the work directory
                "num_workers": 2,  # processes that make lessons; 0: this one
            },
            "train": train(),
            "rollout": rollout(),
            "plan": plan(),
            "eval": evaluate(),
            "camera": camera(),
            "predict": predict(),
            "retarget": retarget(),
            "replay": replay(),
            "profile": {
                "warmup": 3,  # steps before the trace
                "steps": 5,  # that are traced
                "operations": 15,  # the longest, which are listed
            },
            "benchmark": {
                "repeats": 5,  # timed runs of each link, after one that compiles
                "batches": 4,  # of train.batch_size in a run, where feeding is measured (data.root)
                "step_batch_size": 0,  # samples of the train step that is timed; 0: none is, as this model's step is an
                # accelerator's work
            },
        }
    )


def data() -> dict:
    return {
        "root": "",  # a folder in the DexYCB layout; empty: $DEX_YCB_DIR; for training also several, comma between them
        "split": "s0",  # s0 sequences, s1 subjects, s2 cameras, s3 grasped objects
        "part": "train",  # train, val, test, all
        "crop": "aligned",  # aligned: rolled so that wrist to middle knuckle is up; box: upright; full: whole frame
        "image_size": 224,  # pixels, the crop's side
        "crop_margin": 1.35,  # side of the crop / extent of the joints
        "crop_jitter": 0.06,  # training: standard deviation of box centre and log size, in box sides
        "roll_jitter": 0.25,  # training: standard deviation of the crop's roll, radians
        "rough_share": 0.15,  # training: share of crops as rough as a finder's first guess
        "wrong_side_share": 0.4,  # training: share of crops of a left hand, from which only the side is learned
        "no_hand_share": 0.08,  # training: share of crops and frames without a hand
        "color_jitter": 0.3,  # training: gain, tint, offset, noise
        "min_visible_share": 0.6,  # samples with fewer of their joints inside the image are not learned from
        "num_workers": 1,  # Grain processes that decode; 0 decodes in this process
        "augment": "host",  # host: the jitters above; device: in the train step, without views that look away from the
        # hand (no_hand_share), so that the finder never learns what a frame without one is
        "context": 1.25,  # augment=device: side of the image that is read / side of the crop, room for the turns
        "augmentation": augmentation(),
        "feed": "stream",  # stream: read from disk; cache: decoded once into the devices' memory (augment=device)
        "cache_share": 0.6,  # of a device's free memory that the cache may take; the model needs the rest
    }


def augmentation() -> dict:
    """Of augment=device, beside crop_jitter, roll_jitter, rough_share and wrong_side_share; 0 switches one off."""
    return {
        "rotation": 0.1745,  # radians (10 degrees), either way, about a random axis
        "rotation_share": 0.5,  # of samples
        "translation": 0.02,  # metres either way that the hand moves across the view
        "translation_share": 0.3,
        "scale": 0.1,  # zoom of 1 +- this
        "scale_share": 0.3,
        "window_scale": 0.2,  # random resized crop: side of 1 +- this
        "window_ratio": 0.1,  # and width / height of 1 +- this
        "brightness": 0.3,  # factor of 1 +- this
        "contrast": 0.3,  # factor of 1 +- this
        "saturation": 0.3,  # factor of 1 +- this
        "hue": 0.1,  # turns, either way
        "blur_size": 5,  # pixels, of a Gaussian's window; its deviation is 0.1 to 2 pixels
        "blur_share": 0.2,
        "joint_noise": 0.005,  # metres, deviation; only of the points that the refiner starts from
        "joint_noise_share": 0.5,
        "pixel_noise": 2.0,  # pixels, deviation; of the same points
        "frame_mirror_share": 0.5,  # whole frames for the finder
    }


def generate() -> dict:
    return {
        "grasps": "physical",  # simulated by contact, with depth and forces; kinematic: primitives moved along, faster;
        # crops: single views that have nothing in common, tens a second, from one camera a sequence
        "objects": (),  # YCB ids that are shown; empty: all 20 that DexYCB uses
        "num_sequences": 100,  # the official splits count 100 sequences per subject
        "num_subjects": 10,
        "num_frames": 72,  # per sequence, 30 per second; fewer are spread over the same 2.4 s
        "num_cameras": 8,
        "width": 640,  # pixels
        "height": 480,  # pixels
        "num_workers": 2,  # processes that render
        "seed": 0,  # a new seed is a new data set; held-out figures use another one than training
        "gesture_share": 0.35,  # of sequences: a bare hand that moves, without an object
        "photographs": "",  # a folder of images for textures beside the drawn ones; may be empty
    }


def model() -> dict:
    return {
        "encoder": "dinov2_large",  # dinov2_ small, base, large, giant, each also with _registers; conv: from scratch
        "grid": 14,  # dinov2: tokens along 224 pixels; 14 shrinks the crop to 196 pixels, 16 is DINOv2's own
        "hidden_dim": 1024,  # width of hand and object tokens, and of conv's image tokens
        "stem": (64, 256),  # conv: channels of the convolutional stem at strides 4 and 8; tokens have stride 16
        "depth": 12,  # conv: transformer blocks
        "num_heads": 8,  # of every attention
        "mlp_dim": 4096,
        "fine_dim": 256,  # channels of the map that the refiners read, of stride 4 (conv) or half a token
        "coarse_dim": 1024,  # of the network from keypoints to joint rotations
        "point_widths": (128, 256, 512, 1024),  # of the PointNet over hand vertices
        "vertex_stride": 1,  # every n-th vertex is looked at
        "hand_depth": 5,  # layers of the multi-coordinate hand encoder
        "hand_head_dims": ((512,), (256,), (256,)),  # hidden layers of its heads: joints, confidence, shape
        "refiner_dim": 512,
        "refiner_point_dims": (64, 128, 256),  # layers of the refiners' point encoder
        "refiner_steps": 2,  # with step sizes 1, 1/2
        "object_depth": 4,  # decoder layers
        "object_head_dim": 512,  # hidden layer of the position and rotation heads
        "num_object_queries": 10,
        "num_classes": 100,  # of objects; 1..21 are YCB's
        "contact_hidden_dim": 512,
        "contact_mlp_dim": 2048,
        "contact_depth": 3,  # decoder layers after the two that look at hand and objects
        "num_contact_queries": 10,
    }


def vmt() -> dict:
    """Three transformers from scratch; objects are alike the hand."""
    return {
        "hand": {"hidden_dim": 1024, "depth": 8, "num_heads": 32, "mlp_dim": 4096},
        "contact": {"hidden_dim": 512, "depth": 6, "num_heads": 8, "mlp_dim": 2048},
        "positions": True,  # 2D embeddings of the patches; without them it collapses to one pose
    }


def backbone() -> dict:
    """Of model.encoder=dinov2_*: where its weights come from and how they are trained."""
    return {
        "weights": "",  # backbone.safetensors of --mode=convert --input=HF_FOLDER; training needs it
        "dtype": "bfloat16",  # of its activations and products, which are accumulated in float32; or float32
        "num_frozen_blocks": 12,  # the first blocks, and the embeddings before them: no gradient, no optimizer state
        "remat": 0.5,  # share of the other blocks that the backward pass computes again instead of keeping them
    }


def finder() -> dict:
    return {
        "frame_size": 160,  # pixels, the side that the whole frame is fitted into; a multiple of 16
        "hidden_dim": 128,
        "stem": (24, 64),  # channels at strides 4 and 8
        "depth": 3,
        "num_heads": 4,
        "mlp_dim": 256,
    }


def fusion() -> dict:
    """Of stages 2 and 3: what was seen over time, four tokens a frame."""
    return {
        "hidden_dim": 1024,
        "depth": 8,  # transformer blocks
        "num_heads": 16,
        "mlp_dim": 4096,
        "short_window": 8,  # frames that the first half of the blocks sees, with the present one
        "window": 16,  # frames that the second half sees, and the action decoder
    }


def actions() -> dict:
    """Of stages 2 and 3: a query for each control step to come."""
    return {
        "hidden_dim": 512,
        "depth": 4,  # transformer blocks
        "num_heads": 8,
        "mlp_dim": 2048,
        "num_steps": 10,  # control steps ahead
        "arm_dims": (64, 64),  # hidden layers from a query to changes of the UR5e's 6 joints
        "hand_dims": (64, 64),  # and of the Allegro's 16
    }


def plan() -> dict:
    """Of --mode=describe: compiles the train step ahead of time for config.mesh over these devices; takes minutes."""
    return {
        "enabled": False,
        "devices": 0,  # virtual ones of this machine's CPU; 0: the devices that are here
        "topology": "",  # a TPU's, as v5e:4x4, for which the extra tpu (libtpu) compiles; empty: none
        "memory_gb": 0.0,  # of one device, 1e9 bytes; 0: train.memory_share of what one has free here
        "find_batch": False,  # also the largest batch that fits, by compiling several
    }


def evaluate() -> dict:
    return {
        "checkpoint": "",  # a folder of --mode=train or a .safetensors file; empty: the embedded weights
        "part": "test",  # all: the data set is held out as a whole
        "batch_size": 64,  # images held at a time, in whole videos
        "max_samples": 0,  # in whole videos, evenly spaced over the part; 0 takes all
        "report": True,  # also report.html, to be read in a browser
        "seed": 0,  # of the bootstrap
        "against": "",  # the --workdir of an earlier evaluation of the same data, to compare with frame by frame
        "measure_inference": False,  # also times the network alone, on some frames in memory, and evaluation beside it
        "robot": False,  # how often the robot lifts what the human lifted, instead of what perception gets wrong
        "films": 3,  # robot: of the last origin's lifts and of its failures, so many each, beside the human's video
        "official": False,  # also writes the DexYCB toolkit's result files of every frame, and scores them
        "official_formats": ("hpe", "bop", "coco"),  # hand poses, object poses, detections (extra coco, segmentations)
        "vsd": False,  # of bop files: also visible surface discrepancy, from depth images; takes long
    }


def camera() -> dict:
    return {
        "K": (),  # 9 numbers, row-major, pixels; empty: assumed from the field of view
        "T_world_camera": (),  # 12 or 16 numbers, row-major, metres, world z up; empty: a level camera
        "horizontal_fov": 0.96,  # radians (55 degrees) along the longer side, a webcam's; where K is unknown
    }


def predict() -> dict:
    return {
        "checkpoint": "",  # a folder of --mode=train or a .safetensors file; empty: the embedded weights
        "max_frames": 0,  # from the start of the video; 0 takes all
        "side": "auto",  # which hand the video shows: auto (decided once, from several frames), left, right
        "smoothing": "savgol",  # savgol: Savitzky-Golay, looks ahead; one_euro: causal; none
        "savgol_window": 0.3,  # seconds
        "savgol_order": 2,  # of the polynomial
        "one_euro_min_cutoff": 1.5,  # hertz
        "one_euro_beta": 5.0,  # hertz per (metre per second)
    }


def retarget() -> dict:
    return {
        "side": "right",  # of the robot's hand: right, left; a human hand of the other side is mirrored
        "scale": "fit",  # robot hand / human hand: fit from the finger lengths, or a number
        "iterations": 6,  # of the optimiser, over the whole trajectory
        "smoothness": 1.0,  # multiplies the cost of joint acceleration
    }


def replay() -> dict:
    return {
        "enabled": True,  # False: no replay.mp4
        "width": 640,  # pixels
        "height": 480,  # pixels
        "substep": 0.002,  # seconds, MuJoCo's time step
        "meshes": "",  # a checkout of MuJoCo Menagerie, whose meshes of the robot are shown; empty: primitives
    }
