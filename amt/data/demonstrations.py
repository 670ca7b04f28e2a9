"""Demonstrations: what a hand did with an object, in the world, out of the labels of one video."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from amt.data.dexycb import SIMULATED, DexYCB
from amt.data.synthetic.models import MIRROR_AXIS
from amt.data.synthetic.simulation import DURATION
from amt.errors import UserError
from amt.geometry.mirror import mirror_points, mirror_rotation

FPS = 30.0  # of DexYCB's cameras


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


def frame_rate(source: DexYCB, clip: range) -> float:
    """Frames per second of one of `source.clips()`."""
    meta = source.locate(clip.start)[0].meta
    return meta["num_frames"] / DURATION if SIMULATED in meta else FPS


def demonstration(samples: Sequence[dict[str, Any]], fps: float) -> Demonstration:
    """Of the samples of one video (`DexYCB[i]`), in the order of time.

    Raises UserError where the grasped object's pose is missing in a frame, and for fewer than two frames.
    """
    if len(samples) < 2:
        raise UserError(f"demonstration: found {len(samples)} frames, expected two or more")
    T = np.stack([s["T_world_camera"] for s in samples]).astype(np.float64)
    R, t = T[:, :3, :3], T[:, :3, 3]
    joints = np.stack([s["joints_3d"] for s in samples]) @ np.swapaxes(R, 1, 2) + t[:, None]
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
        time=np.arange(len(samples)) / fps,
        joints=mirror_points(joints) if left else joints,
        valid=np.array([bool(s["joints_valid"]) for s in samples]),
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
