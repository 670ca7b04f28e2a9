"""The three result files of the DexYCB toolkit, written while a data set is evaluated, and the scores of such files."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, Int

from amt.data.dexycb import DexYCB
from amt.data.objects import object_surface
from amt.errors import UserError
from amt.evaluation.objects import named_query, some_points
from amt.evaluation.official import bop, coco, hpe
from amt.evaluation.official.ids import KEYFRAME, bop_ids, image_size
from amt.geometry import cameras
from amt.metrics.common import NEAREST
from amt.structs import Prediction

SUFFIXES = {"hpe": "txt", "bop": "csv", "coco": "json"}


def file_names(source: DexYCB, formats: tuple[str, ...]) -> dict[str, str]:
    """Names of the files, by format, as `hpe_s0_test.txt`. Raises: UserError for an unknown format."""
    for name in formats:
        if name not in SUFFIXES:
            raise UserError(f"--config.eval.official_formats: {name!r}; expected some of {', '.join(SUFFIXES)}")
    return {name: f"{name}_{source.split}_{source.part}.{SUFFIXES[name]}" for name in formats}


class ResultFiles:
    """Open files in a folder; `add` appends frames, in any order, and at the end of the block every frame is there.

    Hand poses are the best guess in every frame, found or not. Object poses are those of the objects that the sequence
    has, as the BOP protocol tells them, chosen as in `named_query`. Detections are the hand and every query's class,
    with their confidence.
    """

    def __init__(self, folder: Path, source: DexYCB, formats: tuple[str, ...]):
        names = file_names(source, formats)
        self.source, self.ids, self.size = source, bop_ids(source), image_size(source)
        self.files = {name: (folder / file).open("w") for name, file in names.items()}
        self.written = np.zeros(len(source), bool)
        self.detections = 0

    def __enter__(self) -> "ResultFiles":
        self._write("bop", bop.HEADER + "\n")
        self._write("coco", "[")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._write("coco", "]\n")
        for file in self.files.values():
            file.close()
        if kind is None and not self.written.all():
            left = np.flatnonzero(~self.written)
            raise UserError(
                f"{self.source}: {len(left)} frames without a prediction, the first is {left[0]}; official result "
                "files are whole or not written"
            )

    def add(
        self,
        samples: Int[np.ndarray, " n"],
        prediction: Prediction,
        K: Float[np.ndarray, "n 3 3"],
        object_ids: Int[np.ndarray, "n 10"],
    ) -> None:
        """Frames with their intrinsics and the objects of their sequences."""
        self._write("hpe", hpe.lines(samples, prediction.hand.joints))
        self.written[samples] = True
        for row, i in enumerate(samples.tolist()):
            if self.ids.image[i] % KEYFRAME == 0:
                self._add_objects(i, row, prediction, object_ids[row])
            if "coco" in self.files:
                self._add_detections(i, row, prediction, K[row].astype(np.float64))

    def _add_objects(self, i: int, row: int, prediction: Prediction, ids) -> None:
        objects = prediction.objects
        for ycb_id in ids[ids > 0].tolist():
            query = named_query(objects.ycb_ids[row], objects.confidence[row], ycb_id)
            target = int(self.ids.scene[i]), int(self.ids.image[i]), ycb_id
            self._write("bop", bop.line(target, float(objects.confidence[row, query]), objects.pose[row, query]))

    def _add_detections(self, i: int, row: int, prediction: Prediction, K) -> None:
        hand, objects = prediction.hand, prediction.objects
        score = float(prediction.joint_confidence[row].mean())
        uv = [_pixels(x[row], K) for x in (hand.vertices, hand.joints)]
        items = [coco.detection(i, coco.HAND, score, uv[0], self.size, uv[1])]
        for query, ycb_id in enumerate(objects.ycb_ids[row].tolist()):
            points = some_points(object_surface(self.source.root, ycb_id))
            pose = objects.pose[row, query]
            outline = _pixels(points @ pose[:, :3].T + pose[:, 3], K)
            items.append(coco.detection(i, ycb_id, float(objects.confidence[row, query]), outline, self.size))
        for item in items:
            if item is not None:
                self._write("coco", (",\n" if self.detections else "\n") + json.dumps(item))
                self.detections += 1

    def _write(self, name: str, text: str) -> None:
        if name in self.files:
            self.files[name].write(text)


def score_file(path: Path, source: DexYCB, with_vsd: bool, report: Callable[[int], None]) -> dict:
    """The official scores of a results file, known by its suffix; `report` is told of every frame.

    Raises: UserError for another suffix, and as the `score` of `hpe`, `bop` and `coco`.
    """
    match path.suffix:
        case ".txt":
            return {"hpe": hpe.score(path, source, report)}
        case ".csv":
            return {"bop": bop.score(path, source, with_vsd, report)}
        case ".json":
            return {"coco": coco.score(path, source, report)}
    raise UserError(
        f"--input={path}: expected a results file of the DexYCB toolkit: .txt (hand poses), .csv (object poses) or "
        ".json (detections)"
    )


def _pixels(points: Float[np.ndarray, "n 3"], K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 2"]:
    """Places in the image; what is nearer than 5 cm counts as 5 cm ahead."""
    points = points.astype(np.float64)
    points[:, 2] = np.maximum(points[:, 2], NEAREST)
    return cameras.project(points, K)
