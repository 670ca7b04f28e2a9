"""Figures of contacts, apart from those of the hand: they add up over a data set's contacts, not over its frames."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from amt import metrics
from amt.data.contacts import NONE, NUM_CONTACTS, sample_contacts
from amt.evaluation.baseline import TrainingMean
from amt.geometry import mirror
from amt.hand import HandModel
from amt.hand.skeleton import FINGERTIPS_21
from amt.structs import Prediction

LIMITS_MM = (5, 10, 20)  # DESIGN's is 5
PAIR_LIMIT = 0.02  # metres, from the wrist: so near a predicted contact is that of a label, whose kind and force count
CONFIDENCE = 0.5  # from which a contact is one
KINDS = 4
COUNTED = ("predicted", "right", "true", "found")  # fields of `metrics.ContactCounts`


class ContactLabels(NamedTuple):
    """Of n frames in the camera's frame, metres and newtons; -1 and NaN are not known; `labelled` frames count."""

    points: Float[np.ndarray, "n c 3"]
    valid: Bool[np.ndarray, "n c"]
    kind: Int[np.ndarray, "n c"]
    force: Float[np.ndarray, "n c 3"]
    labelled: Bool[np.ndarray, " n"]


def contact_labels(labels: dict[str, np.ndarray], hand: HandModel, root: Path) -> ContactLabels:
    """The simulated contacts with the grasped object where they are known, else geometry's (`amt.data.contacts`).

    `labels` are stacked samples of `DexYCB`, `root` is the data set's. Frames with neither a simulation nor a posed
    hand with the object that it grasps are not labelled.
    """
    simulated = labels["contact_known"]
    rows, index = np.arange(len(simulated)), np.maximum(labels["grasped"], 0)
    clear = (labels["grasped"] < 0) | labels["object_valid"][rows, index]
    labelled = simulated | (labels["hand_pose_valid"] & clear)
    points, valid = labels["contact_points"].copy(), labels["contact_valid"].copy()
    derived = labelled & ~simulated
    if derived.any():
        vertices = labelled_vertices(labels, hand)
        for i in np.flatnonzero(derived):
            sample = {name: labels[name][i] for name in ("grasped", "object_valid", "hand_pose_valid")}
            sample |= {name: labels[name][i] for name in ("object_ids", "object_pose")}
            points[i], valid[i] = sample_contacts(sample, vertices[i], root, NUM_CONTACTS)
    kind = np.where(simulated[:, None], labels["contact_kind"], -1)
    force = np.where(simulated[:, None, None], labels["contact_force"], np.float32(np.nan))
    return ContactLabels(points, valid & labelled[:, None], kind, force, labelled)


def labelled_vertices(labels: dict[str, np.ndarray], hand: HandModel) -> Float[np.ndarray, "n 778 3"]:
    """The hands that the labels pose, in the camera's frame, with the wrists where the joints say."""
    left = labels["is_left"]
    pose = labels["hand_pose"][:, :48]
    pose = np.where(left[:, None], mirror.mirror_hand_pose(pose), pose)
    joints, vertices = (np.asarray(x) for x in hand(pose, labels["betas"], np.zeros((len(left), 3), np.float32)))
    vertices = vertices - joints[:, :1]
    vertices = np.where(left[:, None, None], mirror.mirror_points(vertices), vertices)
    return vertices + labels["joints_3d"][:, :1]


