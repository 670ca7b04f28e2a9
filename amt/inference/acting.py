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
    """Commands at `rate` out of chunks decided at `times`, whose steps are 1 / rate apart; radians.

    At each moment the chunks that were decided before it and still reach it are averaged, newer ones counting more, as
    in temporal ensembling (Zhao et al. 2023, ACT). Where none does, as in frames without a hand (not `valid`), the
    last command is held, first `q`. Nothing later than a command is used for it.
    """
    steps = chunks.shape[1]
    made, last = np.empty((length, chunks.shape[2])), np.asarray(q, np.float64)
    for tick in range(length):
        place = (tick / rate - times) * rate - 1  # of this moment in each chunk
        reaching = valid & (place > -1e-9) & (place <= steps - 1)
        if not reaching.any():  # or a chunk whose first step is still to come
            reaching = valid & (place > -1 - 1e-9) & (place < 0)
        if reaching.any():
            k = np.flatnonzero(reaching)
            at = np.maximum(place[k], 0.0)
            low = np.minimum(at.astype(int), steps - 2)
            share = (at - low)[:, None]
            value = (1 - share) * chunks[k, low] + share * chunks[k, low + 1]
            weight = np.exp(-FORGETTING * (tick / rate - times[k]))
            last = weight @ value / weight.sum()
        made[tick] = last
    return made
