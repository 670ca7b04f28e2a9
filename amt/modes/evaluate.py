"""`--mode=evaluate`: score weights on held-out data, every figure beside predicting the training mean."""

import time
from pathlib import Path

from amt import hand as hand_model
from amt.data.dexycb import find_root
from amt.data.packed import open_source
from amt.data.quarantine import Quarantine
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.evaluate import chosen_clips, evaluate
from amt.inference.predictor import Predictor
from amt.models import weights
from amt.modes import evaluate_robot
from amt.modes.common import Progress


def run(config, workdir: Path, input: str | None) -> dict:
    if config.eval.robot:
        return evaluate_robot.run(config, workdir)
    path = weights.resolve(config.eval.checkpoint)
    params, settings, mean = weights.load(path)
    weights.check_architecture(settings, weights.architecture(config.to_dict()), str(path))
    source = open_source(find_root(config.data.root), config.data.split, config.eval.part)
    predictor = Predictor(params, settings, hand_model.load(), weights.contacts_taught(path))
    count = sum(len(clip) for clip in chosen_clips(source, config.eval.max_samples))
    start = time.monotonic()
    with Progress(count, "samples") as progress:
        figures = evaluate(
            predictor,
            source,
            TrainingMean.from_json(mean),
            config.eval.batch_size,
            config.eval.max_samples,
            config.data.min_visible_share,
            Quarantine(workdir),
            progress.update,
        )
    return {"weights": path.name, **figures, "evaluate_s": time.monotonic() - start}
