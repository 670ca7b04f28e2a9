"""6D object poses: `scene_id,im_id,obj_id,score,R,t,time`, millimetres, time -1; targets are every fourth frame.

Source: https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/bop_eval.py) and
https://github.com/thodan/bop_toolkit (scripts/eval_calc_errors.py, eval_calc_scores.py, bop_toolkit_lib/pose_error.py).
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from amt.data.dexycb import DexYCB
from amt.data.files import FileError, describe
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.evaluation.official.bop_models import BopModel, load_model
from amt.evaluation.official.ids import KEYFRAME, bop_ids, check_unit, counts, image_size, numbers, read_text
from amt.evaluation.official.vsd import vsd

HEADER = "scene_id,im_id,obj_id,score,R,t,time"
THRESHOLDS = np.arange(0.05, 0.51, 0.05)  # MSSD: of the diameter; VSD: of the visible surface
PIXELS = np.arange(5, 51, 5)  # MSPD, in an image 640 wide

Target = tuple[int, int, int]  # scene, image, object


class Estimate(NamedTuple):
    """An object's pose [R|t] in the camera frame, millimetres, in the frame of DexYCB's models."""

    score: float
    pose: Float64[np.ndarray, "3 4"]


class Errors(NamedTuple):
    """Of one target: MSSD over the diameter, MSPD in pixels of an image 640 wide, VSD for every tolerance.

    A target without an estimate has infinite errors.
    """

    ycb_id: int
    grasped: bool
    mssd: float
    mspd: float
    vsd: Float64[np.ndarray, " 10"]


def line(target: Target, score: float, pose: Float[np.ndarray, "3 4"]) -> str:
    """The file's line for one object; `pose` in metres."""
    R, t = (" ".join(f"{x:.9g}" for x in part.ravel().tolist()) for part in (pose[:, :3], pose[:, 3] * 1000.0))
    return f"{','.join(map(str, target))},{score:.9g},{R},{t},-1\n"


def read(path: Path, source: DexYCB) -> dict[Target, Estimate]:
    """The estimates, of several for one object the one with the highest score, the first of equal ones.

    Raises: UserError for a file that cannot be read, a line of another form, a number that is none or is not finite,
    a frame that the part does not have, and metres.
    """
    ids = bop_ids(source)
    known = set(zip(ids.scene.tolist(), ids.image.tolist(), strict=True))
    found: dict[Target, Estimate] = {}
    for number, text in enumerate(read_text(path).splitlines(), 1):
        if number == 1 and HEADER in text:
            continue
        where = f"{path}: line {number}"
        values = text.split(",")
        if len(values) != 7:
            raise UserError(f"{where}: {len(values)} values; expected 7: {HEADER}")
        scene, image, ycb_id = counts(values[:3], HEADER.split(",")[:3], where)
        if (scene, image) not in known:
            raise UserError(f"{where}: scene {scene} has no image {image} in {source}; is it another split's file?")
        if ycb_id not in OBJECTS:
            raise UserError(f"{where}: obj_id {ycb_id}; expected 1 to {max(OBJECTS)}")
        R, t = values[4].split(), values[5].split()
        if len(R) != 9 or len(t) != 3:
            raise UserError(f"{where}: {len(R)} values in R and {len(t)} in t; expected 9 and 3, with spaces between")
        score, *pose = numbers([values[3], *R, *t], where)
        if not np.isfinite([score, *pose]).all():
            raise UserError(f"{where}: values that are not finite; leave out an object that has no pose")
        target = scene, image, ycb_id
        if target not in found or score > found[target].score:
            found[target] = Estimate(score, np.concatenate([np.reshape(pose[:9], (3, 3)), np.c_[pose[9:]]], -1))
    if not found:
        raise UserError(f"{path}: no estimates; expected lines of {HEADER}")
    check_unit(path, np.linalg.norm([estimate.pose[:, 3] for estimate in found.values()], axis=-1))
    return found


def score(path: Path, source: DexYCB, with_vsd: bool, report: Callable[[int], None]) -> dict:
    """The toolkit's average recalls in percent, of all targets, of the grasped objects, and by object.

    An object without an estimate is a miss, as in the toolkit. Raises: UserError as `read`, and where no estimate is
    of a target.
    """
    estimates = read(path, source)
    errors = list(target_errors(estimates, source, with_vsd, report))
    if not errors:
        raise UserError(f"{source}: no labelled object in every fourth frame of its videos; nothing to score")
    missing = sum(bool(np.isinf(e.mssd)) for e in errors)
    if missing == len(errors):
        raise UserError(
            f"{path}: none of its {len(estimates)} estimates is of the {len(errors)} targets of {source}; "
            "expected the objects of every fourth frame of a video"
        )
    objects = sorted({e.ycb_id for e in errors})
    kinds = ("mssd", "mspd", "vsd") if with_vsd else ("mssd", "mspd")
    return {
        "targets": len(errors),
        "targets_missing": missing,
        "all": _recalls(errors, kinds),
        "grasp_only": _recalls([e for e in errors if e.grasped], kinds),
        "by_object": {OBJECTS[i].name: _recalls([e for e in errors if e.ycb_id == i], kinds) for i in objects},
    }


