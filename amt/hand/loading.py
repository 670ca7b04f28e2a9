"""Hand models from files: the embedded one, others of its format, and the official MANO pickle."""

import pathlib

import numpy as np

from amt.errors import UserError
from amt.hand import mano_pickle, poses, skeleton
from amt.hand.model import HandModel
from amt.storage import refuse_pointer

DEFAULT_HAND = pathlib.Path(__file__).parent / "default_hand.npz"

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


def load(path: str | pathlib.Path | None = None) -> HandModel:
    """The embedded CC0 right hand (no path), a .npz of its format, or MANO_RIGHT.pkl, never executed.

    The arrays are NumPy's, float32. Raises UserError for a file that is missing, of another kind, damaged, or
    not a hand of MANO's size and joint order.
    """
    path = DEFAULT_HAND if path is None else pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"hand model {path}: no such file; give a .npz, MANO_RIGHT.pkl, or none for the default")
    refuse_pointer(path)
    if path.suffix == ".npz":
        arrays = _read_npz(path)
    elif path.suffix == ".pkl":
        arrays = _read_mano(path)
    else:
        raise UserError(f"hand model {path}: expected a name ending in .npz or .pkl, found {path.name!r}")
    _check(path, arrays)
    integers = ("faces", "tip_vertices")
    arrays = {k: v.astype(np.int32 if k in integers else np.float32) for k, v in arrays.items()}
    if "flexion_axes" not in arrays:
        template = arrays["v_template"]
        tips = template[arrays["tip_vertices"]]
        joints = arrays["J_regressor"] @ template
        axes = poses.flexion_axes(joints, tips, template, arrays["weights"])
        arrays["flexion_axes"] = axes.astype(np.float32)
    tip_vertices = tuple(int(i) for i in arrays.pop("tip_vertices"))
    return HandModel(**{"posedirs": None, **arrays}, tip_vertices=tip_vertices)


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in SHAPES}
    except Exception as error:
        raise UserError(f"hand model {path}: not a readable .npz ({error})") from error
    missing = [name for name in SHAPES if name not in arrays and name != "posedirs"]
    if missing:
        raise UserError(f"hand model {path}: missing {', '.join(missing)}")
    return arrays


def _read_mano(path):
    if "LEFT" in path.name.upper():
        raise UserError(f"hand model {path}: give MANO_RIGHT.pkl; left hands are mirrored and use the right model")
    arrays = mano_pickle.read(path)
    arrays["faces"] = arrays.pop("f")
    parents = arrays.pop("kintree_table")
    if parents.shape != (2, 16) or tuple(parents[0, 1:]) != skeleton.PARENTS[1:]:
        raise UserError(f"hand model {path}: kintree_table is not MANO's tree of 16 joints")
    return {**arrays, "tip_vertices": np.array(skeleton.MANO_TIP_VERTICES_RIGHT)}


def _check(path, arrays):
    for name, array in arrays.items():
        if array.shape != SHAPES[name]:
            raise UserError(f"hand model {path}: {name} is {array.shape}, expected {SHAPES[name]}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UserError(f"hand model {path}: {name} has values that are not finite numbers")
    for name in ("faces", "tip_vertices"):
        if arrays[name].min() < 0 or arrays[name].max() >= SHAPES["v_template"][0]:
            raise UserError(f"hand model {path}: {name} names vertices outside 0..777")
