"""Writes generated sequences in the DexYCB layout: colour, segmentation, labels, meta and calibration."""

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import yaml
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from amt import hand as hand_model
from amt.data.layout import SERIALS, SUBJECTS
from amt.data.synthetic import appearance, grasps, motion
from amt.data.synthetic.scene import Scene
from amt.errors import UserError
from amt.geometry import cameras
from amt.robot.render import find_backend

JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """What is generated; two runs with the same values write the same bytes on the same machine."""

    num_sequences: int
    num_subjects: int
    num_frames: int
    num_cameras: int
    width: int
    height: int
    seed: int
    gesture_share: float
    photographs: str

    def check(self) -> None:
        """Raises `UserError` for values that cannot be generated."""
        limits = {"num_subjects": len(SUBJECTS), "num_cameras": len(SERIALS)}
        for name in ("num_sequences", "num_subjects", "num_frames", "num_cameras", "width", "height"):
            value, most = getattr(self, name), limits.get(name, 10**6)
            if not 1 <= value <= most:
                raise UserError(f"config.generate.{name}={value}: expected 1 to {most}")
        if not 0 <= self.gesture_share <= 1:
            raise UserError(f"config.generate.gesture_share={self.gesture_share}: expected 0 to 1")


def generate(config: GeneratorConfig, root: Path, num_workers: int) -> Iterator[str]:
    """Write the data set below `root`, yielding each sequence's name as it is complete.

    A sequence is written aside and renamed when it is whole, so a run that was stopped goes on where it was.
    Raises `UserError` where `root` holds a data set with other settings, and where the machine cannot render.
    """
    config.check()
    backend = find_backend()
    root.mkdir(parents=True, exist_ok=True)
    _claim(config, root)
    _write_intrinsics(config, root)
    missing = [i for i in range(config.num_sequences) if not _folder(config, root, i).exists()]
    jobs = [(config, root, i, backend) for i in missing]
    if num_workers <= 0:
        yield from map(_write_sequence, jobs)
        return
    # A child sets up its own JAX and GL: forked copies of either hang. One thread each: the children are the
    # cores.
    settings = {
        "LP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        "OMP_NUM_THREADS": "1",
    }
    before = {k: os.environ.get(k) for k in settings}
    os.environ.update(settings)
    try:
        with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
            yield from pool.imap_unordered(_write_sequence, jobs)
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.__setitem__(k, v)


def _claim(config: GeneratorConfig, root: Path) -> None:
    path, ours = root / "generator.json", dataclasses.asdict(config)
    if path.exists():
        theirs = json.loads(path.read_text())
        if changed := [k for k in ours if theirs.get(k) != ours[k]]:
            found = ", ".join(f"{k}={theirs.get(k)}" for k in changed)
            raise UserError(f"{root}: holds a data set generated with {found}; choose another --workdir or remove it")
    elif any(root.glob("*-subject-*")):
        raise UserError(f"{root}: holds a data set that this generator did not write; choose another --workdir")
    path.write_text(json.dumps(ours, indent=2) + "\n")


def _subject(config: GeneratorConfig, index: int) -> str:
    return SUBJECTS[index * config.num_subjects // config.num_sequences]


def _folder(config: GeneratorConfig, root: Path, index: int) -> Path:
    subject = _subject(config, index)
    return root / subject / f"{subject[:8]}_{index:06d}"


def _intrinsics(config: GeneratorConfig) -> Float[np.ndarray, "c 3 3"]:
    rng = np.random.default_rng([config.seed, 1_000_003])
    K = np.tile(np.eye(3), (config.num_cameras, 1, 1))
    focal = rng.uniform(590, 640, config.num_cameras) * config.width / 640  # a RealSense D415's, as DexYCB's
    K[:, 0, 0], K[:, 1, 1] = focal, focal * rng.uniform(0.997, 1.003, config.num_cameras)
    K[:, 0, 2] = (config.width - 1) / 2 + rng.normal(0, 0.01 * config.width, config.num_cameras)
    K[:, 1, 2] = (config.height - 1) / 2 + rng.normal(0, 0.01 * config.width, config.num_cameras)
    return K


def _write_intrinsics(config: GeneratorConfig, root: Path) -> None:
    folder = root / "calibration" / "intrinsics"
    folder.mkdir(parents=True, exist_ok=True)
    for serial, K in zip(SERIALS, _intrinsics(config), strict=False):
        color = {"fx": K[0, 0], "fy": K[1, 1], "ppx": K[0, 2], "ppy": K[1, 2]}
        text = yaml.safe_dump({"color": {k: float(v) for k, v in color.items()}})
        (folder / f"{serial}_{config.width}x{config.height}.yml").write_text(text)


def sample_cameras(rng: np.random.Generator, target: Float[np.ndarray, " 3"], n: int) -> Float[np.ndarray, "n 4 4"]:
    """Cameras on a dome that look at `target`, give or take: T_world_camera, OpenCV axes."""
    out = np.tile(np.eye(4), (n, 1, 1))
    for k in range(n):
        elevation, azimuth = rng.uniform(0.0, 1.3), rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.35, 1.0)
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        position = target + direction * distance
        position[2] = max(position[2], 0.06)
        forward = target + rng.normal(0, 0.1 * distance, 3) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward], axis=1)
        out[k, :3, :3] = R @ Rotation.from_euler("z", rng.normal(0, 0.25)).as_matrix()
        out[k, :3, 3] = position
    return out


