"""`--mode=evaluate`: score weights on held-out data, every figure beside predicting the training mean.

With config.eval.official also the result files of the DexYCB toolkit and their scores; with --input=FILE only the
scores of such a file, whoever wrote it.
"""

import contextlib
import sys
import time
from pathlib import Path

import jax
import numpy as np

from amt.data.dexycb import DexYCB, find_root
from amt.data.hand_labels import HandIds
from amt.data.images import decode
from amt.data.packed import open_source
from amt.data.quarantine import Quarantine
from amt.errors import UserError
from amt.evaluation import official
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.columns import Measure
from amt.evaluation.comparison import compare, flat, load_other, table
from amt.evaluation.evaluate import Reading, chosen_clips, evaluate, speeds
from amt.evaluation.gathering import gather, share
from amt.evaluation.samples import FILE, Samples, with_motion
from amt.evaluation.summary import summarise
from amt.hand import HandModel
from amt.inference.predictor import Predictor
from amt.inference.results import all_or_nothing
from amt.models import weights
from amt.modes import evaluate_robot
from amt.modes.common import Progress, write_json
from amt.modes.hands import check_labels, load_hand
from amt.modes.validation import perceiver
from amt.training.sharding import make_mesh
from amt.viz.evaluation_report import write_evaluation_report

ATTENTION_FRAMES = 16


def run(config, workdir: Path, input: str | None) -> dict:
    if jax.process_count() > 1 and (config.eval.robot or config.eval.official or input):
        raise UserError(
            "config.distributed.enabled: config.eval.robot, config.eval.official and --input work in one process"
        )
    if config.eval.robot:
        if input:
            raise UserError(f"--input={input}: config.eval.robot plays videos of the data set; leave one of them out")
        return evaluate_robot.run(config, workdir)
    if input:
        start = time.monotonic()
        figures = _score(Path(input), _source(config), config.eval.vsd)
        return {**figures, "evaluate_s": time.monotonic() - start}
    path = weights.resolve(config.eval.checkpoint)
    params, settings, mean = weights.load(path)
    weights.check_architecture(settings, weights.architecture(config.to_dict()), str(path))
    hand = load_hand(config.hand)
    weights.check_hand(path, hand)
    source = _source(config, hand)
    left_out = check_labels(source, hand)
    files = _official_files(config.eval, source)
    mesh = make_mesh(-1, 1, 1, jax.local_devices())
    predictor = Predictor(params, settings, hand, weights.contacts_taught(path), mesh)
    about = {"weights": path.name, "root": str(source.root.resolve()), "split": source.split, "part": source.part}
    about |= {"source_samples": len(source), "weights_sha256": weights.fingerprint(path)}
    other = load_other(config.eval.against, about) if config.eval.against else None
    measure = Measure(source, TrainingMean.from_json(mean), predictor, about)
    clips = share(chosen_clips(source, config.eval.max_samples))
    reading = Reading(config.eval.batch_size, config.data.min_visible_share, Quarantine(workdir, jax.process_index()))
    measured = speeds(predictor, source, clips, measure, reading) if config.eval.measure_inference else {}
    count = sum(len(clip) for clip in clips)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        results = None
        if files:
            folder = stack.enter_context(all_or_nothing(workdir, files.values()))
            results = stack.enter_context(official.ResultFiles(folder, source, tuple(files)))
        progress = stack.enter_context(Progress(count, "samples", silent=jax.process_index() > 0))
        samples, unreadable = evaluate(predictor, source, clips, measure, reading, progress.update, results)
    rate = count / (time.monotonic() - start)
    samples, unreadable = gather(samples, unreadable)
    if samples is None:
        raise UserError(
            f"{source}: no sample has a labelled hand in view ({unreadable} cannot be read); nothing to evaluate"
        )
    samples = with_motion(samples)
    if jax.process_index() == 0:
        samples.save(workdir / FILE)
    figures = {**summarise(samples, config.eval.seed), **_attention(predictor, source, samples)}
    figures |= {"frames_unreadable": unreadable, "samples_per_s": rate, **left_out, **measured}
    comparison = None
    if other is not None:
        comparison = compare(samples, other, config.eval.seed)
        figures |= flat(comparison)
        if jax.process_index() == 0:
            write_json(workdir / "comparison.json", comparison)
            print(table(comparison))
    for name in files.values():
        figures |= {f"official_{k}": v for k, v in _score(workdir / name, source, config.eval.vsd).items()}
    figures |= {"weights": path.name, "evaluate_s": time.monotonic() - start}
    figures = _said(figures, source)
    if config.eval.report and jax.process_index() == 0:
        report = (samples, source, TrainingMean.from_json(mean), figures, comparison, str(config), hand)
        write_evaluation_report(workdir, *report)
    return figures


def _said(figures: dict, source: DexYCB) -> dict:
    """The figures and intervals that some label says something of; how many others there are is printed."""
    known = {name: x for name, x in figures.items() if not (isinstance(x, float) and np.isnan(x))}
    unknown = [name for name in figures if name not in known]
    if unknown and jax.process_index() == 0:
        some = ", ".join(unknown[:3]) + " ..." * (len(unknown) > 3)
        print(f"{source}: {len(unknown)} figures are left out, no frame has what they need: {some}", file=sys.stderr)
    return known | {"intervals": {name: x for name, x in known["intervals"].items() if name in known}}


def _attention(predictor: Predictor, source: DexYCB, samples: Samples) -> dict[str, float]:
    """The entropy of the network's attention over that of even attention, in the mean over heads and of the least one,
    in crops around what was predicted, of frames spread over the table that have images of one size.
    """
    same = np.flatnonzero((samples.image_size_px == samples.image_size_px[0]).all(-1))
    some = samples.take(np.unique(same[np.linspace(0, len(same) - 1, ATTENTION_FRAMES).astype(int)]))
    images, K = [decode(source[int(i)]["color"]) for i in some.index], some.K_px.astype(np.float64)
    crops = predictor.crops(images, K, predictor.boxes(some.joints_m, K), some.predicted_left)
    _, shares = perceiver(predictor.model, predictor.hand)(predictor.params, crops)
    return {"attention_entropy": float(shares.mean()), "least_attention_entropy": float(shares.min())}


def _source(config, hand: HandModel | None = None) -> DexYCB:
    hands = None if hand is None else HandIds.of(hand)
    return open_source(find_root(config.data.root), config.data.split, config.eval.part, with_seg=True, hands=hands)


def _official_files(settings, source: DexYCB) -> dict[str, str]:
    """Names of the files to write, by format; what they need is looked for before the work."""
    if not settings.official:
        return {}
    if settings.max_samples:
        raise UserError("config.eval.official: its files hold every frame of the part; set config.eval.max_samples=0")
    names = official.file_names(source, tuple(settings.official_formats))
    if "bop" in names:
        if not any(source.labels(clip.start)["object_ids"].any() for clip in source.clips()):
            raise UserError(f"{source}: without objects; leave bop out of config.eval.official_formats")
        if settings.vsd:
            source.depth(0)
    if "coco" in names:
        official.require_pycocotools()
        source.labels(0, with_seg=True)
    return names


def _score(path: Path, source: DexYCB, with_vsd: bool) -> dict:
    with Progress(len(source), "labels") as progress:
        return official.score_file(path, source, with_vsd, progress.update)
