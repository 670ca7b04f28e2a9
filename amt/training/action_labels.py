"""What a lesson asks of a policy at each frame of a video: chunks of commands and what they are for."""

import numpy as np
from jaxtyping import Float, Int

from amt.losses.actions import TIPS, ActionLabels
from amt.robot import forward, load_robot
from amt.training.lessons import Lesson
from amt.training.teacher import RATE

TOUCHES = 0.2  # newtons from which a finger takes part in a grasp
APPROACH = 0.2  # seconds over which the wrist's way gives its direction
GRASPS = (
    "none",
    "thumb and index",
    "thumb and middle",
    "thumb and ring",
    "thumb and two fingers",
    "thumb and all fingers",
    "fingers without thumb",
    "thumb alone",
    "palm and fingers",
    "palm alone",
)


def grasp_kind(touch: Float[np.ndarray, "n 5"]) -> Int[np.ndarray, " n"]:
    """Index of `GRASPS` for forces of index, middle, ring, thumb and the rest (`amt.robot.Replay.touch`), newtons."""
    index, middle, ring, thumb, palm = (touch > TOUCHES).T
    fingers = index.astype(int) + middle + ring
    cases = [
        (palm & (fingers + thumb > 0), 8),
        (palm, 9),
        (thumb & (fingers == 3), 5),
        (thumb & (fingers == 2), 4),
        (thumb & index, 1),
        (thumb & middle, 2),
        (thumb & ring, 3),
        (thumb, 7),
        (fingers > 0, 6),
    ]
    return np.select(*map(list, zip(*cases, strict=True)), default=0)


def action_labels(
    lesson: Lesson, times: Float[np.ndarray, " t"], valid: Float[np.ndarray, " t"], num_steps: int
) -> ActionLabels:
    """For frames at `times` (seconds); step j of a chunk is the command j + 1 control steps after its frame.

    A failed lesson teaches no commands, only that it fails. `approach` is the way of the wrist in the last 0.2 s before
    each step, and the palm's normal where it stands.
    """
    n = len(lesson.commands)
    ticks = times[:, None] * RATE + np.arange(1, num_steps + 1)
    ticks = np.minimum(ticks, n - 1)
    q = np.stack([np.interp(ticks, np.arange(n), column) for column in lesson.commands.T], axis=-1).astype(np.float32)
    at = {name: np.asarray(T) for name, T in forward(load_robot(), lesson.commands.astype(np.float32)).items()}
    wrist = np.asarray(forward(load_robot(), q, ("wrist",))["wrist"])
    whole = np.minimum(ticks.round().astype(int), n - 1)
    fingers = np.stack([at[name][:, :3, 3] for name in TIPS])
    aperture = np.linalg.norm(fingers[:3].mean(0) - fingers[3], axis=-1)
    back = np.maximum(np.arange(n) - round(APPROACH * RATE), 0)
    way = at["wrist"][:, :3, 3] - at["wrist"][back, :3, 3]
    length = np.linalg.norm(way, axis=-1, keepdims=True)
    approach = np.where(length > 0.005, way / np.maximum(length, 1e-6), at["wrist"][:, :3, 0])
    lifts = lesson.share > 0
    return ActionLabels(
        commands=q,
        position=wrist[..., :3, 3],
        rotation=wrist[..., :3, :3],
        grasp=grasp_kind(lesson.touch)[whole].astype(np.int32),
        aperture=aperture[whole].astype(np.float32),
        approach=approach[whole].astype(np.float32),
        force=lesson.touch.sum(-1)[whole].astype(np.float32),
        lifts=np.full(len(times), lifts),
        valid=valid & (lifts or not lesson.ycb_id),
    )