@dataclasses.dataclass
class ContactTally:
    """What is counted, frame by frame; `figures` are those of all contacts together.

    A predicted contact is one of which the model is sure and whose kind is not none. Points are compared as they are,
    and `relative`: both from their own wrist. The baseline (`mean_`) does not look: it says that the five fingertips of
    the training set's mean pose, at the predicted wrist, touch in every frame. `taught` says whether kinds and forces
    mean anything; they are compared with those of the nearest label within 20 mm, from the wrist. Their baselines say
    the kind that is most frequent among these labels, and no force.
    """

    taught: bool
    counts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    kinds: Int[np.ndarray, "4"] = dataclasses.field(default_factory=lambda: np.zeros(KINDS, int))
    kinds_right: int = 0
    forces: int = 0
    force_errors: float = 0.0
    force_lengths: float = 0.0
    predicted: int = 0
    predicted_above_10n: int = 0
    frames: int = 0
    simulated: int = 0

    def add(self, prediction: Prediction, truth: ContactLabels, true_wrist, simulated, mean: TrainingMean) -> None:
        """Counts frames; `true_wrist` [n,3] metres, `simulated` [n] says where the labels come from."""
        here = truth.labelled[:, None]
        self.frames += int(here.sum())
        self.simulated += int((truth.labelled & simulated).sum())
        ours = prediction.contacts
        present = (np.asarray(ours.confidence) >= CONFIDENCE) & (np.asarray(ours.kind) != NONE) & here
        wrist = np.asarray(prediction.hand.joints)[:, :1]
        tips = wrist + mean.joints[None, list(FINGERTIPS_21)]
        shift = true_wrist[:, None] - wrist
        for prefix, points, there in (
            ("", ours.points, present),
            ("mean_", tips, np.broadcast_to(here, tips.shape[:2])),
        ):
            for name, moved in (("", points), ("relative_", points + shift)):
                for limit in LIMITS_MM:
                    found = metrics.contact_counts(
                        moved.astype(np.float32), there, truth.points, truth.valid, limit / 1000
                    )
                    total = np.array([np.sum(getattr(found, part)) for part in COUNTED])
                    key = f"{prefix}contact_{{}}_{name}{limit}mm"
                    self.counts[key] = self.counts.get(key, 0) + total
        if self.taught:
            self._add_kinds_and_forces(ours, present, np.asarray(ours.points + shift, np.float32), truth)

    def _add_kinds_and_forces(self, ours, present, points, truth: ContactLabels) -> None:
        nearest, near = (
            np.asarray(x) for x in metrics.nearest_contact(points, present, truth.points, truth.valid, PAIR_LIMIT)
        )
        kind = np.take_along_axis(truth.kind, nearest, 1)
        force = np.take_along_axis(truth.force, nearest[..., None], 1)
        known = near & (kind >= 0)
        self.kinds += np.bincount(kind[known], minlength=KINDS)
        self.kinds_right += int((np.asarray(ours.kind) == kind)[known].sum())
        known = near & np.isfinite(force).all(-1)
        said = np.asarray(ours.force)
        self.forces += int(known.sum())
        self.force_errors += float(np.linalg.norm(said - force, axis=-1)[known].sum())
        self.force_lengths += float(np.linalg.norm(force, axis=-1)[known].sum())
        self.predicted += int(present.sum())
        self.predicted_above_10n += int((np.linalg.norm(said, axis=-1)[present] > metrics.contacts.LARGEST_FORCE).sum())

    def figures(self) -> dict[str, float]:
        """Shares and means by name, NaN of nothing."""
        found = {"contact_frames": self.frames, "contact_simulated_share": _share(self.simulated, self.frames)}
        for key, total in self.counts.items():
            counts = metrics.ContactCounts(**{part: np.array(n) for part, n in zip(COUNTED, total, strict=True)})
            values = metrics.precision_recall_f1(counts)
            found |= {key.format(name): float(x) for name, x in zip(("precision", "recall", "f1"), values, strict=True)}
        return found | {
            "contact_kind_right_share": _share(self.kinds_right, self.kinds.sum()),
            "commonest_contact_kind_share": _share(self.kinds.max(), self.kinds.sum()),
            "contact_force_error_n": _share(self.force_errors, self.forces),
            "zero_contact_force_error_n": _share(self.force_lengths, self.forces),
            "contact_force_above_10n_share": _share(self.predicted_above_10n, self.predicted),
        }


def _share(part, whole) -> float:
    return float(part / whole) if whole else float("nan")
