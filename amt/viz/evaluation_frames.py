"""The best, median and worst frames of an evaluation, cut out around the hand, prediction over label."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from amt.data.dexycb import DexYCB
from amt.data.images import decode, warp
from amt.evaluation.samples import Samples
from amt.geometry import cameras, mirror
from amt.hand import HandModel
from amt.viz.films import NAMES, SIZES
from amt.viz.overlay import Canvas, draw_box, draw_contacts, draw_object, draw_outline, draw_skeleton
from amt.viz.pages import Picture
from amt.viz.sections import Frames, Section

COUNT = 4  # frames of each kind
TILE = 480  # pixels, the side of a picture
MARGIN = 1.5  # sides of the box around all joints, predicted and true
TRUTH = (255, 255, 255)
MESH = (90, 220, 235)
KINDS = {"best": "The best", "median": "In the middle", "worst": "The worst"}


def pick(error: Float[np.ndarray, " n"], clip: Int[np.ndarray, " n"], count: int = COUNT) -> dict[str, list[int]]:
    """Rows with the smallest error, next to the median, and with the largest, in this order; one of each video."""
    far = np.abs(error - np.median(error))
    orders = {"best": error, "median": far, "worst": -error}
    return {kind: _one_a_clip(np.argsort(by, kind="stable"), clip, count) for kind, by in orders.items()}


def frames_section(samples: Samples, source: DexYCB, hand: HandModel) -> Section:
    """Pictures of the picked frames, which are read again from the data set; `hand` is what was predicted with."""
    error = samples.root_relative_joint_error_mm.mean(-1)
    rows = pick(error, samples.clip)
    words = (
        "Chosen by the root-relative error, at most one frame of a video. White: the labels, skeleton and object box. "
        "In colours: what was predicted, the skeleton with one colour a finger, the mesh's outline light blue, the "
        "object's box yellow with axes x red, y green, z blue, contact points pink.",
    )
    frames = tuple(
        Frames(KINDS[kind], [picture(samples, row, source, hand) for row in rows[kind]]) for kind in KINDS if rows[kind]
    )
    return Section("frames", "Frames", words, frames=frames)


def draw_sample(
    samples: Samples, row: int, image: UInt8[np.ndarray, "height width 3"], hand: HandModel
) -> UInt8[np.ndarray, "t t 3"]:
    """`image` (RGB) around the hand of one frame, with its label and its prediction."""
    K = samples.K_px[row].astype(np.float64)
    canvas = _around(image, K, np.concatenate([samples.true_joints_m[row], samples.joints_m[row]]))
    held = int(samples.object_id[row])
    if held:
        draw_box(canvas, samples.true_object_pose_m[row], SIZES[held], TRUTH)
    draw_skeleton(canvas, samples.true_joints_m[row], TRUTH)
    if held:
        draw_object(canvas, samples.object_pose_m[row], SIZES[held], "")
    draw_outline(canvas, _vertices(samples, row, hand), np.asarray(hand.faces), MESH)
    draw_skeleton(canvas, samples.joints_m[row])
    draw_contacts(canvas, samples.contact_points_m[row], samples.contact_confidence[row])
    return canvas.image


def frame_name(samples: Samples, row: int) -> str:
    """Where a frame lies in the data set."""
    place = f"{samples.subject[row]}/{samples.sequence[row]}"
    return f"{place}, camera {samples.camera[row]}, frame {samples.frame[row]}"


def picture(samples: Samples, row: int, source: DexYCB, hand: HandModel) -> Picture:
    """One frame, read again from the data set, with its errors and where it lies."""
    image = decode(source[int(samples.index[row])]["color"])
    relative, aligned, absolute = (
        float(errors[row].mean())
        for errors in (samples.root_relative_joint_error_mm, samples.aligned_joint_error_mm, samples.joint_error_mm)
    )
    caption = f"{relative:.1f} mm root-relative, {aligned:.1f} aligned, {absolute:.1f} absolute"
    held = NAMES.get(int(samples.object_id[row]), "no object")
    lost = "" if samples.hand_found[row] else "; no hand was found, this is the best guess"
    return Picture(draw_sample(samples, row, image, hand), f"{caption}; {held}; {frame_name(samples, row)}{lost}")


def _one_a_clip(order, clip, count):
    _, first = np.unique(clip[order], return_index=True)
    return order[np.sort(first)[:count]].tolist()


def _around(image, K, points) -> Canvas:
    """The part of the image in which the points lie, as far as they lie in it, at `TILE` pixels."""
    height, width = image.shape[:2]
    pixels = cameras.project(points[points[:, 2] > 0.05].astype(np.float64), K).clip(0, (width, height))
    low, high = pixels.min(0), pixels.max(0)
    side = np.clip(MARGIN * (high - low).max(), min(width, height) / 4, min(width, height))
    corner = ((low + high - side) / 2).clip(0, (width - side, height - side))
    zoom = TILE / side
    A = np.array([[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]], [0, 0, 1]])
    return Canvas(np.ascontiguousarray(warp(image, A, TILE)), A @ K)


def _vertices(samples, row, hand):
    rotations = np.concatenate([samples.global_orient[row][None], samples.hand_pose[row]])
    _, vertices, _ = hand.from_rotations(rotations, samples.betas[row], samples.transl_m[row])
    vertices = np.asarray(vertices)
    return mirror.mirror_points(vertices) if samples.predicted_left[row] else vertices
