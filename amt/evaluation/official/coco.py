"""2D detections: boxes, masks and keypoints of hand (22) and objects (1..21), a list in JSON; scored by pycocotools.

Source: https://github.com/NVlabs/dex-ycb-toolkit (dex_ycb_toolkit/coco_eval.py), https://cocodataset.org/#format-results
"""

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from amt.data.dexycb import DexYCB
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.evaluation.official.ids import read_text

HAND, HAND_LABEL = 22, 255  # category, value in `seg`
KEYPOINT_SIGMA = 0.05  # of every joint
SEEN = 2  # a keypoint that is labelled and visible
LENGTHS = {"bbox": 4, "keypoints": 63}
FIGURES = {
    "bbox": ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    "segm": ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    "keypoints": ("ap", "ap50", "ap75", "ap_medium", "ap_large"),
}


def require_pycocotools() -> None:
    """Raises: UserError where it is not installed."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise UserError(
            "COCO scores need pycocotools: pip install -e '.[coco]', or leave coco out of config.eval.official_formats"
        ) from error


def detection(
    image_id: int,
    category: int,
    score: float,
    outline: Float[np.ndarray, "n 2"],
    size: tuple[int, int],
    keypoints: Float[np.ndarray, "21 2"] | None = None,
) -> dict[str, Any] | None:
    """One item of the list: the mask is the convex hull of points in the image, None where it lies outside.

    The toolkit reads masks and 21 keypoints of every item; an object's are zeros.
    """
    hull = cv2.convexHull(np.clip(outline, -1e4, 1e4).astype(np.float32))
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1)
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    values = np.zeros((21, 3)) if keypoints is None else np.concatenate([keypoints, np.full((21, 1), SEEN)], -1)
    return {
        "image_id": image_id,
        "category_id": category,
        "score": round(score, 6),
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "keypoints": [round(v, 3) for v in values.ravel().tolist()],
        "segmentation": {"size": list(mask.shape), "counts": encode(mask.astype(bool))},
    }


def encode(mask: Bool[np.ndarray, "h w"]) -> str:
    """COCO's compressed run lengths, column by column, of which the first is that of False.

    Each is a difference to the last but one, in groups of 5 bits, low ones first, bit 6 set if another follows.
    Source: https://github.com/cocodataset/cocoapi (common/maskApi.c, rleToString)
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    text = []
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            group, value = value & 0x1F, value >> 5
            more = value != (-1 if group & 0x10 else 0)
            text.append(chr((group | 0x20 * more) + 48))
    return "".join(text)


def read(path: Path, num_samples: int) -> list[dict[str, Any]]:
    """The list, checked.

    Raises: UserError for a file that cannot be read or is no such list, for an item without what it needs or with
    numbers that are not finite, for images that the part does not have, and for shares of the image instead of pixels.
    """
    try:
        items = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); expected a list of COCO results") from error
    if not isinstance(items, list) or not items:
        raise UserError(f"{path}: expected a list of COCO results with at least one item")
    for k, item in enumerate(items):
        _check(item, f"{path}: item {k}", num_samples)
    if np.median([max(item["bbox"][2:]) for item in items]) <= 1:
        raise UserError(f"{path}: wrong unit: boxes are at most 1 wide, as if in shares of the image; expected pixels")
    return items


def _check(item: Any, where: str, num_samples: int) -> None:
    needed = ("image_id", "category_id", "score", *LENGTHS)
    missing = [name for name in needed if not isinstance(item, dict) or name not in item]
    if missing:
        raise UserError(f"{where}: no {', '.join(missing)}; expected {', '.join(needed)}")
    if not isinstance(item["image_id"], int) or not 0 <= item["image_id"] < num_samples:
        raise UserError(f"{where}: image_id {item['image_id']}; this part has samples 0 to {num_samples - 1}")
    if item["category_id"] not in (*OBJECTS, HAND):
        raise UserError(f"{where}: category_id {item['category_id']}; expected 1 to {HAND}")
    for name, length in LENGTHS.items():
        if not isinstance(item[name], list) or len(item[name]) != length:
            raise UserError(f"{where}: {name} is {str(item[name])[:40]}; expected {length} numbers")
    values = [item["score"], *item["bbox"], *item["keypoints"]]
    for value in values:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{where}: {value!r} is not a finite number")


def score(path: Path, source: DexYCB, report: Callable[[int], None]) -> dict[str, dict[str, float]]:
    """The toolkit's average precisions in percent, of boxes, of keypoints and, where the items have them, of masks.

    Raises: UserError as `read`, without pycocotools, and for a data set without segmentations.
    """
    require_pycocotools()
    items = read(path, len(source))
    return scores(items, annotations(source, report))


def annotations(source: DexYCB, report: Callable[[int], None]) -> dict[str, Any]:
    """What the toolkit takes out of the labels: every object and hand with a pixel in the segmentation.

    Raises: FileError, and UserError for a data set without segmentations.
    """
    from pycocotools import mask as masks

    images, found = [], []
    for i in range(len(source)):
        sample = source.labels(i, with_seg=True)
        seg, joints = np.asfortranarray(sample["seg"]), sample["joints_2d"].astype(np.float64)
        images.append({"id": i, "width": seg.shape[1], "height": seg.shape[0]})
        present = np.bincount(seg.ravel(), minlength=HAND_LABEL + 1) > 0
        for label in [*sample["object_ids"][sample["object_ids"] > 0].tolist(), HAND_LABEL]:
            if not present[label]:
                continue
            is_hand = label == HAND_LABEL
            known = np.full((21, 1), SEEN if is_hand and sample["joints_valid"] else 0)
            code = masks.encode((seg == label).view(np.uint8))
            annotation = {
                "id": len(found) + 1,
                "image_id": i,
                "category_id": HAND if is_hand else label,
                "segmentation": code,
                "area": int(masks.area(code)),
                "bbox": masks.toBbox(code).tolist(),
                "iscrowd": 0,
                "keypoints": np.concatenate([joints * (known > 0), known], -1).ravel().tolist(),
                "num_keypoints": 21 if is_hand else 0,
            }
            found.append(annotation)
        report(1)
    categories = [{"id": i, "name": str(i)} for i in (*OBJECTS, HAND)]
    return {"info": {}, "images": images, "annotations": found, "categories": categories}


def scores(items: list[dict[str, Any]], truth: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Average precisions in percent, NaN where nothing is to be found."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    figures = {}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        tasks = [task for task in FIGURES if task != "segm" or all("segmentation" in item for item in items)]
        for task in tasks:
            left_out = "bbox" if task == "segm" else None
            kept = [{name: value for name, value in item.items() if name != left_out} for item in items]
            run = COCOeval(reference, reference.loadRes(kept), task)
            if task == "keypoints":
                run.params.kpt_oks_sigmas = np.full(21, KEYPOINT_SIGMA)
            run.evaluate()
            run.accumulate()
            run.summarize()
            figures[task] = {
                name: float(value) * 100 if value >= 0 else float("nan")
                for name, value in zip(FIGURES[task], run.stats[: len(FIGURES[task])], strict=True)
            }
            precision = run.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, categories
            hand = precision[:, :, -1]
            figures[task]["ap_hand"] = float(hand[hand > -1].mean()) * 100 if (hand > -1).any() else float("nan")
    return figures
