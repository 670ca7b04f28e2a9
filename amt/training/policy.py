"""Stage 2: what the policy is fed and what it minimises."""

from collections.abc import Sequence

import flax.struct
import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int

from amt.losses.actions import ActionLabels, action_losses
from amt.models import sigma_reparam
from amt.models.policy import Policy
from amt.models.temporal import Observation
from amt.robot import load_robot
from amt.training.step import Loss, Objective


@flax.struct.dataclass
class PolicyBatch:
    """Videos of the same length: what was seen, and what should be done; [b,t,...]."""

    seen: Observation
    labels: ActionLabels


def policy_loss(policy: Policy, objective: Objective, seed: int = 0) -> Loss:
    """Behaviour cloning by `amt.losses.actions`. Dropout is a function of `seed` and the step."""
    robot = load_robot()

    def loss(params, spectral, batch: PolicyBatch, step):
        rng = jax.random.fold_in(jax.random.key(seed), step)
        plain, after = sigma_reparam.fold(params, spectral)
        actions, _ = policy.apply({"params": plain["policy"]}, batch.seen, rngs={"dropout": rng})
        value, terms = objective.total(action_losses(actions, batch.labels, robot), step)
        return value, (terms, after)

    return loss


class _Videos:
    """For Grain: the batch of several videos, which are held in memory."""

    def __init__(self, videos: Sequence[PolicyBatch]):
        self.videos = videos

    def __call__(self, indices: Int[np.ndarray, " b"]) -> PolicyBatch:
        return jax.tree.map(lambda *x: np.stack(x), *(self.videos[int(i)] for i in indices))


def video_iterator(videos: Sequence[PolicyBatch], batch_size: int, seed: int) -> grain.DatasetIterator:
    """Endless batches of videos [t,...] for this process, shuffled anew each epoch; its state can be saved.

    `batch_size` is over all processes, each of which takes its part of every batch.
    """
    size = batch_size // jax.process_count()
    first = jax.process_index() * size
    dataset = grain.MapDataset.range(len(videos)).seed(seed).shuffle().repeat().batch(batch_size, batch_fn=np.array)
    dataset = dataset.map(lambda indices: indices[first : first + size]).map(_Videos(videos))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
