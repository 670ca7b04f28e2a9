"""Every evaluated frame with its labels, what was predicted, and its errors: what all figures are made of."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Shaped

from amt.errors import UserError
from amt.storage import refuse_pointer, replacing

VERSION = 1  # raise it when columns change
FILE = "evaluate_samples.npz"
ABOUT = "about"


@dataclasses.dataclass(frozen=True)
class Samples:
    """n frames in the order of `index`, in the camera's frame; metres, radians, newtons, pixels, unless a name says so.

    `about` is plain data: the weights, the data set's `root`, `split`, `part` and its number of samples
    (`source_samples`). The frame: `index` in the data set, `clip` in `DexYCB.clips()`, `sequence` is the folder's name,
    `subject` that of its parent, `camera` the serial; `rate_hz` of the video. `object_id` is grasped (YCB, 0: none),
    `grasp_kind` how, where the data set says it ('': it does not), `touches` whether the labels have a contact with it
    (1, 0; -1: not known). A joint is visible where the segmentation shows a hand at its pixel; where there is no
    segmentation (`visible_by_seg` False), where it lies in the image.

    The found box is the finder's best guess, in image pixels. `global_orient` to `transl_m` are those of `HandPose`,
    in the mirrored frame where `predicted_left`; the prediction's hand has no confidence in itself where not
    `hand_found`. `object_pose` is that of the query that stands for the grasped object (`named_query`), zero where
    none is; of `q` predicted and `c` labelled contacts, kind -1 and force NaN are not known. `joint_error_mm` is
    absolute, `joint_error_2d_px` in the label box scaled to `baseline.REFERENCE_PX`.

    `figures` are scalars of each frame under the names of the figures that they make, NaN where a frame has none;
    `mean_` is the baseline beside them. `counts` add up over frames, and figures of contacts are made of their sums
    (`amt.evaluation.contacts`). In the file `/` stands between these two and the name.
    """

    about: dict[str, Any]
    index: Int32[np.ndarray, " n"]
    clip: Int32[np.ndarray, " n"]
    sequence: Shaped[np.ndarray, " n"]
    subject: Shaped[np.ndarray, " n"]
    camera: Shaped[np.ndarray, " n"]
    frame: Int32[np.ndarray, " n"]
    rate_hz: Float32[np.ndarray, " n"]
    is_left: Bool[np.ndarray, " n"]
    object_id: Int32[np.ndarray, " n"]
    grasp_kind: Shaped[np.ndarray, " n"]
    touches: Int32[np.ndarray, " n"]
    image_size_px: Int32[np.ndarray, "n 2"]
    K_px: Float32[np.ndarray, "n 3 3"]
    joint_visible: Bool[np.ndarray, "n 21"]
    visible_by_seg: Bool[np.ndarray, " n"]
    true_joints_m: Float32[np.ndarray, "n 21 3"]
    true_object_pose_m: Float32[np.ndarray, "n 3 4"]
    true_contact_points_m: Float32[np.ndarray, "n c 3"]
    true_contact_valid: Bool[np.ndarray, "n c"]
    true_contact_kind: Int32[np.ndarray, "n c"]
    true_contact_force_n: Float32[np.ndarray, "n c 3"]
    found_center_px: Float32[np.ndarray, "n 2"]
    found_size_px: Float32[np.ndarray, " n"]
    found_angle_rad: Float32[np.ndarray, " n"]
    hand_found: Bool[np.ndarray, " n"]
    predicted_left: Bool[np.ndarray, " n"]
    joints_m: Float32[np.ndarray, "n 21 3"]
    joint_confidence: Float32[np.ndarray, "n 21"]
    global_orient: Float32[np.ndarray, "n 3 3"]
    hand_pose: Float32[np.ndarray, "n 15 3 3"]
    betas: Float32[np.ndarray, "n 10"]
    transl_m: Float32[np.ndarray, "n 3"]
    object_pose_m: Float32[np.ndarray, "n 3 4"]
    contact_points_m: Float32[np.ndarray, "n q 3"]
    contact_confidence: Float32[np.ndarray, "n q"]
    contact_kind: Int32[np.ndarray, "n q"]
    contact_force_n: Float32[np.ndarray, "n q 3"]
    joint_error_mm: Float32[np.ndarray, "n 21"]
    root_relative_joint_error_mm: Float32[np.ndarray, "n 21"]
    aligned_joint_error_mm: Float32[np.ndarray, "n 21"]
    joint_error_2d_px: Float32[np.ndarray, "n 21"]
    figures: dict[str, Float64[np.ndarray, " n"]]
    counts: dict[str, Float64[np.ndarray, " n"]]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def distance_m(self) -> Float32[np.ndarray, " n"]:
        """From the camera to the true wrist."""
        return np.linalg.norm(self.true_joints_m[:, 0], axis=-1)

    @property
    def visible_share(self) -> Float32[np.ndarray, " n"]:
        """Of the 21 joints."""
        return self.joint_visible.mean(-1, dtype=np.float32)

    def take(self, rows: Any) -> "Samples":
        """Some of the frames, by numbers or a mask."""
        arrays = {name: getattr(self, name)[rows] for name in ARRAYS}
        extra = {name: {k: v[rows] for k, v in getattr(self, name).items()} for name in EXTRA}
        return Samples(self.about, **arrays, **extra)

    def save(self, path: Path) -> None:
        """Appears at once or not at all. Raises: UserError where it cannot be written."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **self._columns())

    def to_bytes(self) -> bytes:
        """The file's content, not compressed."""
        buffer = io.BytesIO()
        np.savez(buffer, **self._columns())
        return buffer.getvalue()

    def _columns(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"{name}/{k}": v for name in EXTRA for k, v in getattr(self, name).items()}
        return {ABOUT: np.array(json.dumps(self.about | {"version": VERSION})), **arrays}

    @classmethod
    def load(cls, path: Path | io.BytesIO) -> "Samples":
        """What `save` wrote, or `to_bytes`.

        Raises: UserError for a file that is missing, is none, of another version, or whose columns do not fit together.
        """
        if not isinstance(path, io.BytesIO):
            refuse_pointer(Path(path))
        expected = f"expected the {FILE} of --mode=evaluate"
        try:
            with np.load(path) as file:
                arrays = dict(file)
            about = json.loads(str(arrays.pop(ABOUT)))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; {expected}") from error
        except Exception as error:
            raise UserError(f"{path}: cannot be read ({error or type(error).__name__}); {expected}") from error
        if about.get("version") != VERSION:
            raise UserError(f"{path}: version {about.get('version')}, expected {VERSION}; evaluate those weights again")
        wrong = [name for name in ARRAYS if not isinstance(arrays.get(name), ANNOTATIONS[name])]
        others = [name for name in arrays if name not in ANNOTATIONS]
        wrong += [name for name in others if not isinstance(arrays[name], Float64[np.ndarray, " n"])]
        lengths = {name: len(values) for name, values in arrays.items() if name not in wrong}
        if wrong or len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} {_describe(arrays.get(name))}" for name in wrong) or f"lengths {lengths}"
            raise UserError(f"{path}: columns do not fit ({found}); {expected}, not changed")
        extra = {name: {k.partition("/")[2]: arrays[k] for k in others if k.startswith(f"{name}/")} for name in EXTRA}
        return cls(about, **{name: arrays[name] for name in ARRAYS}, **extra)


