"""Demonstrations: what a hand did with an object, in the world, out of the labels of one video."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from amt.data.dexycb import SIMULATED, DexYCB
from amt.data.files import TABLE
from amt.data.synthetic.models import MIRROR_AXIS
from amt.data.synthetic.simulation import DURATION
from amt.errors import UserError
from amt.geometry.mirror import mirror_points, mirror_rotation

FPS = 30.0  # of DexYCB's cameras
LOWEST = -0.05  # metres, of the middle of a hand above the table


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """T frames of a right hand and the object that it grasps, in a world with z up whose table is z = 0.

    Metres and seconds. A left hand is mirrored in the world's plane x = 0 (`mirrored`), its object with it: objects are
    their own mirror images (`MIRROR_AXIS`). `ycb_id` is 0 where nothing is grasped: then the object's pose is the
    identity.
    """

    time: Float[np.ndarray, " T"]
    joints: Float[np.ndarray, "T 21 3"]
    valid: Bool[np.ndarray, " T"]
    object_pos: Float[np.ndarray, "T 3"]
    object_rot: Float[np.ndarray, "T 3 3"]
    ycb_id: int
    mirrored: bool

    def at(self, times: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 3"]]:
        """The object's position and rotation at other times; before the first and after the last it stands."""
        from scipy.spatial.transform import Rotation, Slerp

        times = np.clip(times, self.time[0], self.time[-1])
        position = np.stack([np.interp(times, self.time, column) for column in self.object_pos.T], axis=-1)
        return position, Slerp(self.time, Rotation.from_matrix(self.object_rot))(times).as_matrix()


class Recording(NamedTuple):
    """The samples of one video, in the order of time; where its cameras stand on the table, whose top is z = 0."""

    samples: list[dict[str, Any]]
    times: Float[np.ndarray, " T"]
    T_table_camera: Float[np.ndarray, "T 4 4"]


def frame_rate(meta: dict[str, Any]) -> float:
    """Of a sequence's videos, frames a second."""
    return meta["num_frames"] / DURATION if SIMULATED in meta else FPS


def recording(source: DexYCB, clip: range) -> Recording:
    """One of `source.clips()`. Raises FileError for a sample that cannot be read and where no table is calibrated."""
    meta, samples = source.locate(clip.start)[0].meta, [source[i] for i in clip]
    T_table_world = np.linalg.inv(source.T_world_table(clip).astype(np.float64))
    T = T_table_world @ np.stack([s["T_world_camera"] for s in samples])
    return Recording(samples, np.arange(len(samples)) / frame_rate(meta), T)


def demonstration(recorded: Recording) -> Demonstration:
    """What a recording shows, by its labels.

    Raises UserError where the grasped object's pose is missing in a frame, for fewer than two frames, and where the
    hand lies below the table: then the frame of the tag on it does not have z up.
    """
    samples, T = recorded.samples, recorded.T_table_camera
    if len(samples) < 2:
        raise UserError(f"demonstration: found {len(samples)} frames, expected two or more")
    R, t = T[:, :3, :3], T[:, :3, 3]
    joints = np.stack([s["joints_3d"] for s in samples]) @ np.swapaxes(R, 1, 2) + t[:, None]
    valid = np.array([bool(s["joints_valid"]) for s in samples])
    if valid.any() and (height := np.median(joints[valid, :, 2])) < LOWEST:
        raise UserError(
            f"demonstration: the hand is {-height:.2f} m below the table; expected z up in the frame of {TABLE} in the "
            "calibration's extrinsics.yml"
        )
    slot, ycb_id = int(samples[0]["grasped"]), 0
    position, rotation = np.zeros_like(t), np.tile(np.eye(3), (len(samples), 1, 1))
    if slot >= 0:
        if missing := [k for k, s in enumerate(samples) if not s["object_valid"][slot]]:
            raise UserError(f"demonstration: frame {missing[0]} has no pose of the grasped object")
        ycb_id = int(samples[0]["object_ids"][slot])
        pose = np.stack([s["object_pose"][slot] for s in samples])
        position, rotation = np.einsum("tij,tj->ti", R, pose[..., 3]) + t, R @ pose[..., :3]
    left = bool(samples[0]["is_left"])
    return Demonstration(
        time=recorded.times,
        joints=mirror_points(joints) if left else joints,
        valid=valid,
        object_pos=mirror_points(position) if left else position,
        object_rot=mirrored_object(rotation, ycb_id) if left and ycb_id else rotation,
        ycb_id=ycb_id,
        mirrored=left,
    )


def mirrored_object(rotation: Float[np.ndarray, "*T 3 3"], ycb_id: int) -> Float[np.ndarray, "*T 3 3"]:
    """Of an object that is its own mirror image, in the mirrored world."""
    plane = np.ones(3)
    plane[MIRROR_AXIS[ycb_id]] = -1
    plane[0] *= -1  # `mirror_rotation` is that of a model whose x is negated
    return mirror_rotation(rotation) * plane
