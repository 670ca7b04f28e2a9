"""A predictor over a data set: found by the predictor itself, nothing given by labels.

Every frame on its own, but for the side: the frames of one video share their hand, as in `Predictor.__call__`. While
the network sees some videos, the next ones are read and decoded, and the last ones compared with their labels.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from amt.data.dexycb import DexYCB
from amt.data.images import decode
from amt.data.quarantine import Quarantine, try_load
from amt.data.transforms import visible_share
from amt.errors import UserError
from amt.evaluation.columns import Frames, Measure
from amt.evaluation.official import ResultFiles
from amt.evaluation.samples import Samples, join
from amt.inference.predictor import FoundHands, Predictor, choose
from amt.structs import Prediction

READERS, SCORERS = 2, 2  # threads
AHEAD = 2  # videos that are read before they are needed
SPEED_TURNS, SPEED_VIDEOS = 2, 2  # in which evaluation and the network alone are timed

T = TypeVar("T")
S = TypeVar("S")


class Video(NamedTuple):
    """What could be read of a video, or of several: stacked samples, their images, and which of them make figures."""

    samples: Int[np.ndarray, " n"]
    clips: Int[np.ndarray, " n"]
    counts: Bool[np.ndarray, " n"]
    labels: dict[str, np.ndarray]
    images: UInt8[np.ndarray, "n h w 3"]


class Reading(NamedTuple):
    """How frames are read: up to `batch_size` of them are seen at a time, in whole videos; figures are made of those
    with a share of at least `min_visible` of their joints in the image; `quarantine` lists what cannot be read.
    """

    batch_size: int
    min_visible: float
    quarantine: Quarantine


class Seen(NamedTuple):
    """Frames as a right hand, as a left hand, and the log odds that it is a left one; where the finder found it."""

    right: Prediction
    left: Prediction
    left_odds: Float[np.ndarray, " n"]
    found: FoundHands


def evaluate(
    predictor: Predictor,
    source: DexYCB,
    clips: list[range],
    measure: Measure,
    reading: Reading,
    report: Callable[[int], None],
    results: ResultFiles | None = None,
) -> tuple[Samples | None, int]:
    """Every frame of some of the source's videos (None: there is none), and how many could not be read.

    A hand that the finder does not find counts with whatever is seen at its best guess: nothing is left out but the
    samples without a label, with too few joints in the image, or that cannot be read. Those are listed and counted.
    Raises `UserError` where too many cannot be read.

    `results` gets predictions of every frame, those that are left out too; the side of a video's hand is then decided
    on all of its frames. With it an unreadable frame is an error: its file has to be whole.
    """
    parts, scores, seen, unreadable, writing = [], deque(), 0, 0, Lock()
    quarantine, load = reading.quarantine, functools.partial(_load, source, reading, every=results is not None)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(SCORERS) as scorers:

        def videos() -> Iterator[Video]:
            nonlocal seen, unreadable
            for clip, (video, unread) in zip(clips, ahead(readers, load, _numbered(source, clips), AHEAD), strict=True):
                seen, unreadable = seen + len(clip), unreadable + len(unread)
                quarantine.check(seen)
                if results and unread:
                    raise UserError(
                        f"{source.color_path(unread[0])}: image or labels cannot be read ({quarantine.path} says why), "
                        "and config.eval.official needs every frame"
                    )
                if video is not None:
                    yield video
                report(len(clip))

        for video in grouped(videos(), reading.batch_size):
            scores.append(scorers.submit(_score, video, see(predictor, video), measure, results, writing))
            if len(scores) > SCORERS:
                parts.append(scores.popleft().result())
        parts += [score.result() for score in scores]
    parts = [part for part in parts if part is not None]
    return join(parts) if parts else None, unreadable


def chosen_clips(source: DexYCB, max_samples: int) -> list[range]:
    """Whole videos, evenly spaced, of about `max_samples` frames together; 0 takes all."""
    clips = source.clips()
    if not 0 < max_samples < len(source):
        return clips
    count = max(1, round(max_samples * len(clips) / len(source)))
    return [clips[i] for i in np.linspace(0, len(clips) - 1, count).round().astype(int)]


def see(predictor: Predictor, video: Video) -> Seen:
    """All of the network's work."""
    K, found = video.labels["K"].astype(np.float64), predictor.find(video.images)
    return Seen(*predictor.both_sides(video.images, K, found), found)


