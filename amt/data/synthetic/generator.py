"""Writes generated sequences in the DexYCB layout: colour, segmentation, labels, meta and calibration.

With simulated grasps also depth, contacts (`amt.data.synthetic.writing`) and the objects' models.
"""

import contextlib
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
from amt import storage
from amt.data.files import read_yaml
from amt.data.hand_labels import HAND
from amt.data.layout import GENERATED, SERIALS, SUBJECTS
from amt.data.synthetic import appearance, crops, grasps, models, motion, physical, writing
from amt.data.synthetic.scene import Look, Scene
from amt.data.ycb import USED_IDS
from amt.errors import UserError
from amt.hand import EMBEDDED_HAND, HandModel
from amt.robot.render import find_backend

JPEG_QUALITY = 92
# Simulated by contact with the objects' models; moved along, with primitives; single views, nothing the same in two.
GRASPS = ("physical", "kinematic", "crops")


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
    grasps: str
    objects: tuple[int, ...] = ()
    hand_model: str = ""  # file of a right-hand model; empty: the embedded one

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The YCB ids that are shown."""
        return tuple(self.objects) or USED_IDS

    @property
    def cameras_each(self) -> int:
        """How many cameras see a sequence: of crops one, whose lens changes from sequence to sequence."""
        return 1 if self.grasps == "crops" else self.num_cameras

    def load_hand(self) -> HandModel:
        """The hand that is shown. Raises `UserError` as `amt.hand.load`."""
        return hand_model.load(self.hand_model or None)

    def check(self) -> None:
        """Raises `UserError` for values that cannot be generated."""
        limits = {"num_subjects": len(SUBJECTS), "num_cameras": len(SERIALS)}
        for name in ("num_sequences", "num_subjects", "num_frames", "num_cameras", "width", "height"):
            value, most = getattr(self, name), limits.get(name, 10**6)
            if not 1 <= value <= most:
                raise UserError(f"config.generate.{name}={value}: expected 1 to {most}")
        if self.grasps not in GRASPS:
            raise UserError(f"config.generate.grasps={self.grasps}: expected {', '.join(GRASPS)}")
        if unknown := sorted(set(self.objects) - set(USED_IDS)):
            raise UserError(f"config.generate.objects: {unknown} are no objects; expected some of {USED_IDS}, or ()")
        if not 0 <= self.gesture_share <= 1:
            raise UserError(f"config.generate.gesture_share={self.gesture_share}: expected 0 to 1")


def generate(config: GeneratorConfig, root: Path, num_workers: int) -> Iterator[str]:
    """Write the data set below `root`, yielding each sequence's name as it is complete.

    A sequence is written aside and renamed when it is whole, so a run that was stopped goes on where it was.
    Raises `UserError` where `root` holds a data set with other settings, and where the machine cannot render.
    """
    config.check()
    backend = find_backend()
    with storage.writing(root):
        root.mkdir(parents=True, exist_ok=True)
        _claim(config, root)
        _remove_halves(root)
        _write_intrinsics(config, root)
        if config.grasps == "physical":
            _write_models(root)
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


def num_complete(config: GeneratorConfig, root: Path) -> int:
    """How many of the sequences are there already, and will not be written again."""
    return sum(_folder(config, root, i).exists() for i in range(config.num_sequences))


def discarded_grasps(root: Path, name: str) -> int:
    """How many simulated grasps failed before the one of a written sequence."""
    (path,) = root.glob(f"*-subject-*/{name}/meta.yml")
    return (read_yaml(path).get("grasp") or {}).get("discarded", 0)


def _write_models(root: Path) -> None:
    """The objects' models, whole or not at all."""
    if (root / "models").exists():
        return
    aside = root / ".models.part"
    shutil.rmtree(aside, ignore_errors=True)
    models.write_models(aside)
    aside.rename(root / "models")


def _claim(config: GeneratorConfig, root: Path) -> None:
    path = root / GENERATED
    before = {"grasps": "kinematic", "objects": [], HAND: EMBEDDED_HAND}  # when there was no choice
    ours = {**dataclasses.asdict(config), "objects": list(config.objects), HAND: config.load_hand().fingerprint}
    del ours["hand_model"]  # may lie elsewhere next time
    try:
        theirs = before | json.loads(path.read_text())
    except (FileNotFoundError, ValueError, TypeError):  # not begun, or cut short by a full disk
        theirs = None
    if theirs is not None:
        if changed := [k for k in ours if theirs.get(k) != ours[k]]:
            found = ", ".join(f"{k}={theirs.get(k)}" for k in changed)
            raise UserError(f"{root}: holds a data set generated with {found}; choose another --workdir or remove it")
    elif any(root.glob("*-subject-*")):
        raise UserError(f"{root}: holds a data set that this generator did not write; choose another --workdir")
    else:
        kept = {k: v for k, v in ours.items() if before.get(k, ...) != v}
        storage.write_whole(path, json.dumps(kept, indent=2) + "\n")


