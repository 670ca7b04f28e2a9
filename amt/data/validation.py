"""What is wrong in a data set in the DexYCB layout, by kind: every file is opened, every label looked at."""

import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amt.data import contacts, files
from amt.data.dexycb import COMPLETE, COUNTED, SIMULATED, Sequence, list_sequences, wrong_counts
from amt.data.files import Calibration, FileError
from amt.data.images import decode
from amt.data.layout import GENERATED
from amt.data.objects import object_surface
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.geometry import cameras

ERRORS = (
    "missing file",
    "broken file",
    "unreadable image",
    "empty sequence",
    "wrong meta",
    "wrong shape",
    "not finite",
    "wrong projection",
    "wrong units",
    "identity pose",
    "not a rotation",
    "wrong hand model",
)
WARNINGS = (
    "labels of another hand",
    "incomplete subject",
    "missing depth",
    "incomplete label",
    "unknown segment",
    "doubtful world poses",
    "left-over file",
)
FIRST = 5  # paths kept of each kind

PROJECTION_PX = 2.0  # between joint_2d and joint_3d through K; DexYCB's agree to rounding
PALM = (0.03, 0.2)  # metres from wrist to middle knuckle that a hand can have
FAR = 10.0  # metres: nothing a camera looks at here is farther away
MODEL_SIZE = (0.25, 4.0)  # times the size in the table that a model can have
WRIST, MIDDLE_KNUCKLE = 0, 9


