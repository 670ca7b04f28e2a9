"""A predictor over a data set: found by the predictor itself, nothing given by labels.

Every frame on its own, but for the side: the frames of one video share their hand, as in `Predictor.__call__`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.data.quarantine import Quarantine, try_load
from amt.data.transforms import visible_share
from amt.errors import UserError
from amt.evaluation.columns import Frames, Measure
from amt.evaluation.official import ResultFiles
from amt.evaluation.samples import Samples, join
from amt.inference.predictor import Predictor, choose


class Loaded(NamedTuple):
    """One frame: its number and that of its video, and whether figures are made of it."""

    sample: int
    clip: int
    counts: bool
    labels: dict[str, Any]
    image: UInt8[np.ndarray, "h w 3"]


def evaluate(
    predictor: Predictor,
    source: DexYCB,
    measure: Measure,
    batch_size: int,
    max_samples: int,
    min_visible: float,
    quarantine: Quarantine,
    report: Callable[[int], None],
    results: ResultFiles | None = None,
) -> tuple[Samples, int]:
    """Every frame of the source, or of whole videos spread evenly over it, about `max_samples` frames (0: all), and how
    many could not be read.

    A hand that the finder does not find counts with whatever is seen at its best guess: nothing is left out but the
    samples without a label, with fewer than `min_visible` of their joints in the image, or that cannot be read. Those
    are listed in `quarantine` and counted. Raises `UserError` where too many cannot be read and where nothing is left.

    `results` gets predictions of every frame, those that are left out too; the side of a video's hand is then decided
    on all of its frames. With it an unreadable frame is an error: its file has to be whole.
    """
    parts: list[Samples] = []
    pending: list[Loaded] = []
    seen = unreadable = 0

    def flush():
        if pending and (rows := _score(predictor, pending, measure, results)) is not None:
            parts.append(rows)
        pending.clear()

    numbers = {clip.start: number for number, clip in enumerate(source.clips())}
    for clip in chosen_clips(source, max_samples):
        frames = [(i, try_load(source, i, _with_image, quarantine)) for i in clip]
        unread = [i for i, frame in frames if frame is None]
        seen += len(clip)
        unreadable += len(unread)
        quarantine.check(seen)
        if results and unread:
            raise UserError(
                f"{source.color_path(unread[0])}: image or labels cannot be read ({quarantine.path} says why), and "
                "config.eval.official needs every frame"
            )
        frames = [(i, *frame) for i, frame in frames if frame is not None]
        if (
            pending
            and frames
            and (len(pending) + len(clip) > batch_size or frames[0][2].shape != pending[0].image.shape)
        ):
            flush()
        for i, sample, image in frames:
            counts = sample["joints_valid"] and visible_share(sample["joints_2d"], image.shape[1::-1]) >= min_visible
            if counts or results:
                pending.append(Loaded(i, numbers[clip.start], bool(counts), sample, image))
        report(len(clip))
    flush()
    if not parts:
        raise UserError(
            f"{source}: no sample has a labelled hand in view ({unreadable} of {seen} cannot be read); "
            "nothing to evaluate"
        )
    return join(parts), unreadable


def chosen_clips(source: DexYCB, max_samples: int) -> list[range]:
    """Whole videos, evenly spaced, of about `max_samples` frames together; 0 takes all."""
    clips = source.clips()
    if not 0 < max_samples < len(source):
        return clips
    count = max(1, round(max_samples * len(clips) / len(source)))
    return [clips[i] for i in np.linspace(0, len(clips) - 1, count).round().astype(int)]


def _with_image(sample: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    return {k: v for k, v in sample.items() if k != "color"}, decode(sample["color"])


def _score(
    predictor: Predictor, pending: list[Loaded], measure: Measure, results: ResultFiles | None
) -> Samples | None:
    """Rows of every frame that counts; all frames are written to `results`."""
    images = np.stack([frame.image for frame in pending])
    labels = {k: np.stack([frame.labels[k] for frame in pending]) for k in pending[0].labels}
    samples, clips, counts = (np.array(x) for x in list(zip(*pending, strict=True))[:3])
    K = labels["K"].astype(np.float64)
    right, left, odds = predictor.both_sides(images, K)
    _, clip = np.unique(clips, return_inverse=True)
    prediction = choose(np.bincount(clip, odds)[clip] > 0, left, right)
    told = choose(labels["is_left"], left, right)
    found = predictor.find(images)
    if results:
        results.add(samples, prediction, K, labels["object_ids"])
    if not counts.any():
        return None
    samples, clips, labels, prediction, told, odds = jax.tree.map(
        lambda x: x[counts], (samples, clips, labels, prediction, told, odds)
    )
    return measure(Frames(samples, clips, images.shape[2:0:-1], labels, prediction, told, odds, found.at(counts)))
