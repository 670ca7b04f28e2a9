"""Does VMT collapse to one pose without its remedies, and what does each of them change?

python experiments/mode_collapse/run.py --root=DATA --out=results.jsonl
python experiments/mode_collapse/run.py --out=results.jsonl --table

Runs that `out` has already are left out, so a stopped study goes on. Data stay in memory over the runs of a setting.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from amt import hand as hand_model
from amt.data.device_cache import cache_iterator, load_cache, num_mesh_parts
from amt.data.packed import open_source
from amt.data.pipeline import eval_batches
from amt.data.quarantine import Quarantine
from amt.modes import train as training
from amt.modes.validation import perceiver, validation
from amt.training import sharding
from amt.training.checkpoint import Checkpoints
from amt.training.feed import cached_feed
from amt.training.loop import LoopConfig, train
from amt.training.step import perception_loss
from configs import vmt

NONE = {"vmt.positions": False, "train.sigma_reparam": False, "train.loss.diversity": 0.0, "train.loss.kl": 0.0}
REMEDIES = {
    "positions": {"vmt.positions": True},
    "diversity": {"train.loss.diversity": 0.02},
    "sigma-reparam": {"train.sigma_reparam": True, "train.loss.kl": 0.001},
}
ALL = {field: value for remedy in REMEDIES.values() for field, value in remedy.items()}
VARIANTS = {"none": NONE, **{name: NONE | remedy for name, remedy in REMEDIES.items()}, "all three": ALL}
LOSSES = vmt.get_config("demo").train.loss
ORIGINALS_LOSS = {f"train.loss.{name}": 0.0 for name in LOSSES if name not in ("diversity", "kl")}
ORIGINALS_LOSS["train.loss.hand_absolute"] = 1.0
WHOLE = ORIGINALS_LOSS | {"data.crop": "full", "train.steps": 600}
CROPS = {"data.crop": "aligned", "train.steps": 2500}
SETTINGS = {  # what VMT is shown, how fast it learns, and what from
    "original": WHOLE | {"train.learning_rate": 1e-2},
    "original, slower": WHOLE | {"train.learning_rate": 1e-3},
    "crops, amt's losses": CROPS | {"train.learning_rate": 1e-3},
}
SEEDS = (0, 1, 2)
MEAN_SAMPLES = 4000  # of the training set, for the baseline
NOT_LEARNED = ("object", "contact", "physics", "attention", "hand_joint")  # only the hand is: beginnings of terms
COLUMNS = {
    "val_spread_ratio": ("spread ratio", 2),
    "val_attention_entropy": ("entropy", 2),
    "val_least_attention_entropy": ("least entropy", 2),
    "val_mpjpe_mm": ("root-relative mm", 0),
    "val_absolute_mpjpe_mm": ("absolute mm", 0),
}


class Silent:
    """Progress of a run that is not shown."""

    def update(self, done: int = 1, note: str = "") -> None:
        pass


def small_vmt(root: Path):
    """A VMT of which only the hand learns, small enough for a minute of one core; augmented by colour, box and zoom."""
    config = vmt.get_config("demo")
    config.data.update(root=str(root), feed="cache", augment="device", num_workers=0, rough_share=0.0, roll_jitter=0.1)
    off = ("rotation_share", "translation_share", "window_scale", "blur_share", "joint_noise", "pixel_noise")
    config.data.augmentation.update({name: 0.0 for name in off})
    config.vmt.hand.update(hidden_dim=64, depth=3, num_heads=4, mlp_dim=256)
    config.vmt.contact.update(hidden_dim=16, depth=1, num_heads=2, mlp_dim=32)
    config.train.update(warmup_steps=50, ema_decay=0.98)
    config.train.blocks.dropout = 0.0
    never = 10**9
    config.train.update(log_every=never, eval_every=never, checkpoint_every=never)
    config.train.loss.update({name: 0.0 for name in config.train.loss if name.startswith(NOT_LEARNED)})
    return config


class Study:
    """The data of a setting, in memory, and a run of one configuration and seed on them."""

    def __init__(self, config):
        self.mesh = sharding.one_device_mesh()
        self.hand = jax.tree.map(jnp.asarray, hand_model.load())
        root, split = Path(config.data.root), sharding.batch_sharding(self.mesh)
        self.source = open_source(root, config.data.split, "train")
        self.parts = num_mesh_parts(split)
        read, self.augmentation = training.augment_config(config, "perception")
        with tempfile.TemporaryDirectory() as folder:
            self.cache = load_cache(self.source, read, split, 0, config.data.cache_share, Quarantine(Path(folder)))
        seen = training.transform_config(config, "perception")
        learned = joints_of(eval_batches(self.source, seen, config.eval.batch_size, MEAN_SAMPLES))
        held_out = open_source(root, config.data.split, "val")
        self.held_out = list(eval_batches(held_out, seen, config.eval.batch_size, 0))
        self.truth = joints_of(self.held_out)
        self.means = {
            "mean_mpjpe_mm": gap_mm(relative(self.truth), relative(learned).mean(0)),
            "mean_absolute_mpjpe_mm": gap_mm(self.truth, learned.mean(0)),
        }

    def run(self, config, seed: int) -> dict:
        """Figures on held-out crops, beside predicting the training mean; processor seconds with compiling."""
        start = time.process_time()
        config.seed = seed
        model, architecture = training.build_model(config)
        order = cache_iterator(self.source, self.parts, config.train.batch_size, seed)
        # Augmentation has one seed in all runs: it is a constant of the program, which is then compiled once a variant.
        feed = cached_feed(order, self.cache, self.mesh, self.augmentation, 0)
        about = {"architecture": architecture, "iterator": {}}
        with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), about) as checkpoints:
            _, scores = train(
                perception_loss(model, training.objective(config, len(self.source)), self.hand),
                feed,
                self.scoring(model),
                training.optimizer_config(config),
                LoopConfig(**{f.name: config.train[f.name] for f in dataclasses.fields(LoopConfig)}),
                self.mesh,
                checkpoints,
                Path(folder),
                Silent(),
                training.fresh_params(config, model, self.hand),
                config.train.component,
            )
        return scores | self.means | {"cpu_s": time.process_time() - start}

    def scoring(self, model):
        """`--mode=train`'s validation, and the error in the camera's frame."""
        watch = validation(model, perceiver(model, self.hand), self.held_out)
        perceive = jax.jit(
            lambda params, b: model.apply({"params": params}, b.image, b.K, self.hand, method="perceive").joints
        )

        def score(params) -> dict[str, float]:
            joints = [np.asarray(perceive(params, b))[b.joints_valid & real] for b, real in self.held_out]
            return watch(params) | {"val_absolute_mpjpe_mm": gap_mm(np.concatenate(joints), self.truth)}

        return score


def joints_of(batches) -> np.ndarray:
    return np.concatenate([b.joints_3d[b.joints_valid & real] for b, real in batches])


def relative(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, :1]


def gap_mm(a: np.ndarray, b: np.ndarray) -> float:
    return 1000 * float(np.linalg.norm(a - b, axis=-1).mean())


def finished(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(path: Path) -> Iterator[tuple[str, str, int]]:
    """Setting, variant and seed of what is still to run: all variants of a seed, then of the next."""
    done = {(row["setting"], row["variant"], row["seed"]) for row in finished(path)}
    for setting in SETTINGS:
        for seed in SEEDS:
            yield from ((setting, v, seed) for v in VARIANTS if (setting, v, seed) not in done)


def print_table(path: Path) -> None:
    """Means over seeds and ranges, Markdown."""
    rows = finished(path)
    print("| setting | remedies | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for setting in SETTINGS:
        chosen = [row for row in rows if row["setting"] == setting]
        for variant in VARIANTS:
            runs = [row for row in chosen if row["variant"] == variant]
            cells = [cell([run[name] for run in runs], digits) for name, (_, digits) in COLUMNS.items()]
            print(f"| {setting} | {variant} | " + " | ".join(cells) + " |")
        if chosen:
            mean, absolute = chosen[0]["mean_mpjpe_mm"], chosen[0]["mean_absolute_mpjpe_mm"]
            print(f"| {setting} | the training mean | 0 | | | {mean:.0f} | {absolute:.0f} |")
    print(f"{len(rows)} runs, {sum(row['cpu_s'] for row in rows) / 60:.0f} minutes of processor time")


def cell(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, help="a data set in the DexYCB layout")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what `out` has instead")
    args = parser.parse_args()
    if args.table:
        return print_table(args.out)
    logging.set_verbosity(logging.WARNING)
    flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags
    study, of = None, None
    for setting, variant, seed in list(missing(args.out)):
        config = small_vmt(args.root)
        config.update_from_flattened_dict(SETTINGS[setting] | VARIANTS[variant])
        if of != setting:
            study, of = Study(config), setting
        figures = study.run(config, seed)
        with args.out.open("a") as file:
            file.write(json.dumps({"setting": setting, "variant": variant, "seed": seed, **figures}) + "\n")
        print(setting, variant, seed, {name: round(value, 3) for name, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