ANNOTATIONS = {field.name: field.type for field in dataclasses.fields(Samples)}
EXTRA = ("figures", "counts")
ARRAYS = tuple(name for name in ANNOTATIONS if name not in (ABOUT, *EXTRA))


def make_samples(
    about: dict[str, Any],
    columns: dict[str, np.ndarray],
    figures: dict[str, np.ndarray],
    counts: dict[str, np.ndarray],
) -> Samples:
    """Columns of any precision in that of the table."""
    arrays, extra = {name: np.asarray(columns[name]) for name in ARRAYS}, {"figures": figures, "counts": counts}
    kinds = {name: ANNOTATIONS[name].dtypes for name in ARRAYS}
    arrays |= {name: arrays[name].astype(kind[0]) for name, kind in kinds.items() if isinstance(kind, tuple)}
    return Samples(about, **arrays, **{name: _double(values) for name, values in extra.items()})


def join(parts: Sequence[Samples]) -> Samples:
    """Several tables as one, in the order of `index`; `about` is that of the first."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    extra = {
        name: {k: np.concatenate([getattr(part, name)[k] for part in parts]) for k in getattr(parts[0], name)}
        for name in EXTRA
    }
    return Samples(parts[0].about, **arrays, **extra).take(np.argsort(arrays["index"]))


def with_motion(samples: Samples) -> Samples:
    """The table with accelerations of predicted and labelled joints, m/s^2, absolute and from the wrist, as figures.

    They are those of `amt.metrics.jitter`, at every frame that has the ones before and after it beside it.
    """
    here = np.arange(1, len(samples) - 1)
    apart = np.diff(samples.index) + 1000 * np.diff(samples.clip)
    here = here[(apart[:-1] == 1) & (apart[1:] == 1)] if len(samples) > 2 else here[:0]
    figures = {}
    for prefix, joints in (("", samples.joints_m), ("true_", samples.true_joints_m)):
        for name, x in (("jitter_m_s2", joints), ("relative_jitter_m_s2", joints - joints[:, :1])):
            x, values = x.astype(np.float64), np.full(len(samples), np.nan)
            change = np.linalg.norm(x[here + 1] - 2 * x[here] + x[here - 1], axis=-1).mean(-1)
            values[here] = change * samples.rate_hz[here] ** 2
            figures[prefix + name] = values
    return dataclasses.replace(samples, figures=samples.figures | figures)


def _double(values: dict[str, np.ndarray]) -> dict[str, Float64[np.ndarray, " n"]]:
    return {name: np.asarray(x, np.float64) for name, x in values.items()}


def _describe(values: np.ndarray | None) -> str:
    return "missing" if values is None else f"{values.dtype} of shape {values.shape}"