def _write_sequence(job) -> str:
    config, root, index, backend = job
    rng = np.random.default_rng([config.seed, index])
    hand = hand_model.load()
    betas = np.clip(rng.normal(0, 1, 10), -2, 2)
    played = motion.sample(rng, grasps.HandShape(hand, betas), config.num_frames, config.gesture_share)
    T_world_camera = sample_cameras(rng, played.joints.mean((0, 1)), config.num_cameras)
    K = _intrinsics(config)
    photographs = appearance.load_photographs(config.photographs)
    scene = Scene(rng, hand, played.ycb_ids, K, (config.width, config.height), photographs, backend)
    R_hand_forearm = Rotation.from_rotvec([0, rng.normal(0, 0.25), rng.normal(0, 0.35)]).as_matrix()

    folder = _folder(config, root, index)
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    serials = SERIALS[: config.num_cameras]
    for serial in serials:
        (aside / serial).mkdir(parents=True)
    for n in range(config.num_frames):
        scene.pose(
            played.vertices[n],
            played.global_orient[n],
            played.wrist[n],
            played.object_R[n],
            played.object_t[n],
            R_hand_forearm,
        )
        for c, serial in enumerate(serials):
            rgb, seg = scene.render(c, T_world_camera[c])
            jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            (aside / serial / f"color_{n:06d}.jpg").write_bytes(jpeg.tobytes())
            labels = _labels(hand, betas, played, n, K[c], T_world_camera[c])
            np.savez_compressed(aside / serial / f"labels_{n:06d}.npz", seg=seg, **labels)
    scene.close()
    _write_meta(aside, _subject(config, index), folder.name, played, serials)
    _write_calibration(root, _subject(config, index), folder.name, serials, T_world_camera, betas)
    _write_world_poses(aside, hand, betas, played)
    aside.rename(folder)
    return folder.name


def _labels(hand, betas, played, n, K, T_world_camera) -> dict:
    """One frame's labels in the camera frame: `pose_y`, `pose_m`, `joint_3d`, `joint_2d`."""
    R, t = T_world_camera[:3, :3], T_world_camera[:3, 3]
    joints = (played.joints[n] - t) @ R
    objects = np.concatenate([R.T @ played.object_R[n], (R.T @ (played.object_t[n] - t).T).T[..., None]], -1)
    pose_m = hand_parameters(hand, betas, R.T @ played.global_orient[n], played.hand_pose[n], joints[0])
    return {
        "pose_y": objects.astype(np.float32),
        "pose_m": pose_m[None].astype(np.float32),
        "joint_3d": joints[None].astype(np.float32),
        "joint_2d": cameras.project(joints, K)[None].astype(np.float32),
    }


def hand_parameters(hand, betas, global_orient, hand_pose, wrist) -> Float[np.ndarray, " 51"]:
    """The MANO layout: 3 axis-angle, 45 PCA coefficients, 3 translation, with the wrist joint at `wrist`."""
    axis_angle = Rotation.from_matrix(global_orient).as_rotvec()
    offset = hand_pose.reshape(45) - np.asarray(hand.hands_mean, np.float64)
    pca = offset @ np.linalg.inv(np.asarray(hand.hands_components, np.float64))
    rest = np.asarray(hand.v_template, np.float64) + np.asarray(hand.shapedirs, np.float64) @ betas
    root = np.asarray(hand.J_regressor, np.float64)[0] @ rest
    return np.concatenate([axis_angle, pca, wrist - root])


def _write_meta(folder, subject, name, played, serials) -> None:
    meta = {
        "serials": list(serials),
        "num_frames": len(played.joints),
        "extrinsics": name,
        "ycb_ids": played.ycb_ids,
        "ycb_grasp_ind": max(played.grasped, 0),
        "mano_sides": ["right"],
        "mano_calib": [f"{subject}_{name}_right"],
    }
    if played.grasped < 0:
        meta["bare_hand"] = True  # not in DexYCB: nothing is grasped in this sequence
    (folder / "meta.yml").write_text(yaml.safe_dump(meta, sort_keys=False))


def _write_calibration(root, subject, name, serials, T_world_camera, betas) -> None:
    folder = root / "calibration" / f"extrinsics_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    extrinsics = {s: [float(x) for x in T[:3].ravel()] for s, T in zip(serials, T_world_camera, strict=True)}
    extrinsics["apriltag"] = [float(x) for x in np.eye(4)[:3].ravel()]
    text = yaml.safe_dump({"master": serials[0], "extrinsics": extrinsics})
    (folder / "extrinsics.yml").write_text(text)
    folder = root / "calibration" / f"mano_{subject}_{name}_right"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mano.yml").write_text(yaml.safe_dump({"betas": [float(b) for b in betas]}))


def _write_world_poses(folder, hand, betas, played) -> None:
    n, k = played.object_t.shape[:2]
    quat = Rotation.from_matrix(played.object_R.reshape(-1, 3, 3)).as_quat().reshape(n, k, 4)  # xyzw
    pose_m = [
        hand_parameters(hand, betas, *frame)
        for frame in zip(played.global_orient, played.hand_pose, played.joints[:, 0], strict=True)
    ]
    np.savez_compressed(
        folder / "pose.npz",
        pose_y=np.concatenate([quat, played.object_t], -1).astype(np.float32),
        pose_m=np.stack(pose_m)[:, None].astype(np.float32),
    )