def _remove_halves(root: Path) -> None:
    """What a run that was killed left half-written."""
    for half in (*root.glob("*-subject-*/.*.part"), *root.glob("calibration/*/.*.part")):
        shutil.rmtree(half) if half.is_dir() else half.unlink()


def _subject(config: GeneratorConfig, index: int) -> str:
    return SUBJECTS[index * config.num_subjects // config.num_sequences]


def _folder(config: GeneratorConfig, root: Path, index: int) -> Path:
    subject = _subject(config, index)
    return root / subject / f"{subject[:8]}_{index:06d}"


def _intrinsics(config: GeneratorConfig) -> Float[np.ndarray, "c 3 3"]:
    rng = np.random.default_rng([config.seed, 1_000_003])
    K = np.tile(np.eye(3), (config.num_cameras, 1, 1))
    # A RealSense D415's, as DexYCB's; of crops anything from wide angle to short telephoto.
    shortest, longest = crops.FOCAL if config.grasps == "crops" else (590, 640)
    focal = rng.uniform(shortest, longest, config.num_cameras) * config.width / 640
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
        storage.write_whole(folder / f"{serial}_{config.width}x{config.height}.yml", text)


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
    hand = config.load_hand()
    subject, simulated = _subject(config, index), config.grasps == "physical"
    person = np.random.default_rng([config.seed, 2_000_003, SUBJECTS.index(subject)]) if simulated else rng
    betas = np.clip(person.normal(0, 1, 10), -2, 2)
    K, size, shown = _intrinsics(config), (config.width, config.height), config.object_ids
    serials = SERIALS[: config.num_cameras]
    photographs = appearance.load_photographs(config.photographs)
    amount = config.num_frames, config.gesture_share
    if config.grasps == "crops":
        lens = index % config.num_cameras
        K, serials = K[lens : lens + 1], serials[lens : lens + 1]
        shape = grasps.HandShape(hand, betas, crops.STRIDE)
        played = crops.sample(rng, shape, *amount, shown, K[0], size, left=index // 2 % 2 == 1)
        T_world_camera = crops.T_WORLD_CAMERA[None]
        scene = crops.CropScene(rng, hand, played.ycb_ids, K, size, photographs, backend, played.side)
    else:
        if simulated:
            played = physical.sample(rng, hand, betas, *amount, index, shown)
        else:
            played = motion.sample(rng, grasps.HandShape(hand, betas), *amount, shown)
        T_world_camera = sample_cameras(rng, played.joints.mean((0, 1)), config.num_cameras)
        look = Look(person, played.side) if simulated else None
        scene = Scene(rng, hand, played.ycb_ids, K, size, photographs, backend, look)
    R_hand_forearm = Rotation.from_rotvec([0, rng.normal(0, 0.25), rng.normal(0, 0.35)]).as_matrix()
    if played.side == "left":  # mirrored; a capsule is its own mirror image, the third axis makes it a rotation
        R_hand_forearm = np.diag([-1.0, 1.0, 1.0]) @ R_hand_forearm @ np.diag([1.0, 1.0, -1.0])

    folder = _folder(config, root, index)
    aside = folder.with_name(f".{folder.name}.part")
    with contextlib.closing(scene), contextlib.ExitStack() as last, storage.writing(folder):
        last.callback(shutil.rmtree, aside, ignore_errors=True)
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
                labels = writing.labels(hand, betas, played, n, K[c], T_world_camera[c])
                np.savez_compressed(aside / serial / f"labels_{n:06d}.npz", seg=seg, **labels)
                if simulated:
                    writing.write_depth(aside / serial / f"aligned_depth_to_color_{n:06d}.png", scene.depth())
                    writing.write_contacts(aside / serial / f"contacts_{n:06d}.npz", played, n, T_world_camera[c])
        writing.write_meta(aside, subject, folder.name, played, serials, hand.fingerprint)
        writing.write_calibration(root, subject, folder.name, serials, T_world_camera, betas, played)
        writing.write_world_poses(aside, hand, betas, played)
        aside.rename(folder)
    return folder.name
