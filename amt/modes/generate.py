"""`--mode=generate`: write a synthetic data set in the DexYCB layout into the work directory."""

import dataclasses
import time
from pathlib import Path

from amt.data.synthetic.generator import GeneratorConfig, discarded_grasps, generate, num_complete
from amt.modes.common import Progress


def run(config, workdir: Path, input: str | None) -> dict:
    names = [f.name for f in dataclasses.fields(GeneratorConfig)]
    values = {"hand_model": config.hand.model} | {name: config.generate[name] for name in names if name != "hand_model"}
    settings = GeneratorConfig(**values | {"objects": tuple(config.generate.objects)})
    start = time.monotonic()
    written, discarded = 0, 0
    settings.check()
    with Progress(settings.num_sequences, "sequences") as progress:
        progress.skip(num_complete(settings, workdir))
        for name in generate(settings, workdir, config.generate.num_workers):
            written += 1
            discarded += discarded_grasps(workdir, name)
            progress.update(note=f"{discarded} grasps discarded" if settings.grasps == "physical" else "")
    seconds = time.monotonic() - start
    frames = written * settings.num_frames * settings.cameras_each
    return {
        "root": str(workdir),
        "sequences": settings.num_sequences,
        "sequences_written": written,
        "frames_written": frames,
        **({"grasps_discarded": discarded} if settings.grasps == "physical" else {}),
        "generation_s": seconds,
        "frames_per_s": frames / seconds,
    }
