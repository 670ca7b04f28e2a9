"""Weights in one safetensors file that also says what model they belong to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from amt.errors import UserError
from amt.hand import EMBEDDED_HAND, HandModel
from amt.storage import refuse_pointer, replacing

EMBEDDED = Path(__file__).parent / "assets" / "demo.safetensors"
READ_BY_VMT = ("num_object_queries", "num_contact_queries", "num_classes", "object_head_dim")  # of the section model


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that weights depend on, as JSON types.

    Without `family` it is amt, without `model.encoder` conv.
    """
    data, model = config["data"], config["model"]
    if config["family"] == "vmt":
        parts = {"family": "vmt", "vmt": config["vmt"], "model": {k: model[k] for k in READ_BY_VMT}}
    else:
        unread = ("encoder", "grid") if model["encoder"] == "conv" else ("stem", "depth")
        parts = {"model": {k: v for k, v in model.items() if k not in unread}, "finder": config["finder"]}
    crop = {k: data[k] for k in ("image_size", "crop", "crop_margin")}
    return json.loads(json.dumps(parts | crop))


def policy_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a policy's weights depend on, as JSON types."""
    return json.loads(json.dumps({"fusion": config["fusion"], "actions": config["actions"]}))


def check_architecture(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` naming the fields in which a checkpoint's model is not the configuration's."""
    found = {k: v for k, v in found.items() if k != "policy" or k in expected}  # a policy that nobody asks for
    found, expected = (flatten_dict({"family": "amt", **x}, sep=".") for x in (found, expected))
    different = [k for k in sorted({**found, **expected}) if found.get(k) != expected.get(k)]
    if different:
        shown = ", ".join(f"{k} is {found.get(k)} there and {expected.get(k)} here" for k in different[:4])
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise UserError(
            f"{where}: a checkpoint of another configuration: {shown}{more}; "
            "use the --config it was trained with, or another checkpoint"
        )


def save(
    path: Path,
    params: Mapping[str, Any],
    settings: Mapping[str, Any],
    training_mean: Mapping[str, Any],
    contacts_taught: bool = False,
    *,
    hand: str,
) -> None:
    """Parameters in half precision (a relative error below 0.05%), names joined by dots.

    The file's metadata holds the architecture, the training set's means, which are the baseline of every evaluation,
    whether kind and force of contacts have been taught, and the fingerprint of the `hand` that they pose.
    """
    flat = {k: np.asarray(v, np.float16) for k, v in flatten_dict(dict(params), sep=".").items()}
    about = {"architecture": dict(settings), "training_mean": dict(training_mean), "contacts_taught": contacts_taught}
    about["hand"] = hand
    write(path, flat, about)


def write(path: Path, flat: dict[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """A safetensors file with JSON in its metadata, at once or not at all. Raises `UserError` on a full disk."""
    try:
        with replacing(path) as part:
            save_file(flat, part, metadata={k: json.dumps(v) for k, v in about.items()})
    except SafetensorError as error:
        raise UserError(f"weights {path}: cannot be written ({error}); make room and run it again") from error


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Float32 parameters, the architecture and the training set's means.

    Raises `UserError` for a file that is missing, damaged or not written by `save`.
    """
    flat, about = read(path, "a .safetensors file written by --mode=train", ("architecture", "training_mean"))
    return unflatten_dict(flat, sep="."), about["architecture"], about["training_mean"]


def fingerprint(path: Path) -> str:
    """What tells one file's content from another's: 12 hexadecimal digits of its SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def hand_fingerprint(path: Path) -> str:
    """`HandModel.fingerprint` of the hand that a file which `load` reads was trained with; the embedded one's, where it
    does not say.
    """
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata().get("hand", json.dumps(EMBEDDED_HAND)))


def check_hand(path: Path, hand: HandModel) -> None:
    """Raises `UserError` where the weights were trained with another hand model: their pose and shape are not its."""
    theirs, ours = hand_fingerprint(path), hand.fingerprint
    if theirs != ours:
        names = {EMBEDDED_HAND: "the embedded hand"}
        way = "leave config.hand.model empty" if theirs == EMBEDDED_HAND else "give that one as --config.hand.model"
        raise UserError(
            f"weights {path}: trained with {names.get(theirs, f'a hand model of fingerprint {theirs}')}, but "
            f"config.hand.model is {names.get(ours, f'one of fingerprint {ours}')}; {way}"
        )


def contacts_taught(path: Path) -> bool:
    """Whether kind and force of contacts mean anything in a file that `load` reads; no, where it does not say."""
    with safe_open(path, framework="numpy") as file:
        return bool(json.loads(file.metadata().get("contacts_taught", "false")))


def read(path: Path, expected: str, about: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Float32 tensors of a safetensors file, and the JSON in its metadata that `about` names.

    Raises `UserError` for a file that is missing, a Git LFS pointer, damaged or without this metadata, and for tensors
    that are not finite; `expected` says what it should be.
    """
    if not path.is_file():
        raise UserError(f"weights {path}: no such file; expected {expected}")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {k: file.get_tensor(k).astype(np.float32, copy=False) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights {path}: not a readable safetensors file ({error})") from error
    if missing := [k for k in about if k not in metadata]:
        raise UserError(f"weights {path}: no {' and '.join(missing)} in its metadata; expected {expected}")
    counts = {k: x.size - np.count_nonzero(np.isfinite(x)) for k, x in flat.items()}
    if bad := {k: n for k, n in counts.items() if n}:
        shown = ", ".join(f"{k} has {n} of {flat[k].size}" for k, n in list(bad.items())[:4])
        more = f" and {len(bad) - 4} more tensors" if len(bad) > 4 else ""
        raise UserError(f"weights {path}: values that are not finite: {shown}{more}; it is of no use, take another")
    return flat, {k: json.loads(metadata[k]) for k in about}


def resolve(checkpoint: str | Path | None) -> Path:
    """The weights file that is meant: nothing is the embedded one, a folder is a --mode=train work directory."""
    if not checkpoint:
        return EMBEDDED
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        return path
    weights = path / "weights.safetensors"
    if not weights.exists() and (steps := [p.name.removeprefix("step_") for p in path.glob("checkpoints/step_*")]):
        newest = max((int(step) for step in steps if step.isdigit()), default=0)
        raise UserError(
            f"{path}: a run that is not finished, it has checkpoints and no weights.safetensors yet; let it finish, or "
            f"write the weights of now by its own command with --config.train.steps={newest}"
        )
    return weights