class Report:
    """Counts of findings by kind and the first few of each, over `frames` camera frames."""

    def __init__(self):
        self.counts: dict[str, int] = {}
        self.first: dict[str, list[str]] = {}
        self.frames = 0

    def add(self, kind: str, path: Path, detail: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(first := self.first.setdefault(kind, [])) < FIRST:
            first.append(f"{path}: {detail}")

    def add_error(self, error: FileError) -> None:
        """A file that cannot be read."""
        self.add("missing file" if error.reason.startswith("not there") else "broken file", error.path, error.reason)

    def merge(self, other: "Report") -> None:
        """Adds another part's findings behind these."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.first[kind] = (self.first.get(kind, []) + other.first[kind])[:FIRST]
        self.frames += other.frames

    def count(self, kinds: tuple[str, ...]) -> int:
        return sum(self.counts.get(kind, 0) for kind in kinds)


class View(NamedTuple):
    """What calibration says of a camera: `K` in pixels and the image's (width, height)."""

    K: np.ndarray
    size: tuple[int, int]


class Survey(NamedTuple):
    """A data set before its frames are opened: findings so far, the sequences, the cameras that can be used."""

    report: Report
    sequences: list[tuple[Path, dict[str, Any]]]
    views: dict[str, View]

    @property
    def num_frames(self) -> int:
        return sum(meta["num_frames"] * len(meta["serials"]) for _, meta in self.sequences)


def survey(root: Path) -> Survey:
    """Reads meta, calibration and models. Raises: UserError for a folder without sequences."""
    report, sequences, calibration = Report(), [], Calibration(root)
    listed = [Sequence(*found, {}) for found in list_sequences(root)]
    if not (root / GENERATED).exists():
        for subject, count in wrong_counts(listed).items():
            found = f"{count} sequence folders; the splits {' and '.join(COUNTED)} count {COMPLETE}"
            report.add("incomplete subject", root / subject, found)
    for folder in (sequence.folder for sequence in listed):
        try:
            meta = files.read_meta(folder / "meta.yml")
        except FileError as error:
            if any(folder.iterdir()):
                report.add_error(error)
            else:
                report.add("empty sequence", folder, "an empty folder")
            continue
        if not meta["num_frames"] or not meta["serials"]:
            found = f"{meta['num_frames']} frames of {len(meta['serials'])} cameras"
            report.add("empty sequence", folder, found)
            continue
        _check_meta(report, folder / "meta.yml", meta)
        sequences.append((folder, meta))
    views = _check_cameras(report, calibration, [meta for _, meta in sequences])
    _check_shapes(report, calibration, [meta for _, meta in sequences])
    _check_models(report, root, {i for _, meta in sequences for i in meta["ycb_ids"]})
    return Survey(report, sequences, views)


def check_sequences(found: Survey, num_workers: int) -> Iterator[Report]:
    """Opens the frames, one report a sequence, in order; 0 workers read in this process."""
    jobs = [(folder, meta, found.views) for folder, meta in found.sequences]
    if num_workers <= 0:
        yield from map(_check_sequence, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        yield from pool.imap(_check_sequence, jobs)


def _check_meta(report: Report, path: Path, meta: dict[str, Any]) -> None:
    ids, grasped = meta["ycb_ids"], meta["ycb_grasp_ind"]
    if unknown := [i for i in ids if i not in OBJECTS]:
        report.add("wrong meta", path, f"ycb_ids has {unknown}; expected 1 to {max(OBJECTS)}")
    if ids and not (isinstance(grasped, int) and 0 <= grasped < len(ids)):
        report.add("wrong meta", path, f"ycb_grasp_ind is {grasped!r} of {len(ids)} objects")
    if meta["mano_sides"][0] not in ("left", "right"):
        report.add("wrong meta", path, f"mano_sides is {meta['mano_sides']}; expected left or right")


def _check_cameras(report: Report, calibration: Calibration, metas: list[dict]) -> dict[str, View]:
    views = {}
    for serial in sorted({serial for meta in metas for serial in meta["serials"]}):
        path = calibration.intrinsics_path(serial)
        try:
            K = calibration.intrinsics(serial).astype(np.float64)
        except FileError as error:
            report.add_error(error)
            continue
        width, height = (int(n) for n in re.search(r"_(\d+)x(\d+)\.yml$", path.name).groups())
        if not 0.2 * width < K[0, 0] < 20 * width:
            report.add("wrong units", path, f"fx is {K[0, 0]:.4g} for {width} pixels; expected pixels")
        views[serial] = View(K, (width, height))
    for path, (meta, serials) in _used_extrinsics(calibration, metas).items():
        still = []
        for serial in serials:
            try:
                T = calibration.extrinsics(serial, meta).astype(np.float64)
            except FileError as error:
                report.add_error(error)
                continue
            if (np.eye(4) == T).all():
                still.append(serial)
            if not _is_rotation(T[:3, :3]):
                report.add("not a rotation", path, f"the rotation of {serial} is none")
            if np.linalg.norm(T[:3, 3]) > FAR:
                report.add("wrong units", path, f"{serial} stands {np.linalg.norm(T[:3, 3]):.4g} m from the world")
        if len(still) > 1:  # one camera may well be the world
            report.add("identity pose", path, f"{', '.join(still)} all stand where the world does")
    return views


def _used_extrinsics(calibration: Calibration, metas: list[dict]) -> dict[Path, tuple[dict, list[str]]]:
    used: dict[Path, tuple[dict, set[str]]] = {}
    for meta in metas:
        used.setdefault(calibration.extrinsics_path(meta), (meta, set()))[1].update(meta["serials"])
    return {path: (meta, sorted(serials)) for path, (meta, serials) in used.items()}


def _check_shapes(report: Report, calibration: Calibration, metas: list[dict]) -> None:
    for meta in {meta["mano_calib"][0]: meta for meta in metas}.values():
        try:
            calibration.betas(meta)
        except FileError as error:
            report.add_error(error)


def _check_models(report: Report, root: Path, ids: set[int]) -> None:
    for ycb_id in sorted(ids & set(OBJECTS)):
        folder = root / "models" / OBJECTS[ycb_id].name
        if not folder.is_dir():
            continue  # sizes come from the table
        try:
            points = object_surface(root, ycb_id).points
        except FileError as error:
            report.add_error(error)
            continue
        ratio = np.ptp(points, axis=0).max() / (2 * OBJECTS[ycb_id].primitive.half.max())
        if not MODEL_SIZE[0] < ratio < MODEL_SIZE[1]:
            report.add("wrong units", folder, f"the model is {ratio:.4g} times as large as {OBJECTS[ycb_id].name}")


def _check_sequence(job: tuple[Path, dict[str, Any], dict[str, View]]) -> Report:
    folder, meta, views = job
    report = Report()
    for serial in meta["serials"]:
        report.frames += meta["num_frames"]
        if not (folder / serial).is_dir():
            report.add("missing file", folder / serial, f"not there, with its {meta['num_frames']} frames")
            continue
        names = {path.name for path in (folder / serial).iterdir()}
        kinds = {"color_": ".jpg", "labels_": ".npz", "aligned_depth_to_color_": ".png"}
        if SIMULATED in meta:
            kinds["contacts_"] = ".npz"
        expected = {f"{kind}{n:06d}{end}" for kind, end in kinds.items() for n in range(meta["num_frames"])}
        for name in sorted(names - expected):
            if name.startswith(tuple(kinds)):
                report.add("left-over file", folder / serial / name, f"num_frames is {meta['num_frames']}")
        has_depth = any(name.startswith("aligned_depth") for name in names)
        for frame in range(meta["num_frames"]):
            size = _check_images(report, folder / serial, frame, views.get(serial), has_depth)
            _check_labels(report, folder / serial / f"labels_{frame:06d}.npz", meta, views.get(serial), size)
            if SIMULATED in meta:
                _check_contacts(report, folder / serial / f"contacts_{frame:06d}.npz", meta["ycb_ids"])
    _check_world_poses(report, folder / "pose.npz", meta)
    return report


def _check_images(report, folder: Path, frame: int, view: View | None, has_depth: bool) -> tuple[int, int] | None:
    """The width and height that a frame has by its calibration, else by its colour image, if it can be read."""
    size = view.size if view else None
    path = folder / f"color_{frame:06d}.jpg"
    try:
        found = decode(files.read_bytes(path)).shape[1::-1]
        size = size or found
        if found != size:
            report.add("wrong shape", path, f"{found[0]}x{found[1]}; calibration says {size[0]}x{size[1]}")
    except FileError as error:
        report.add_error(error)
    except UserError as error:
        report.add("unreadable image", path, str(error))
    if has_depth:
        path = folder / f"aligned_depth_to_color_{frame:06d}.png"
        if not path.exists():
            report.add("missing depth", path, "not there, but other frames have it")
            return size
        try:
            depth = files.read_depth(path)
            if size and depth.shape[::-1] != size:
                report.add("wrong shape", path, f"{depth.shape[1]}x{depth.shape[0]}; expected {size[0]}x{size[1]}")
        except FileError as error:
            report.add("unreadable image", path, error.reason)
    return size


def _check_labels(report, path: Path, meta: dict[str, Any], view: View | None, size: tuple[int, int] | None) -> None:
    try:
        arrays = files.read_arrays(path, ("pose_y", "pose_m", "joint_3d", "joint_2d", "seg"))
    except FileError as error:
        report.add_error(error)
        return
    for kind, problems in (
        ("wrong shape", files.shape_problems(arrays, len(meta["ycb_ids"]))),
        ("not finite", files.nan_problems(arrays) if all(a.dtype.kind in "fiu" for a in arrays.values()) else []),
    ):
        for problem in problems:
            report.add(kind, path, problem)
        if problems:
            return
    if size and arrays["seg"].shape != size[::-1]:
        report.add("wrong shape", path, f"seg is {arrays['seg'].shape}; expected {size[::-1]}")
    strange = set(np.flatnonzero(np.bincount(arrays["seg"].ravel()))) - {0, 255, *meta["ycb_ids"]}
    if strange:
        report.add("unknown segment", path, f"seg has {sorted(map(int, strange))}; the objects are {meta['ycb_ids']}")
    joints_3d, joints_2d = arrays["joint_3d"].reshape(21, 3), arrays["joint_2d"].reshape(21, 2)
    _check_hand(report, path, joints_3d.astype(np.float64), joints_2d, arrays["pose_m"].ravel(), view)
    _check_objects(report, path, arrays["pose_y"].astype(np.float64), meta["ycb_ids"])


def _check_contacts(report: Report, path: Path, ids: list[int]) -> None:
    try:
        arrays = contacts.read_contact_file(path)
    except FileError as error:
        report.add_error(error)
        return
    if problems := contacts.contact_shape_problems(arrays):
        report.add("wrong shape", path, problems[0])
        return
    for problem in files.nan_problems(arrays):
        report.add("not finite", path, problem)
    if strange := set(arrays["object"].tolist()) - set(ids):
        report.add("wrong shape", path, f"object has {sorted(strange)}; the objects are {ids}")
    if np.linalg.norm(arrays["points"], axis=-1).max(initial=0) > FAR:
        report.add("wrong units", path, "a point is farther than 10 m; expected metres")


def _check_hand(report, path: Path, joints_3d, joints_2d, pose_m, view: View | None) -> None:
    has_joints, has_pose = not (joints_3d == -1).all(), bool(pose_m.any())
    if has_joints != has_pose:
        found = "joints without pose_m" if has_joints else "pose_m without joints"
        report.add("incomplete label", path, found)
    if has_pose and not pose_m[:3].any():
        report.add("identity pose", path, "the hand's orientation in pose_m is exactly 0")
    if not has_joints:
        return
    palm = np.linalg.norm(joints_3d[MIDDLE_KNUCKLE] - joints_3d[WRIST])
    far = np.abs(joints_3d).max()
    if not PALM[0] < palm < PALM[1] or far > FAR:
        found = f"joint_3d: wrist to middle knuckle {palm:.4g}, {far:.4g} from the camera"
        report.add("wrong units", path, f"{found}; expected metres")
    elif has_pose and np.abs(pose_m[48:]).max(initial=0) > FAR:
        report.add("wrong units", path, f"pose_m: {np.abs(pose_m[48:]).max():.4g} from the camera; expected metres")
    if joints_3d[:, 2].min() <= 0:
        report.add("wrong projection", path, "joint_3d lies behind the camera")
    elif view:
        off = np.linalg.norm(cameras.project(joints_3d, view.K) - joints_2d, axis=-1).max()
        if off > PROJECTION_PX:
            report.add("wrong projection", path, f"joint_3d through K is up to {off:.1f} px off joint_2d")


def _check_objects(report, path: Path, poses, ids: list[int]) -> None:
    for pose, ycb_id in zip(poses, ids, strict=True):
        R, t = pose[:, :3], pose[:, 3]
        if not pose.any():
            continue  # DexYCB's way to say that there is no label
        if (np.eye(3) == R).all():
            report.add(
                "identity pose", path, f"pose_y of object {ycb_id} is {'not moved' if not t.any() else 'not turned'}"
            )
        elif not _is_rotation(R):
            report.add("not a rotation", path, f"the rotation in pose_y of object {ycb_id} is none")
        if np.linalg.norm(t) > FAR:
            report.add("wrong units", path, f"pose_y: object {ycb_id} is {np.linalg.norm(t):.4g} away; expected metres")


def _is_rotation(R) -> bool:
    return bool(np.abs(R @ R.T - np.eye(3)).max() < 1e-3 and np.linalg.det(R) > 0)


def _check_world_poses(report: Report, path: Path, meta: dict[str, Any]) -> None:
    n, k = meta["num_frames"], len(meta["ycb_ids"])
    try:
        arrays = files.read_arrays(path, ("pose_y", "pose_m"))
    except FileError as error:
        report.add("doubtful world poses", path, error.reason)
        return
    for name, shape in {"pose_y": (n, k, 7), "pose_m": (n, 1, 51)}.items():
        if arrays[name].shape != shape:
            report.add("doubtful world poses", path, f"{name} is {arrays[name].shape}; expected {shape}")
        elif not np.isfinite(arrays[name]).all():
            report.add("doubtful world poses", path, f"{name} has values that are not finite")
