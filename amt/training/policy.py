"""Stage 2: what the policy is fed and what it minimises."""

from collections.abc import Sequence

import flax.struct
import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int
from scipy.spatial.transform import Rotation

from amt.data.pipeline import shuffled
from amt.errors import UserError
from amt.losses.actions import ActionLabels, action_losses
from amt.models import sigma_reparam
from amt.models.policy import Policy
from amt.models.temporal import Observation
from amt.robot import load_robot
from amt.robot.model import NUM_JOINTS
from amt.training.step import Loss, Objective


@flax.struct.dataclass
class PolicyBatch:
    """Windows of videos: what was seen, and what should be done; [b,t,...]."""

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


def turned(window: PolicyBatch, angle: float) -> PolicyBatch:
    """The same on another side of the robot: all of it turned about the base's z, radians.

    The first joint turns about that axis, so that the commands' first angles change by as much and nothing else does.
    """
    turn = Rotation.from_rotvec([0.0, 0.0, angle]).as_matrix().astype(np.float32)
    pan = np.zeros(NUM_JOINTS, np.float32)
    pan[0] = angle
    seen, labels = window.seen, window.labels
    return PolicyBatch(
        seen.replace(
            joints=seen.joints @ turn.T,
            object_position=seen.object_position @ turn.T,
            object_rotation=turn @ seen.object_rotation,
            camera_position=seen.camera_position @ turn.T,
            qpos=seen.qpos + pan,
        ),
        labels.replace(
            commands=labels.commands + pan,
            position=labels.position @ turn.T,
            rotation=turn @ labels.rotation,
            approach=labels.approach @ turn.T,
        ),
    )


class _Windows(grain.RandomMapTransform):
    """The batch of a window out of each of several videos, which are held in memory."""

    def __init__(self, videos: Sequence[PolicyBatch], length: int, turn: float):
        self.videos, self.length, self.turn = videos, length, turn

    def random_map(self, indices: Int[np.ndarray, " b"], rng: np.random.Generator) -> PolicyBatch:
        def window(video: PolicyBatch) -> PolicyBatch:
            first = int(rng.integers(len(video.labels.valid) - self.length + 1))
            window = jax.tree.map(lambda x: x[first : first + self.length], video)
            return turned(window, rng.uniform(-self.turn, self.turn)) if self.turn else window

        return jax.tree.map(lambda *x: np.stack(x), *(window(self.videos[int(i)]) for i in indices))


def video_iterator(
    videos: Sequence[PolicyBatch], length: int, batch_size: int, seed: int, turn: float = 0.0
) -> grain.DatasetIterator:
    """Endless batches of windows of `length` frames out of videos [t,...], for this process; shuffled anew each epoch.

    Each is `turned` by up to `turn` radians either way. `batch_size` is over all processes, each of which takes its
    part of every batch. The state can be saved. Raises UserError where a video is shorter than a window.
    """
    check_window(length, min(len(video.labels.valid) for video in videos))
    return iter(window_dataset(_Windows(videos, length, turn), len(videos), batch_size, seed))


def check_window(length: int, shortest: int) -> None:
    """Raises UserError where a window does not fit into the shortest video, which has so many frames."""
    if not 1 <= length <= shortest:
        raise UserError(f"config.train.window={length}: expected 1 to {shortest}, the frames of the shortest video")


def window_dataset(
    windows: grain.RandomMapTransform, count: int, batch_size: int, seed: int, num_threads: int = 1
) -> grain.IterDataset:
    """Endless batches that `windows` makes of indices below `count`, as in `video_iterator`."""
    dataset = shuffled(count, batch_size, seed).random_map(windows, seed=seed + jax.process_index())
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2))
