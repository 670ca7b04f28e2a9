"""Figures of contacts, apart from those of the hand: they add up over a data set's contacts, not over its frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from amt import metrics
from amt.data.contacts import NONE, NUM_CONTACTS, sample_contacts
from amt.data.hand_labels import pose_labels
from amt.evaluation.baseline import TrainingMean
from amt.hand import HandModel
from amt.hand.skeleton import FINGERTIPS_21
from amt.inference.batching import Rows
from amt.structs import Prediction

LIMITS_MM = (5, 10, 20)  # DESIGN's is 5
PAIR_LIMIT = 0.02  # metres, from the wrist: so near a predicted contact is that of a label, whose kind and force count
CONFIDENCE = 0.5  # from which a contact is one
KINDS = 4
COUNTED = ("predicted", "right", "true", "found")  # fields of `metrics.ContactCounts`
TAUGHT = (*(f"contact_kind_{k}" for k in range(KINDS)), "contact_kind_right", "contact_forces", "contact_force_error_n")
TAUGHT += ("contact_force_length_n", "contact_predicted", "contact_force_above_10n")
TINY = 1e-12
CHUNK = 64  # frames that a device compares at a time


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
        _, vertices = pose_labels(hand, labels)
        for i in np.flatnonzero(derived):
            sample = {name: labels[name][i] for name in ("grasped", "object_valid", "hand_pose_valid")}
            sample |= {name: labels[name][i] for name in ("object_ids", "object_pose")}
            points[i], valid[i] = sample_contacts(sample, vertices[i], root, NUM_CONTACTS)
    kind = np.where(simulated[:, None], labels["contact_kind"], -1)
    force = np.where(simulated[:, None, None], labels["contact_force"], np.float32(np.nan))
    return ContactLabels(points, valid & labelled[:, None], kind, force, labelled)


def contact_counter(taught: bool, mesh: Mesh | None = None) -> Rows:
    """`counter(None, contacts_of(...))` counts in each frame what `contact_figures` is made of, on the mesh's devices.

    A predicted contact is one of which the model is sure and whose kind is not none. Points are compared as they are,
    and `relative`: both from their own wrist. The baseline (`mean_`) does not look: it says that the five fingertips of
    the training set's mean pose, at the predicted wrist, touch in every frame. `taught` says whether kinds and forces
    mean anything; they are compared with those of the nearest label within 20 mm, from the wrist. Their baselines say
    the kind that is most frequent among these labels, and no force.
    """

    def count(_, contacts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        here = contacts["labelled"][:, None]
        present = (contacts["confidence"] >= CONFIDENCE) & (contacts["kind"] != NONE) & here
        tips = contacts["tips"], jnp.broadcast_to(here, contacts["tips"].shape[:2])
        truth, valid = contacts["truth"], contacts["valid"]
        counts = {
            "contact_frames": contacts["labelled"],
            "contact_simulated": contacts["labelled"] & contacts["simulated"],
        }
        for prefix, (points, there) in (("", (contacts["points"], present)), ("mean_", tips)):
            for name, moved in (("", points), ("relative_", points + contacts["shift"])):
                for limit in LIMITS_MM:
                    found = metrics.contact_counts(moved, there, truth, valid, limit / 1000)
                    key = f"{prefix}contact_{{}}_{name}{limit}mm"
                    counts |= {key.format(part): getattr(found, part) for part in COUNTED}
        return counts | (_kinds_and_forces(contacts, present) if taught else {})

    return Rows(count, CHUNK, mesh)


def contacts_of(
    prediction: Prediction,
    truth: ContactLabels,
    true_wrist: Float[np.ndarray, "n 3"],
    simulated: Bool[np.ndarray, " n"],
    mean: TrainingMean,
) -> dict[str, np.ndarray]:
    """What `contact_counter` compares; `simulated` says where the labels come from."""
    ours, wrist = prediction.contacts, np.asarray(prediction.hand.joints)[:, :1]
    arrays = {
        "points": ours.points,
        "tips": wrist + mean.joints[None, list(FINGERTIPS_21)],
        "shift": true_wrist[:, None] - wrist,
        "force": ours.force,
        "confidence": ours.confidence,
        "truth": truth.points,
        "true_force": truth.force,
    }
    others = {"kind": ours.kind, "true_kind": truth.kind, "valid": truth.valid}
    others |= {"labelled": truth.labelled, "simulated": simulated}
    return {name: np.asarray(x, np.float32) for name, x in arrays.items()} | others


def _kinds_and_forces(contacts, present) -> dict[str, jax.Array]:
    moved = contacts["points"] + contacts["shift"]
    nearest, near = metrics.nearest_contact(moved, present, contacts["truth"], contacts["valid"], PAIR_LIMIT)
    kind = jnp.take_along_axis(contacts["true_kind"], nearest, 1)
    force = jnp.take_along_axis(contacts["true_force"], nearest[..., None], 1)
    known_kind, known_force = near & (kind >= 0), near & jnp.isfinite(force).all(-1)
    above = jnp.linalg.norm(contacts["force"], axis=-1) > metrics.contacts.LARGEST_FORCE
    return {
        **{f"contact_kind_{k}": (known_kind & (kind == k)).sum(-1) for k in range(KINDS)},
        "contact_kind_right": (known_kind & (contacts["kind"] == kind)).sum(-1),
        "contact_forces": known_force.sum(-1),
        "contact_force_error_n": jnp.where(known_force, metrics.joint_errors(contacts["force"], force), 0.0).sum(-1),
        "contact_force_length_n": jnp.where(known_force, jnp.linalg.norm(force, axis=-1), 0.0).sum(-1),
        "contact_predicted": present.sum(-1),
        "contact_force_above_10n": (present & above).sum(-1),
    }


def contact_figures(total: Mapping[str, Float[np.ndarray, "*b"]]) -> dict[str, Float[np.ndarray, "*b"]]:
    """Shares and means of all contacts together, out of sums of what is counted, of which there may be many; NaN of
    nothing, but a precision where nothing is predicted, or a recall where nothing touches, is 0.
    """
    frames = total["contact_frames"]
    figures = {"contact_frames": frames, "contact_simulated_share": _share(total["contact_simulated"], frames)}
    for kind in (
        f"{prefix}contact_{{}}_{name}{mm}mm"
        for prefix in ("", "mean_")
        for name in ("", "relative_")
        for mm in LIMITS_MM
    ):
        predicted, right, true, found = (total[kind.format(part)] for part in COUNTED)
        precision, recall = right / np.maximum(predicted, 1), found / np.maximum(true, 1)
        f1 = 2 * precision * recall / np.maximum(precision + recall, TINY)
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            figures[kind.format(name)] = np.where(frames > 0, value, np.nan)
    taught = {name: total.get(name, np.zeros_like(frames)) for name in TAUGHT}
    kinds = np.stack([taught[f"contact_kind_{k}"] for k in range(KINDS)])
    return figures | {
        "contact_kind_right_share": _share(taught["contact_kind_right"], kinds.sum(0)),
        "commonest_contact_kind_share": _share(kinds.max(0), kinds.sum(0)),
        "contact_force_error_n": _share(taught["contact_force_error_n"], taught["contact_forces"]),
        "zero_contact_force_error_n": _share(taught["contact_force_length_n"], taught["contact_forces"]),
        "contact_force_above_10n_share": _share(taught["contact_force_above_10n"], taught["contact_predicted"]),
    }


def _share(part, whole):
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
