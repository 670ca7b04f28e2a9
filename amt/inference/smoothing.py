"""Smoothing over time: Savitzky-Golay for whole clips, One-Euro for streams.

Both are weighted means over neighbouring frames. All that belongs to one body has the same weights, so
joints and vertices of a hand stay on each other. A rotation is smoothed as the mean of its matrices,
projected back onto SO(3): no sign or wrap-around to trip over. Nothing is interpolated: what was invalid
stays invalid and untouched, and no value crosses a gap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from amt.structs import HandPose, ObjectPoses, Prediction

Filter = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SavitzkyGolay:
    """A local polynomial fit, centred: no lag, but it looks `window_s / 2` seconds ahead.

    Savitzky and Golay, Smoothing and Differentiation of Data, 1964.
    """

    window_s: float = 0.3
    order: int = 2

    def prepare(self, reference: Float[np.ndarray, "T n 3"], time: Float[np.ndarray, " T"]) -> Filter:
        """Returns the filter of one unbroken segment; `reference` is ignored, as the weights are constant."""
        from scipy.signal import savgol_filter  # takes a second: not before bad input is answered

        frames = len(time)
        step = (time[-1] - time[0]) / max(frames - 1, 1)
        window = 2 * round(self.window_s / (2 * step)) + 1 if step > 0 else 1
        window = min(window, frames if frames % 2 else frames - 1)
        if window <= self.order:
            return lambda values: values
        return lambda values: savgol_filter(values, window, self.order, axis=0, mode="interp")


@dataclass(frozen=True)
class OneEuro:
    """A causal low pass whose cutoff rises with speed: `min_cutoff` (Hz) + `beta` (1/m) x speed (m/s).

    Casiez, Roussel, Vogel: 1 Euro Filter, CHI 2012. The speed is that of the fastest point of `reference`, so
    that all points of a body get the same weights.
    """

    min_cutoff: float = 1.5
    beta: float = 8.0
    derivative_cutoff: float = 1.0

    def prepare(self, reference: Float[np.ndarray, "T n 3"], time: Float[np.ndarray, " T"]) -> Filter:
        """Returns the filter of one unbroken segment, with weights from the speed of `reference` (metres)."""
        gains = self._gains(reference, time)

        def apply(values: np.ndarray) -> np.ndarray:
            smooth = np.array(values)
            for t in range(1, len(smooth)):
                smooth[t] = smooth[t - 1] + gains[t] * (values[t] - smooth[t - 1])
            return smooth

        return apply

    def _gains(self, reference: np.ndarray, time: np.ndarray) -> np.ndarray:
        gains, velocity, smooth = np.ones(len(time)), np.zeros(reference.shape[1:]), reference[0]
        for t in range(1, len(time)):
            step = time[t] - time[t - 1]
            difference = (reference[t] - smooth) / step
            velocity = velocity + _gain(self.derivative_cutoff, step) * (difference - velocity)
            speed = np.linalg.norm(velocity, axis=-1).max()
            gains[t] = _gain(self.min_cutoff + self.beta * speed, step)
            smooth = smooth + gains[t] * (reference[t] - smooth)
        return gains


def _gain(cutoff: float, step: float) -> float:
    """Weight of the newest sample in exponential smoothing with a cutoff (Hz) at a time step (seconds)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def segments(valid: Bool[np.ndarray, " T"], key: Int[np.ndarray, " T"] | None = None) -> Iterator[slice]:
    """Yields the unbroken runs of valid frames; a new `key` (a hand's side, an object's id) ends one."""
    label = np.where(valid, 0 if key is None else key, np.iinfo(np.int64).min)
    edges = np.flatnonzero(np.diff(label)) + 1
    for start, stop in zip([0, *edges], [*edges, len(label)], strict=True):
        if stop > start and valid[start]:
            yield slice(start, stop)


def smooth_positions(
    positions: Float[np.ndarray, "T *n 3"],
    valid: Bool[np.ndarray, " T"],
    time: Float[np.ndarray, " T"],
    method: SavitzkyGolay | OneEuro,
) -> Float[np.ndarray, "T *n 3"]:
    """Smooths points (metres) segment by segment; `time` in seconds."""
    smooth = np.array(positions)
    for part in segments(valid):
        piece = smooth[part]
        smooth[part] = method.prepare(piece.reshape(len(piece), -1, 3), time[part])(piece)
    return smooth


def project_rotation(matrices: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """The rotation nearest to each matrix in the Frobenius norm (Moakher 2002: a mean of rotations)."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., -1] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def smooth_hand(hand: HandPose, time: Float[np.ndarray, " T"], method: SavitzkyGolay | OneEuro) -> HandPose:
    """Smooths a hand over its leading axis T (numpy out); `is_left` and `valid` stay as they are."""
    hand = jax.tree.map(np.array, hand)
    fields = ("global_orient", "hand_pose", "betas", "transl", "joints", "vertices")
    smooth = {name: getattr(hand, name) for name in fields}
    for part in segments(hand.valid, hand.is_left.astype(np.int64)):
        apply = method.prepare(hand.joints[part], time[part])
        for name, values in smooth.items():
            result = apply(values[part])
            values[part] = project_rotation(result) if name in ("global_orient", "hand_pose") else result
    return hand.replace(**smooth)


def smooth_objects(objects: ObjectPoses, time: Float[np.ndarray, " T"], method: SavitzkyGolay | OneEuro) -> ObjectPoses:
    """Smooths the poses of each of the n slots over T while the slot is valid and holds the same object."""
    objects = jax.tree.map(np.array, objects)
    pose = objects.pose
    for slot in range(pose.shape[1]):
        for part in segments(objects.valid[:, slot], objects.ycb_ids[:, slot]):
            piece = pose[part, slot]
            smooth = method.prepare(piece[:, None, :, 3], time[part])(piece)
            smooth[..., :3] = project_rotation(smooth[..., :3])
            pose[part, slot] = smooth
    return objects


def smooth_prediction(
    prediction: Prediction, time: Float[np.ndarray, " T"], method: SavitzkyGolay | OneEuro | None
) -> Prediction:
    """Smooths hand and objects at `time` (seconds); contacts have no identity over time and stay."""
    if method is None or len(time) < 2:
        return prediction
    return prediction.replace(
        hand=smooth_hand(prediction.hand, time, method),
        objects=smooth_objects(prediction.objects, time, method),
    )
