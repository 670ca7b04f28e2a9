"""The label, meta and calibration files of a generated sequence, in the DexYCB layout and beside it.

Beside it, for simulated grasps, in a camera's folder: `contacts_%06d.npz` holds the contacts of the hand with objects
at that frame, in that camera's frame (OpenCV axes): `points` [n,3] metres, `normals` [n,3] unit, out of the object,
`forces` [n,3] newtons, what the hand does to the object, `body` [n] the joint (of the 16, MANO order) whose flesh
touches, `object` [n] the YCB id, `kind` [n] 1 light, 2 firm, 3 manipulation (`amt.data.contacts.contact_kinds`, by the
object's way from the frame before to the frame after). A resting table's forces are not among them.

A bare hand has `bare_hand: true` in its `meta.yml`. DexYCB's toolkit knows no such sequence: it calls
`ycb_ids[ycb_grasp_ind]` grasped and scores it (`grasp_only`). So that is an object which is nowhere: 19, which DexYCB
never shows, the last of `ycb_ids`, without a pose in any label.
"""

from pathlib import Path

import cv2
import numpy as np
import yaml
from jaxtyping import Float, UInt16
from scipy.spatial.transform import Rotation

from amt.data.contacts import contact_kinds
from amt.data.hand_labels import HAND
from amt.data.synthetic import simulation
from amt.data.ycb import OBJECTS, UNUSED_ID
from amt.geometry import cameras
from amt.storage import write_whole

MIRROR = np.array([-1.0, 1.0, 1.0])  # the left model is the right one, mirrored in x


def labels(hand, betas, played, n, K, T_world_camera) -> dict:
    """One frame's labels in the camera frame: `pose_y`, `pose_m`, `joint_3d`, `joint_2d`."""
    R, t = T_world_camera[:3, :3], T_world_camera[:3, 3]
    joints = (played.joints[n] - t) @ R
    objects = np.concatenate([R.T @ played.object_R[n], (R.T @ (played.object_t[n] - t).T).T[..., None]], -1)
    nowhere = np.zeros((len(_listed(played)) - len(objects), 3, 4))
    pose_m = hand_parameters(hand, betas, R.T @ played.global_orient[n], played.hand_pose[n], joints[0], played.side)
    return {
        "pose_y": np.concatenate([objects, nowhere]).astype(np.float32),
        "pose_m": pose_m[None].astype(np.float32),
        "joint_3d": joints[None].astype(np.float32),
        "joint_2d": cameras.project(joints, K)[None].astype(np.float32),
    }


def hand_parameters(hand, betas, global_orient, hand_pose, wrist, side) -> Float[np.ndarray, " 51"]:
    """The MANO layout: 3 axis-angle, 45 PCA coefficients, 3 translation, with the wrist joint at `wrist`.

    Of a left hand: those of the left model, which is the right one mirrored, with the same coefficients.
    """
    axis_angle = Rotation.from_matrix(global_orient).as_rotvec()
    offset = hand_pose.reshape(45) - np.asarray(hand.hands_mean, np.float64)
    pca = offset @ np.linalg.inv(np.asarray(hand.hands_components, np.float64))
    rest = np.asarray(hand.v_template, np.float64) + np.asarray(hand.shapedirs, np.float64) @ betas
    root = np.asarray(hand.J_regressor, np.float64)[0] @ rest
    return np.concatenate([axis_angle, pca, wrist - (root * MIRROR if side == "left" else root)])


def hand_name(subject, name, played) -> str:
    """The calibration of the hand: in simulated sequences a subject's, else every sequence's own."""
    return f"{subject}_{name}_right" if played.grasp is None else f"{subject}_{played.side}"


def _listed(played) -> list[int]:
    """The sequence's `ycb_ids`; those of a bare hand end with one that is nowhere."""
    if played.grasped >= 0:
        return played.ycb_ids
    return [*played.ycb_ids, next(i for i in (UNUSED_ID, *OBJECTS) if i not in played.ycb_ids)]


def write_meta(folder, subject, name, played, serials, hand: str) -> None:
    meta = {
        "serials": list(serials),
        "num_frames": len(played.joints),
        "extrinsics": name,
        "ycb_ids": _listed(played),
        "ycb_grasp_ind": played.grasped if played.grasped >= 0 else len(played.ycb_ids),
        "mano_sides": [played.side],
        "mano_calib": [hand_name(subject, name, played)],
        HAND: hand,
    }
    if played.grasp is not None:
        meta["grasp"] = played.grasp  # not in DexYCB: how the object is held, and the grasps that failed before
    if played.grasped < 0:
        meta["bare_hand"] = True  # not in DexYCB: nothing is grasped in this sequence
    (folder / "meta.yml").write_text(yaml.safe_dump(meta, sort_keys=False))


def write_calibration(root, subject, name, serials, T_world_camera, betas, played) -> None:
    folder = root / "calibration" / f"extrinsics_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    extrinsics = {s: [float(x) for x in T[:3].ravel()] for s, T in zip(serials, T_world_camera, strict=True)}
    extrinsics["apriltag"] = [float(x) for x in np.eye(4)[:3].ravel()]
    text = yaml.safe_dump({"master": serials[0], "extrinsics": extrinsics})
    write_whole(folder / "extrinsics.yml", text)
    folder = root / "calibration" / f"mano_{hand_name(subject, name, played)}"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "mano.yml", yaml.safe_dump({"betas": [float(b) for b in betas]}))


def write_depth(path: Path, depth: UInt16[np.ndarray, "h w"]) -> None:
    """A PNG of millimetres, as DexYCB's `aligned_depth_to_color_%06d.png`."""
    path.write_bytes(cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def write_contacts(path: Path, played, n: int, T_world_camera: Float[np.ndarray, "4 4"]) -> None:
    """One frame's contacts in the camera frame, as the module's docstring says."""
    contacts, R = played.contacts[n], T_world_camera[:3, :3]
    first, last = max(n - 1, 0), min(n + 1, len(played.contacts) - 1)
    before, after, now = (
        np.concatenate([played.object_R[k], played.object_t[k][..., None]], -1)[contacts.object]
        for k in (first, last, n)
    )
    seconds = (last - first) * simulation.DURATION / len(played.contacts)
    np.savez(
        path,
        points=((contacts.points - T_world_camera[:3, 3]) @ R).astype(np.float32),
        normals=(contacts.normals @ R).astype(np.float32),
        forces=(contacts.forces @ R).astype(np.float32),
        body=contacts.body,
        object=np.array(played.ycb_ids, np.int32)[contacts.object],
        kind=contact_kinds(contacts.points, contacts.forces, before, after, now, seconds),
    )


def write_world_poses(folder, hand, betas, played) -> None:
    n, k = played.object_t.shape[:2]
    nowhere = np.tile([0, 0, 0, 1, 0, 0, 0], (n, len(_listed(played)) - k, 1))  # the toolkit's mark of no pose
    quat = Rotation.from_matrix(played.object_R.reshape(-1, 3, 3)).as_quat().reshape(n, k, 4)  # xyzw
    pose_m = [
        hand_parameters(hand, betas, *frame, played.side)
        for frame in zip(played.global_orient, played.hand_pose, played.joints[:, 0], strict=True)
    ]
    np.savez_compressed(
        folder / "pose.npz",
        pose_y=np.concatenate([np.concatenate([quat, played.object_t], -1), nowhere], 1).astype(np.float32),
        pose_m=np.stack(pose_m)[:, None].astype(np.float32),
    )