def speeds(
    predictor: Predictor, source: DexYCB, clips: list[range], measure: Measure, reading: Reading
) -> dict[str, float]:
    """Frames per second of `see` alone, on frames in memory, and its time over that of `evaluate`, by the clock and by
    the processor's.

    They take turns, after one that compiles, over the same `SPEED_VIDEOS` of each turn: what else the machine does
    meets both alike.
    """
    turns = [clips[:1], *(clips[k : k + SPEED_VIDEOS] for k in range(0, SPEED_TURNS * SPEED_VIDEOS, SPEED_VIDEOS))]
    frames, alone, whole = 0, np.zeros(2), np.zeros(2)
    for turn in filter(None, turns):
        loaded = [_load(source, reading, clip, every=False)[0] for clip in _numbered(source, turn)]
        groups = list(grouped((video for video in loaded if video is not None), reading.batch_size))
        times = [_now()]
        for group in groups:
            see(predictor, group)
        times.append(_now())
        evaluate(predictor, source, turn, measure, reading, lambda _: None)
        times.append(_now())
        if turn is not turns[0]:
            frames += sum(len(group.samples) for group in groups)
            alone, whole = alone + times[1] - times[0], whole + times[2] - times[1]
    by_clock, by_processor = (alone / whole).tolist()
    return {
        "inference_samples_per_s": frames / float(alone[0]),
        "share_of_inference_speed": by_clock,
        "share_of_inference_processor_time": by_processor,
    }


def _now() -> Float[np.ndarray, " 2"]:
    """Seconds of the clock, and of this process's processor time."""
    return np.array([time.monotonic(), time.process_time()])


def ahead(pool: Executor, f: Callable[[S], T], items: Iterable[S], depth: int) -> Iterator[T]:
    """`f` of every item in their order, `depth` of them begun before they are asked for."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(f, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def grouped(videos: Iterable[Video], size: int) -> Iterator[Video]:
    """Whole videos with images of one size, joined as long as they have up to `size` frames together."""
    group: list[Video] = []
    for video in videos:
        count = sum(len(other.samples) for other in group) + len(video.samples)
        if group and (count > size or video.images.shape[1:] != group[0].images.shape[1:]):
            yield _joined(group)
            group = []
        group.append(video)
    if group:
        yield _joined(group)


def _joined(videos: list[Video]) -> Video:
    return videos[0] if len(videos) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *videos)


def _numbered(source: DexYCB, clips: list[range]) -> list[tuple[int, range]]:
    numbers = {clip.start: number for number, clip in enumerate(source.clips())}
    return [(numbers[clip.start], clip) for clip in clips]


def _load(source: DexYCB, reading: Reading, clip: tuple[int, range], every: bool) -> tuple[Video | None, list[int]]:
    """A video's frames, or without `every` those that make figures (None: there are none); which cannot be read."""
    number, frames = clip
    loaded = {i: try_load(source, i, _with_image, reading.quarantine) for i in frames}
    unread = [i for i, frame in loaded.items() if frame is None]
    kept = []
    for i, (labels, image) in ((i, frame) for i, frame in loaded.items() if frame is not None):
        in_view = visible_share(labels["joints_2d"], image.shape[1::-1]) >= reading.min_visible
        counts = labels["joints_valid"] and in_view
        if counts or every:
            kept.append((i, number, bool(counts), labels, image))
    if not kept:
        return None, unread
    samples, numbers, counts, labels, images = zip(*kept, strict=True)
    stacked = {name: np.stack([frame[name] for frame in labels]) for name in labels[0]}
    return Video(np.array(samples), np.array(numbers), np.array(counts), stacked, np.stack(images)), unread


def _with_image(sample: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    return {name: x for name, x in sample.items() if name != "color"}, decode(sample["color"])


def _score(video: Video, seen: Seen, measure: Measure, results: ResultFiles | None, writing: Lock) -> Samples | None:
    """Rows of every frame that counts; all frames are written to `results`, by one thread at a time."""
    labels, (right, left, odds, found) = video.labels, seen
    _, clip = np.unique(video.clips, return_inverse=True)
    prediction = choose(np.bincount(clip, odds)[clip] > 0, left, right)
    if results:
        with writing:
            results.add(video.samples, prediction, labels["K"].astype(np.float64), labels["object_ids"])
    if not video.counts.any():
        return None
    told = choose(labels["is_left"], left, right)
    frames = Frames(video.samples, video.clips, video.images.shape[2:0:-1], labels, prediction, told, odds, found)
    return measure(frames if video.counts.all() else frames.at(video.counts))
