"""Whose hand a data set's hand parameters belong to: coefficients of another model's bases mean nothing.

DexYCB's `pose_m` and `betas` are coefficients of MANO_RIGHT's and, for left hands, of MANO_LEFT's own bases. A set that
says a `hand` in each meta.yml, as generated ones do, belongs to the model of that fingerprint, its left hands to that
model mirrored. Joints are labelled directly and are right with any hand.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from amt.errors import UserError
from amt.geometry import mirror
from amt.hand import EMBEDDED_HAND, HandModel
from amt.structs import Array

HAND = "hand"  # in meta.yml, not in DexYCB: `HandModel.fingerprint` of the hand that the labels belong to
POSED = ("is_left", "left_basis", "joints_3d", "hand_pose", "betas")  # what `pose_labels` reads
CHUNK = 64  # hands that are posed at a time
CHECKED_SAMPLES = 16
MAX_JOINT_ERROR = 0.005  # metres between posed and labelled joints, root-relative, in the median: rounding is far below


class HandIds(NamedTuple):
    """Fingerprints of the hand that is used, and of its own left model, if it has one."""

    right: str
    left: str | None

    @classmethod
    def of(cls, hand: HandModel) -> "HandIds":
        return cls(hand.fingerprint, None if hand.left is None else hand.left.fingerprint)


def mask_hand_labels(sample: dict[str, Any], owner: str | None, hands: HandIds | None) -> dict[str, Any]:
    """A sample of `DexYCB` without the hand parameters that mean nothing to `hands` (None: nothing is left out).

    `owner` is what meta.yml says under `HAND`; None is MANO. `left_basis` says whether the parameters are coefficients
    of the left model's bases.
    """
    valid, left_basis = _fits(owner, bool(sample["is_left"]), hands)
    sample = {**sample, "left_basis": np.bool_(left_basis)}
    if valid:
        return sample
    zeros = {name: np.zeros_like(sample[name]) for name in ("hand_pose", "betas")}
    return sample | zeros | {"hand_pose_valid": np.bool_(False)}


def _fits(owner: str | None, is_left: bool, hands: HandIds | None) -> tuple[bool, bool]:
    """Whether the parameters mean something, and whether to the left model."""
    if hands is None:
        return True, False
    if owner is not None:
        return owner == hands.right, False
    return (hands.left is not None, True) if is_left else (hands.right != EMBEDDED_HAND, False)


def describe_masked(sequences: list[tuple[str | None, bool]], hands: HandIds) -> tuple[int, str]:
    """Number of sequences whose hand labels are left out, and one line that says so and how to get them.

    `sequences` are the owner and the side (left?) of each.
    """
    masked = [(owner, is_left) for owner, is_left in sequences if not _fits(owner, is_left, hands)[0]]
    if not masked:
        return 0, ""
    owners = {owner for owner, _ in masked}
    if owners == {None}:
        whose = "MANO"
        needed = {"config.hand.left_model=MANO_LEFT.pkl" if is_left else "" for _, is_left in masked} - {""}
        if hands.right == EMBEDDED_HAND:
            needed.add("config.hand.model=MANO_RIGHT.pkl")
        way = "give --" + " --".join(sorted(needed, reverse=True))
    elif owners == {EMBEDDED_HAND}:
        whose, way = "the embedded hand", "leave config.hand.model empty"
    else:
        named = ", ".join(sorted(owner or "MANO" for owner in owners))
        whose, way = f"other hands ({named})", "give the one that they were made with as --config.hand.model"
    return len(masked), (
        f"the hand parameters of {len(masked)} of {len(sequences)} sequences belong to {whose}, not to the "
        f"hand in use: rotations, shape, vertices and contacts found by geometry are left out, joints go on; {way}"
    )


def pose_labels(
    hand: HandModel, labels: dict[str, np.ndarray]
) -> tuple[Float[np.ndarray, "n 21 3"], Float[np.ndarray, "n 778 3"]]:
    """Joints and vertices that labels pose, camera frame, metres, the wrists at the labelled ones.

    `labels` are stacked samples of `DexYCB`; where they are not `hand_pose_valid` the result means nothing.
    """
    left, wrist = labels["is_left"][:, None, None], labels["joints_3d"][:, :1]
    pose = labels["hand_pose"][:, :48]
    arrays = np.where(left[..., 0], mirror.mirror_hand_pose(pose), pose), labels["betas"], labels["left_basis"]
    parts = []
    for start in range(0, len(pose), CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), len(pose) - 1)  # one shape to compile
        parts.append(_pose(hand, *(x[rows] for x in arrays)))
    posed = (np.concatenate(part)[: len(pose)] for part in zip(*parts, strict=True))
    joints, vertices = (np.where(left, mirror.mirror_points(x), x) + wrist for x in posed)
    return joints, vertices


@jax.jit
def _pose(hand: HandModel, pose: Array, betas: Array, left_basis: Array):
    transl = jax.numpy.zeros((*pose.shape[:-1], 3), pose.dtype)
    joints, vertices, _ = hand.from_rotations(hand.rotations(pose, left_basis), betas, transl, left_basis)
    return joints - joints[..., :1, :], vertices - joints[..., :1, :]


def check_hand_labels(source, hand: HandModel) -> None:
    """Raises UserError where the hand that is used, posed with a data set's labels, has its joints elsewhere.

    Looks at some samples of a `DexYCB` opened for this hand; those without hand parameters are passed over.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, CHECKED_SAMPLES).round().astype(int))
    samples = []
    for i in chosen:
        try:
            sample = source.labels(int(i))
        except UserError:  # is for the quarantine
            continue
        if sample["hand_pose_valid"] and sample["joints_valid"]:
            samples.append(sample)
    if not samples:
        return
    labels = {name: np.stack([sample[name] for sample in samples]) for name in POSED}
    joints, _ = pose_labels(hand, labels)
    errors = np.linalg.norm(joints - labels["joints_3d"], axis=-1)
    for left_basis, field in ((False, "config.hand.model"), (True, "config.hand.left_model")):
        rows = labels["left_basis"] == left_basis  # each model by itself: one must not hide behind the other
        if rows.any() and (error := float(np.median(errors[rows]))) > MAX_JOINT_ERROR:
            raise UserError(
                f"{source.root}: {field}, posed with the labels' parameters, has its joints {1000 * error:.0f} mm from "
                "the labelled joints (median): it is not the hand that the labels were made with; give that one"
            )
