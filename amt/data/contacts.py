"""Contacts on the host: simulated ones out of their files, and where a hand's vertices touch an object's surface."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from amt.data.files import FileError, nan_problems, read_arrays
from amt.data.objects import Surface, object_surface

CONTACT_DISTANCE = 0.005  # metres
MAX_DEPTH = 0.02  # metres: what seems to lie deeper inside is another part of the hand, or of the object
NUM_CONTACTS = 10
NEIGHBOURS = 6  # samples that decide on which side of a surface a point is
NONE, LIGHT, FIRM, MANIPULATION = range(4)  # kinds of contact, as `amt.models.contacts` counts them
UNKNOWN = -1  # kind
FIRM_FORCE = 2.0  # newtons from which a contact is firm
MOVING, TURNING = 0.01, 0.2  # metres and radians (the same, 5 cm away) per second from which an object is manipulated


class ContactPoints(NamedTuple):
    """Hand vertices in contact, in the frame they came in; the rest is 0 and not valid."""

    points: Float32[np.ndarray, "c 3"]
    valid: Bool[np.ndarray, " c"]


def contact_kinds(
    points: Float[np.ndarray, "n 3"],
    forces: Float[np.ndarray, "n 3"],
    before: Float[np.ndarray, "n 3 4"],
    after: Float[np.ndarray, "n 3 4"],
    now: Float[np.ndarray, "n 3 4"],
    seconds: float,
) -> Int32[np.ndarray, " n"]:
    """What a contact does: manipulation where the object moves, else firm from 2 N on, else light.

    An object moves where the point of it that is touched is faster than 1 cm/s or it turns faster than 0.2 rad/s, on
    the way from the pose `before` to the pose `after`, so many `seconds` later. Poses [R|t] map the touched object to
    the frame of `points` (metres, at the pose `now`) and `forces` (newtons). No contact at all is of the kind none.
    """
    local = np.einsum("nji,nj->ni", now[..., :3], points - now[..., 3])
    way = np.einsum("nij,nj->ni", (after - before)[..., :3], local) + (after - before)[..., 3]
    cosine = (np.einsum("nij,nij->n", before[..., :3], after[..., :3]) - 1) / 2
    turned = np.arccos(np.clip(cosine, -1, 1))
    moved = (np.linalg.norm(way, axis=-1) > MOVING * seconds) | (turned > TURNING * seconds)
    firm = np.linalg.norm(forces, axis=-1) >= FIRM_FORCE
    return np.where(moved, MANIPULATION, np.where(firm, FIRM, LIGHT)).astype(np.int32)


def read_contacts(path: Path, ycb_id: int, count: int = NUM_CONTACTS) -> dict[str, np.ndarray]:
    """The simulated contacts of one frame with object `ycb_id`, named as in `amt.structs.Batch`, the camera's frame.

    Of more than `count` those stay that spread farthest, beginning with the strongest. What is not valid is 0, which is
    also the kind none; files without kinds give -1 throughout. Raises: FileError.
    """
    arrays = read_contact_file(path)
    if problems := contact_shape_problems(arrays) or nan_problems(arrays):
        raise FileError(path, problems[0])
    held = np.flatnonzero(arrays["object"] == ycb_id)
    if len(held) > count:
        strongest = int(np.linalg.norm(arrays["forces"][held], axis=-1).argmax())
        held = held[farthest_points(arrays["points"][held], count, strongest)]
    contacts = no_contacts(count) | {"contact_known": np.bool_(True)}
    contacts["contact_points"][: len(held)] = arrays["points"][held]
    contacts["contact_force"][: len(held)] = arrays["forces"][held]
    contacts["contact_valid"][: len(held)] = True
    if "kind" in arrays:
        contacts["contact_kind"][:] = NONE
        contacts["contact_kind"][: len(held)] = arrays["kind"][held]
    return contacts


def no_contacts(count: int = NUM_CONTACTS) -> dict[str, np.ndarray]:
    """As `read_contacts`, of a frame whose contacts nobody simulated."""
    return {
        "contact_points": np.zeros((count, 3), np.float32),
        "contact_force": np.zeros((count, 3), np.float32),
        "contact_kind": np.full(count, UNKNOWN, np.int32),
        "contact_valid": np.zeros(count, bool),
        "contact_known": np.bool_(False),
    }


def read_contact_file(path: Path) -> dict[str, np.ndarray]:
    """`points`, `forces`, `object` and, where the file has it, `kind` (`amt.data.synthetic.writing`).

    Raises: FileError.
    """
    expected = "contacts of --mode=generate"
    return read_arrays(path, ("points", "forces", "object"), optional=("kind",), expected=expected)


def contact_shape_problems(arrays: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the shapes, types and kinds of a frame's simulated contacts, one line each."""
    n = len(arrays["object"]) if arrays["object"].ndim else 0
    kinds = {"points": "f", "forces": "f", "object": "iu", "kind": "iu"}
    problems = []
    for name, found in arrays.items():
        shape = (n, 3) if name in ("points", "forces") else (n,)
        if found.shape != shape or found.dtype.kind not in kinds[name]:
            problems.append(f"{name} is {found.dtype} of shape {found.shape}; expected numbers of shape {shape}")
    if not problems and "kind" in arrays and not np.isin(arrays["kind"], (LIGHT, FIRM, MANIPULATION)).all():
        problems.append(f"kind has {sorted(set(arrays['kind'].tolist()))}; expected {LIGHT} to {MANIPULATION}")
    return problems


