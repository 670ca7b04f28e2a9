"""`--mode=convert`: with `--input` a DINOv2 backbone from a Hugging Face folder; without it a data set in the DexYCB
layout, packed into ArrayRecord shards. Both end up in the work directory.
"""

import time
from pathlib import Path

import jax

from amt.data.dexycb import DexYCB, find_root
from amt.data.packed import MANIFEST, make_plan, pack
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.models import dinov2
from amt.modes.common import Progress


def run(config, workdir: Path, input: str | None) -> dict:
    return convert_backbone(Path(input), workdir) if input else pack_data(config, workdir)


def convert_backbone(folder: Path, workdir: Path) -> dict:
    """Writes backbone.safetensors, for `config.backbone.weights`."""
    start = time.monotonic()
    backbone, params = dinov2.from_huggingface(folder)
    path = workdir / "backbone.safetensors"
    dinov2.save(path, backbone, params)
    return {
        "input": str(folder),
        **dinov2.architecture(backbone),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "backbone": str(path),
        "bytes": path.stat().st_size,
        "convert_s": time.monotonic() - start,
    }


def pack_data(config, workdir: Path) -> dict:
    """Goes on where an earlier run stopped; samples that cannot be read are listed in quarantine.jsonl."""
    root = find_root(config.data.root)
    if (root / MANIFEST).exists():
        raise UserError(f"--config.data.root: {root} is packed already")
    if workdir.resolve() == root.resolve():
        raise UserError(f"--workdir={workdir}: is the data set itself; choose another folder for the shards")
    if config.convert.shard_samples < 1:
        raise UserError(f"config.convert.shard_samples={config.convert.shard_samples}: expected at least 1")
    source = DexYCB(root, part="all")
    plan = make_plan(source, config.convert.shard_samples)
    quarantine = Quarantine(workdir)
    start, written, unreadable = time.monotonic(), 0, 0
    with Progress(len(source), "samples") as progress:
        for done in pack(source, plan, workdir):
            if done.kept:
                progress.skip(done.samples, "going on where it stopped")
                continue
            if done.error:
                quarantine.add(done.error.path, done.error.reason)
                unreadable += 1
            written += done.samples
            progress.update(done.samples)
    quarantine.check(len(source))
    seconds = time.monotonic() - start
    return {
        "root": str(root),
        "samples": len(source),
        "samples_written": written,
        "samples_unreadable": unreadable,
        "shards": len(plan["shards"]),
        "bytes": sum((workdir / shard["name"]).stat().st_size for shard in plan["shards"]),
        "convert_s": seconds,
        "samples_per_s": written / seconds,
    }
