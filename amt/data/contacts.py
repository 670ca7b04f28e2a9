"""Contacts from geometry, on the host: where a hand's vertices touch an object's surface."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from amt.data.objects import Surface, object_surface

CONTACT_DISTANCE = 0.005  # metres
MAX_DEPTH = 0.02  # metres: what seems to lie deeper inside is another part of the hand, or of the object
NUM_CONTACTS = 10
NEIGHBOURS = 6  # samples that decide on which side of a surface a point is


class ContactPoints(NamedTuple):
    """Hand vertices in contact, in the frame they came in; the rest is 0 and not valid."""

    points: Float32[np.ndarray, "c 3"]
    valid: Bool[np.ndarray, " c"]


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
