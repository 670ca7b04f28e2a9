"""From a policy's chunks to the robot's commands."""

import numpy as np
from jaxtyping import Bool, Float

FORGETTING = 8.0  # 1/s, how fast older chunks lose their say


def play_chunks(
    chunks: Float[np.ndarray, "t n 22"],
    times: Float[np.ndarray, " t"],
    valid: Bool[np.ndarray, " t"],
    q: Float[np.ndarray, " 22"],
    rate: float,
    length: int,
) -> Float[np.ndarray, "length 22"]:
    """Commands at `rate` out of chunks decided at `times`, by `shares`; before there is a chunk, `q`. Radians."""
    say = shares(times, valid, chunks.shape[1], rate, length)
    return np.tensordot(say, chunks, axes=2) + (1 - say.sum((1, 2)))[:, None] * q


def shares(
    times: Float[np.ndarray, " t"], valid: Bool[np.ndarray, " t"], steps: int, rate: float, length: int
) -> Float[np.ndarray, "length t steps"]:
    """The share of each chunk's step in each command; they add up to 1, or to 0 before there is a chunk.

    Commands come at `rate` from time 0 on, chunks are decided at `times`, their steps are 1 / rate apart.
    At each moment the chunks that were decided before it and still reach it are averaged, newer ones counting more, as
    in temporal ensembling (Zhao et al. 2023, ACT). Where none does, as in frames without a hand (not `valid`), the
    last command is held. Nothing later than a command is used for it.
    """
    made = np.zeros((length, len(times), steps))
    for tick in range(length):
        place = (tick / rate - times) * rate - 1  # of this moment in each chunk
        reaching = valid & (place > -1e-9) & (place <= steps - 1)
        if not reaching.any():  # or a chunk whose first step is still to come
            reaching = valid & (place > -1 - 1e-9) & (place < 0)
        if reaching.any():
            k = np.flatnonzero(reaching)
            at = np.maximum(place[k], 0.0)
            low = np.minimum(at.astype(int), steps - 2)
            weight = np.exp(-FORGETTING * (tick / rate - times[k]))
            weight /= weight.sum()
            made[tick, k, low] = (1 - (at - low)) * weight
            made[tick, k, low + 1] = (at - low) * weight
        elif tick:
            made[tick] = made[tick - 1]
    return made
