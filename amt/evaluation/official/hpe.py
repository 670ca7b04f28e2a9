"""3D hand poses: one line a sample, its index and 63 numbers, joint by joint, camera frame, millimetres.

Source: https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/hpe_eval.py), which takes its alignment and its
curves from https://github.com/lmb-freiburg/freihand (eval.py, utils/eval_util.py).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from amt import metrics
from amt.data.dexycb import DexYCB
from amt.errors import UserError
from amt.evaluation.official.ids import check_unit, counts, numbers, read_text

NUM_VALUES = 63
AUC_LIMIT = 50.0  # millimetres
TINY = 1e-8  # millimetres, that the toolkit adds to a hand's size


def lines(samples: Int[np.ndarray, " n"], joints: Float[np.ndarray, "n 21 3"]) -> str:
    """The file's lines for some samples; `joints` in metres."""
    rows = joints.astype(np.float64).reshape(-1, NUM_VALUES) * 1000
    return "".join(
        f"{i},{','.join(f'{x:.6f}' for x in row)}\n" for i, row in zip(samples.tolist(), rows.tolist(), strict=True)
    )


def read(path: Path, num_samples: int) -> Float64[np.ndarray, "n 21 3"]:
    """Joints of every sample in millimetres, NaN for those that the file leaves out.

    Raises: UserError for a file that cannot be read, a line without 64 numbers, a number that is none or is not
    finite, an index that the part does not have or that comes twice, and metres.
    """
    joints = np.full((num_samples, NUM_VALUES), np.nan)
    seen = np.zeros(num_samples, int)  # the line that a sample is in
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}: line {number}"
        values = line.split(",")
        if len(values) != 1 + NUM_VALUES:
            raise UserError(f"{where}: {len(values)} values; expected 64: index and x, y, z of 21 joints")
        (i,) = counts(values[:1], ["index"], where)
        if not 0 <= i < num_samples:
            raise UserError(f"{where}: index {i}; this part has samples 0 to {num_samples - 1}")
        if seen[i]:
            raise UserError(f"{where}: index {i} is already in line {seen[i]}; expected every sample once")
        seen[i] = number
        joints[i] = numbers(values[1:], where)
        if not np.isfinite(joints[i]).all():
            raise UserError(f"{where}: index {i} has values that are not finite; expected a pose of every sample")
    if not seen.any():
        raise UserError(f"{path}: empty; expected a line of every labelled sample")
    joints = joints.reshape(-1, 21, 3)
    check_unit(path, np.linalg.norm(joints[seen > 0], axis=-1))
    return joints


def read_truth(
    source: DexYCB, report: Callable[[int], None]
) -> tuple[Float64[np.ndarray, "n 21 3"], Bool[np.ndarray, " n"]]:
    """Joints of every sample in millimetres and whether they are labelled. Raises: FileError."""
    joints, valid = np.empty((len(source), 21, 3), np.float32), np.empty(len(source), bool)
    for i in range(len(source)):
        sample = source.labels(i)
        joints[i], valid[i] = sample["joints_3d"], sample["joints_valid"]
        report(1)
    return (joints * np.float32(1000)).astype(np.float64), valid  # single precision first, as in the toolkit


def score(path: Path, source: DexYCB, report: Callable[[int], None]) -> dict[str, float]:
    """The toolkit's table: MPJPE in millimetres and AUC, absolute, root-relative and after Procrustes alignment.

    Raises: UserError as `read`, and for a labelled sample that is missing.
    """
    joints = read(path, len(source))
    truth, valid = read_truth(source, report)
    missing = np.flatnonzero(valid & np.isnan(joints[:, 0, 0]))
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of {valid.sum()} labelled samples are missing, the first is index {missing[0]}; "
            f"expected all of {source}"
        )
    if not valid.any():
        raise UserError(f"{source}: no sample has a labelled hand; nothing to score")
    return scores(joints[valid], truth[valid])


def scores(joints: Float64[np.ndarray, "n 21 3"], truth: Float64[np.ndarray, "n 21 3"]) -> dict[str, float]:
    """The table from joints in millimetres, in double precision."""
    ours = {
        "absolute": joints - truth,
        "root_relative": (joints - joints[:, :1]) - (truth - truth[:, :1]),
        "procrustes": align(joints, truth) - truth,
    }
    figures: dict[str, float] = {"samples": len(joints)}
    for name, gap in ours.items():
        errors = np.linalg.norm(gap, axis=-1)
        everywhere = np.ones(errors.shape, bool)
        figures[f"{name}_mpjpe_mm"] = float(errors.mean())
        figures[f"{name}_auc"] = float(metrics.pck_auc(errors.astype(np.float32), everywhere, 0.0, AUC_LIMIT))
    return figures


def align(joints: Float64[np.ndarray, "n 21 3"], truth: Float64[np.ndarray, "n 21 3"]) -> Float64[np.ndarray, "n 21 3"]:
    """Joints scaled, turned and moved onto the truth; as in the toolkit, and unlike `amt.geometry.procrustes`, the best
    orthogonal matrix may be a reflection."""
    mean = truth.mean(1, keepdims=True)
    centred, target = joints - joints.mean(1, keepdims=True), truth - mean
    size = np.linalg.norm(target, axis=(1, 2), keepdims=True) + TINY
    centred /= np.linalg.norm(centred, axis=(1, 2), keepdims=True) + TINY
    U, singular, Vt = np.linalg.svd(np.swapaxes(centred, 1, 2) @ (target / size))
    return centred @ (U @ Vt) * singular.sum(-1)[:, None, None] * size + mean
