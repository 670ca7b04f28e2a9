"""How often does the robot lift what the human lifted? Commands of several origins, played in MuJoCo C."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from amt.data.demonstrations import Demonstration
from amt.geometry.mirror import mirror_points
from amt.models.temporal import Observation
from amt.robot import forward, load_robot
from amt.robot.model import NUM_JOINTS
from amt.training import teacher
from amt.training.lessons import Lesson

Z95 = 1.96  # standard deviations of a normal distribution on either side of 95% of it


def trial(commands: Float[np.ndarray, "n 22"], lesson: Lesson) -> dict[str, float]:
    """Figures of one replay with the lesson's object, all contacts and MuJoCo's own solver.

    lifted: 1 if it is `teacher.RAISED` throughout the last `teacher.HOLD`. object_position_mm: mean distance of the
    object from the human's; wrist_mm, tips_mm: of what the commands ask for from the lesson's. peak_force_n: the
    strongest contact. slip_mm: how far the object moves in the wrist's frame during the hold, NaN unless lifted.
    effort_rad2: mean square of command minus joint angle.
    """
    placed = lesson.placed
    played = teacher.play(commands, placed)
    held = teacher.lifted(played, placed)
    objects = played.state[:, NUM_JOINTS : NUM_JOINTS + 3]
    off = teacher.frame_errors(commands, lesson.commands)
    return {
        "lifted": float(held),
        "object_position_mm": 1e3 * float(np.linalg.norm(objects - lesson.object_pos, axis=-1).mean()),
        "wrist_mm": 1e3 * float(off["wrist"].mean()),
        "tips_mm": 1e3 * float(off["tips"].mean()),
        "peak_force_n": float(played.peak_force.max()),
        "slip_mm": 1e3 * _slip(played, objects) if held else float("nan"),
        "effort_rad2": float((played.tracking_error**2).mean()),
    }


def as_predicted(
    shown: Demonstration,
    joints: Float[np.ndarray, "T 21 3"],
    valid: Bool[np.ndarray, " T"],
    T_table_camera: Float[np.ndarray, "T 4 4"],
) -> Demonstration:
    """The demonstration with a predicted hand (camera frame) in place of the true one."""
    world = joints @ np.swapaxes(T_table_camera[:, :3, :3], 1, 2) + T_table_camera[:, None, :3, 3]
    return dataclasses.replace(shown, joints=mirror_points(world) if shown.mirrored else world, valid=valid)


def sight(seen: Observation, shown: Demonstration, T_base_world: Float[np.ndarray, "4 4"]) -> dict[str, float]:
    """How far off is what a policy was given of a video [t,...], means over the frames in which it is seen.

    joints_mm and object_mm are distances in the base frame, joints_from_wrist_mm is without the wrist's.
    """
    R, t = T_base_world[:3, :3], T_base_world[:3, 3]
    valid = np.asarray(seen.valid) & shown.valid
    off = np.asarray(seen.joints)[valid] - (shown.joints[valid] @ R.T + t)
    thing = np.asarray(seen.object_position)[valid] - (shown.object_pos[valid] @ R.T + t)
    return {
        "joints_mm": 1e3 * float(np.linalg.norm(off, axis=-1).mean()),
        "joints_from_wrist_mm": 1e3 * float(np.linalg.norm(off - off[:, :1], axis=-1).mean()),
        "object_mm": 1e3 * float(np.linalg.norm(thing, axis=-1).mean()),
    }


def summary(trials: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Means over trials by origin, as ORIGIN_NAME; of the share that lifts also its 95% interval (Wilson 1927)."""
    figures = {}
    for origin, rows in trials.items():
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            key = "lift_share" if name == "lifted" else name
            figures[f"{origin}_{key}"] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
        low, high = wilson(sum(row["lifted"] for row in rows), len(rows))
        figures |= {f"{origin}_lift_share_low": low, f"{origin}_lift_share_high": high}
    return figures


def wilson(count: float, total: int) -> tuple[float, float]:
    """95% interval of a share."""
    p, z2 = count / total, Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 * np.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def _slip(played, objects: Float[np.ndarray, "n 3"]) -> float:
    first = -round(teacher.HOLD * teacher.RATE)
    wrist = np.asarray(forward(load_robot(), played.qpos.astype(np.float32), ("wrist",))["wrist"], np.float64)
    local = np.einsum("tji,tj->ti", wrist[:, :3, :3], objects - wrist[:, :3, 3])
    return float(np.linalg.norm(local[-1] - local[first]))
