"""Hand models from files: the embedded one, others of its format, and the official MANO files."""

import pathlib

import numpy as np

from amt.errors import UserError
from amt.hand import mano_pickle, poses, skeleton
from amt.hand.model import HandModel
from amt.storage import refuse_pointer

DEFAULT_HAND = pathlib.Path(__file__).parent / "default_hand.npz"
EMBEDDED_HAND = "74bd885be2943e86"
"""`HandModel.fingerprint` of the embedded hand: the one of weights and generated sets that do not say theirs."""

SHAPES = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "faces": (1538, 3),
    "hands_mean": (45,),
    "hands_components": (45, 45),
    "flexion_axes": (16, 3),
    "tip_vertices": (5,),
}


def load(path: str | pathlib.Path | None = None, left_path: str | pathlib.Path | None = None) -> HandModel:
    """Right-hand model: the embedded CC0 one (no path), a .npz of its format, or MANO_RIGHT.pkl, never executed.

    `left_path` is a left-hand model, such as MANO_LEFT.pkl, kept mirrored in `HandModel.left`. The arrays are NumPy's,
    float32. Raises UserError for a file that is missing, of another kind, damaged, not a hand of MANO's size and joint
    order, or of the other side, whatever it is called.
    """
    right = _load(DEFAULT_HAND if path is None else pathlib.Path(path), is_left=False)
    return right if left_path is None else right.replace(left=_load(pathlib.Path(left_path), is_left=True).mirrored())


def _load(path: pathlib.Path, is_left: bool) -> HandModel:
    expected = "MANO_LEFT.pkl" if is_left else "MANO_RIGHT.pkl"
    if not path.is_file():
        raise UserError(f"hand model {path}: no such file; give a .npz, {expected}, or none for the default")
    refuse_pointer(path)
    if path.suffix not in (".npz", ".pkl"):
        raise UserError(f"hand model {path}: expected a name ending in .npz or .pkl, found {path.name!r}")
    arrays = _read_npz(path) if path.suffix == ".npz" else mano_pickle.read(path)
    if "f" in arrays:
        arrays = _from_mano(path, arrays, is_left)
    _check(path, arrays)
    integers = ("faces", "tip_vertices")
    arrays = {k: v.astype(np.int32 if k in integers else np.float32) for k, v in arrays.items()}
    template = arrays["v_template"]
    joints, tips = arrays["J_regressor"] @ template, template[arrays["tip_vertices"]]
    if _looks_left(joints) != is_left:
        found = "right" if is_left else "left"
        raise UserError(
            f"hand model {path}: holds a {found} hand; expected {expected}; the right one is config.hand.model, "
            "the left one config.hand.left_model"
        )
    if "flexion_axes" not in arrays:
        axes = poses.flexion_axes(joints, tips, template, arrays["weights"])
        arrays["flexion_axes"] = axes.astype(np.float32)
    tip_vertices = tuple(int(i) for i in arrays.pop("tip_vertices"))
    return HandModel(**{"posedirs": None, **arrays}, tip_vertices=tip_vertices)


def _looks_left(joints) -> bool:
    """At rest the palm looks along -y: seen from there, the way from index to little finger tells the side."""
    index, little = joints[1] - joints[0], joints[7] - joints[0]
    return bool(np.cross(index, little)[1] > 0)


def _read_npz(path):
    names = {*SHAPES, *mano_pickle.KEYS}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in names}
    except Exception as error:
        raise UserError(f"hand model {path}: not a readable .npz ({error})") from error
    required = mano_pickle.KEYS if "f" in arrays else [name for name in SHAPES if name not in ("posedirs",)]
    if missing := [name for name in required if name not in arrays]:
        raise UserError(f"hand model {path}: missing {', '.join(missing)}")
    return arrays


def _from_mano(path, arrays, is_left):
    """The official names as ours."""
    parents = arrays["kintree_table"]
    if parents.shape != (2, 16) or tuple(parents[0, 1:]) != skeleton.PARENTS[1:]:
        raise UserError(f"hand model {path}: kintree_table is not MANO's tree of 16 joints")
    tips = skeleton.MANO_TIP_VERTICES_LEFT if is_left else skeleton.MANO_TIP_VERTICES_RIGHT
    arrays = {name: array for name, array in arrays.items() if name in SHAPES} | {"faces": arrays["f"]}
    return {"tip_vertices": np.array(tips), **arrays}


def _check(path, arrays):
    for name, array in arrays.items():
        if array.shape != SHAPES[name]:
            raise UserError(f"hand model {path}: {name} is {array.shape}, expected {SHAPES[name]}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UserError(f"hand model {path}: {name} has values that are not finite numbers")
    for name in ("faces", "tip_vertices"):
        if arrays[name].min() < 0 or arrays[name].max() >= SHAPES["v_template"][0]:
            raise UserError(f"hand model {path}: {name} names vertices outside 0..777")