def target_errors(
    estimates: dict[Target, Estimate], source: DexYCB, with_vsd: bool, report: Callable[[int], None]
) -> Iterable[Errors]:
    """Errors of every target: the labelled objects of the keyframes, those of the official list where it is there."""
    ids, official, models = bop_ids(source), read_targets(source), {}
    scale = 640 / image_size(source)[0]
    for i in range(len(source)):
        report(1)
        if ids.image[i] % KEYFRAME:
            continue
        sample, depth = source.labels(i), None
        K = sample["K"].astype(np.float64)
        for slot in np.flatnonzero(sample["object_valid"]):
            target = int(ids.scene[i]), int(ids.image[i]), int(sample["object_ids"][slot])
            if official is not None and target not in official:
                continue
            ycb_id, grasped = target[2], bool(slot == sample["grasped"])
            if target not in estimates:
                yield Errors(ycb_id, grasped, np.inf, np.inf, np.ones(len(THRESHOLDS)))
                continue
            if ycb_id not in models:
                models[ycb_id] = load_model(source, ycb_id)
            model, truth = models[ycb_id], sample["object_pose"][slot].astype(np.float64)
            truth[:, 3] *= 1000
            ours, theirs = (in_model(pose, model) for pose in (estimates[target].pose, truth))
            hidden = np.ones(len(THRESHOLDS))
            if with_vsd:
                if model.mesh is None:
                    raise UserError(f"{OBJECTS[ycb_id].name}: a cloud of points; VSD needs textured_simple.obj")
                depth = source.depth(i) * 1000 if depth is None else depth
                hidden = vsd(ours, theirs, model.mesh, model.diameter, depth, K)
            yield Errors(
                ycb_id,
                grasped,
                mssd(ours, theirs, model) / model.diameter,
                scale * mspd(ours, theirs, model, K),
                hidden,
            )


def mssd(pose: Float64[np.ndarray, "3 4"], truth: Float64[np.ndarray, "3 4"], model: BopModel) -> float:
    """Maximum symmetry-aware surface distance, millimetres."""

    def gaps(points, symmetries):
        apart = pose - _symmetric(truth, symmetries)  # the difference of two poses is linear in the point
        return _squares(apart[..., :3] @ points.T + apart[..., 3:])

    return _least_maximum(gaps, model)


def mspd(
    pose: Float64[np.ndarray, "3 4"], truth: Float64[np.ndarray, "3 4"], model: BopModel, K: Float64[np.ndarray, "3 3"]
) -> float:
    """Maximum symmetry-aware projection distance, pixels; points behind the camera as they come, as in the toolkit."""

    def gaps(points, symmetries):
        return _squares(_pixels(pose, points, K) - _pixels(_symmetric(truth, symmetries), points, K))

    with np.errstate(divide="ignore", invalid="ignore"):
        return _least_maximum(gaps, model)


def read_targets(source: DexYCB) -> set[Target] | None:
    """The official list of targets, None where the data set lacks its BOP part. Raises: FileError."""
    path = source.root / "bop" / source.split / "test_targets_bop19.json"
    if source.part != "test" or not path.is_file():
        return None
    try:
        return {(t["scene_id"], t["im_id"], t["obj_id"]) for t in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"{describe(error)}; expected the BOP targets of DexYCB") from error


def _recalls(errors: list[Errors], kinds: tuple[str, ...]) -> dict[str, float]:
    """Percent of targets below each threshold, averaged over thresholds and, for VSD, tolerances."""
    figures = {}
    for kind in kinds:
        values = np.array([getattr(e, kind) for e in errors])
        limits = PIXELS if kind == "mspd" else THRESHOLDS
        figures[kind] = 100 * float((values[..., None] < limits).mean()) if errors else float("nan")
    return figures | {"mean": float(np.mean(list(figures.values())))} if "vsd" in kinds else figures


def in_model(pose: Float64[np.ndarray, "*n 3 4"], model: BopModel) -> Float64[np.ndarray, "*n 3 4"]:
    """A pose of DexYCB's model as one of the official model."""
    return np.concatenate([pose[..., :3], pose[..., 3:] - pose[..., :3] @ model.offset[:, None]], -1)


def _least_maximum(gaps: Callable[..., Float64[np.ndarray, "s n"]], model: BopModel) -> float:
    """The least over symmetries of the largest gap over points; `gaps` gives squares.

    A symmetry's largest gap over few points is a lower bound: the lowest come first, and most are never looked at.
    """
    alone = len(model.symmetries) == 1
    bounds, least = np.zeros(1) if alone else gaps(model.corners, model.symmetries).max(-1), np.inf
    for k in np.argsort(bounds):
        if not bounds[k] < least:
            break
        least = min(least, float(gaps(model.points, model.symmetries[k : k + 1]).max()))
    return float(np.sqrt(least))


def _squares(x: Float64[np.ndarray, "s d n"]) -> Float64[np.ndarray, "s n"]:
    return np.einsum("sdn,sdn->sn", x, x)


def _symmetric(truth, symmetries):
    """The true pose under symmetries, [s,3,4]."""
    R = truth[:, :3]
    return np.concatenate([R @ symmetries[..., :3], R @ symmetries[..., 3:] + truth[:, 3:]], -1)


def _pixels(pose, points, K):
    """Places [...,2,n] of points in the image."""
    uvw = (K @ pose[..., :3]) @ points.T + K @ pose[..., 3:]
    return uvw[..., :2, :] / uvw[..., 2:, :]