def signed_distance(
    points: Float[np.ndarray, "n 3"], surface: Surface, reach: float = np.inf
) -> Float[np.ndarray, " n"]:
    """Metres from points in the model's frame to the surface's nearest sample, negative behind it.

    Behind is told by normals; a surface without them gives no negative values. Infinite beyond `reach`.
    """
    k = min(NEIGHBOURS, len(surface.points))
    distance, nearest = surface.tree.query(points, k=[*range(1, k + 1)], distance_upper_bound=reach)
    if surface.normals is None:
        return distance[:, 0]
    nearest = np.minimum(nearest, len(surface.points) - 1)  # one too many stands for none in reach
    along = ((points[:, None] - surface.points[nearest]) * surface.normals[nearest]).sum(-1)
    # At an edge the samples of both faces are near: the face that is seen straight on knows the side.
    straight = np.abs(along / np.where(np.isfinite(distance), np.maximum(distance, 1e-9), np.inf)).argmax(-1)
    behind = np.take_along_axis(along, straight[:, None], 1)[:, 0] < 0
    return np.where(behind & np.isfinite(distance[:, 0]), -distance[:, 0], distance[:, 0])


def farthest_points(points: Float[np.ndarray, "n 3"], count: int, start: int) -> Int64[np.ndarray, " m"]:
    """Indices of up to `count` points, each as far as can be from those before it, beginning with `start`.

    Of equally far ones the first counts. Eldar et al., "The farthest point strategy for progressive image
    sampling", IEEE TIP 1997.
    """
    chosen = [start]
    gap = np.linalg.norm(points - points[start], axis=-1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=-1))
    return np.array(chosen)


def derive_contacts(
    vertices: Float[np.ndarray, "v 3"],
    object_pose: Float[np.ndarray, "3 4"],
    surface: Surface,
    count: int = NUM_CONTACTS,
) -> ContactPoints:
    """Up to `count` of the hand's vertices nearer than 5 mm to the object, or up to 20 mm inside it.

    `vertices` and `object_pose` (model to camera) share a frame, metres. The vertex deepest inside comes first, the
    others by farthest-point sampling, so that they spread over the whole contact.
    """
    local = (vertices - object_pose[:, 3]) @ object_pose[:, :3]
    distance = signed_distance(local, surface, MAX_DEPTH)
    touching = np.flatnonzero(distance < CONTACT_DISTANCE)
    points, valid = np.zeros((count, 3), np.float32), np.zeros(count, bool)
    if len(touching):
        start = int(distance[touching].argmin())
        chosen = touching[farthest_points(vertices[touching], count, start)]
        points[: len(chosen)], valid[: len(chosen)] = vertices[chosen], True
    return ContactPoints(points, valid)


def sample_contacts(
    sample: dict[str, Any], vertices: Float[np.ndarray, "778 3"], root: Path, count: int = NUM_CONTACTS
) -> ContactPoints:
    """The contacts of a sample of `DexYCB` with the object it grasps; none where hand or object has no label.

    `vertices` are the hand's, posed with the sample's labels, in the camera frame; `root` is the data set's.
    Raises: UserError for an object without a surface.
    """
    grasped = int(sample["grasped"])
    if grasped < 0 or not sample["object_valid"][grasped] or not sample["hand_pose_valid"]:
        return ContactPoints(np.zeros((count, 3), np.float32), np.zeros(count, bool))
    surface = object_surface(root, int(sample["object_ids"][grasped]))
    return derive_contacts(vertices, sample["object_pose"][grasped], surface, count)
