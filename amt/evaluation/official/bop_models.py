"""The models of the BOP scores: the official ones where the data set has them, else those that amt knows.

Source: https://github.com/thodan/bop_toolkit (docs/bop_datasets_format.md, bop_toolkit_lib/misc.py)
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from amt.data.dexycb import DexYCB
from amt.data.files import FileError, describe, read_bytes
from amt.data.objects import Mesh, object_mesh, object_surface
from amt.data.ycb import OBJECTS
from amt.errors import UserError
from amt.evaluation.objects import diameter
from amt.geometry.primitives import symmetries

SYMMETRY_STEP = 0.01  # of the diameter, that a point far off an axis of symmetry moves between two turns
DIRECTIONS = 200
PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
# Millimetres, from the models of DexYCB to those of BOP's YCB-V. Source: dex_ycb_toolkit/bop_eval.py
OFFSETS = {
    1: (1.3360, -0.5000, 3.5105), 2: (0.5575, 1.7005, 4.8050), 3: (-0.9520, 1.4670, 4.3645),
    4: (-0.0240, -1.5270, 8.4035), 5: (1.2995, 2.4870, -11.8290), 6: (-0.1565, 0.1150, 4.2625),
    7: (1.1645, -4.2015, 3.1190), 8: (1.4460, -0.5915, 3.6085), 9: (2.4195, 0.3075, 8.0715),
    10: (-18.6730, 12.1915, -1.4635), 11: (5.3370, 5.8855, 25.6115), 12: (4.9290, -2.4800, -13.2920),
    13: (-0.2270, 0.7950, -2.9675), 14: (-8.4675, -0.6995, -1.6145), 15: (9.0710, 20.9360, -2.1190),
    16: (1.4265, -2.5305, 17.1890), 17: (7.0535, -28.1320, 0.0420), 18: (0.0460, -2.1040, 0.3500),
    19: (10.5180, -1.9640, -0.4745), 20: (-0.3950, -10.4130, 0.1620), 21: (-0.0805, 0.0805, -8.2435),
}  # fmt: skip


class BopModel(NamedTuple):
    """An object's points, diameter and symmetries [R|t] in its own frame, millimetres.

    A point of DexYCB's model is `offset` farther than in this one. `mesh` is None of a cloud of points. `corners` are
    some of the points, the farthest ones in many directions.
    """

    points: Float64[np.ndarray, "n 3"]
    corners: Float64[np.ndarray, "c 3"]
    mesh: Mesh | None
    diameter: float
    symmetries: Float64[np.ndarray, "s 3 4"]
    offset: Float64[np.ndarray, " 3"]


def model_folder(source: DexYCB) -> Path:
    """Where the data set's BOP part has the official models, if it has them."""
    return source.root / "bop" / source.split / "models_eval"


def load_model(source: DexYCB, ycb_id: int) -> BopModel:
    """One object's official model, else DexYCB's or, without that, its primitive with the primitive's symmetries.

    Raises: UserError for an unknown id, FileError for a broken model.
    """
    folder = model_folder(source)
    if not (folder / "models_info.json").is_file():
        return _own_model(source.root, ycb_id)
    try:
        info = json.loads((folder / "models_info.json").read_text())[str(ycb_id)]
        transforms, size = symmetry_transforms(info), float(info["diameter"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(folder / "models_info.json", f"object {ycb_id}: {describe(error)}") from error
    mesh = read_ply(folder / f"obj_{ycb_id:06d}.ply")
    return BopModel(mesh.vertices, corners(mesh.vertices), mesh, size, transforms, np.array(OFFSETS[ycb_id]))


def _own_model(root: Path, ycb_id: int) -> BopModel:
    mesh = object_mesh(root, ycb_id)
    points = object_surface(root, ycb_id).points.astype(np.float64) if mesh is None else mesh.vertices
    obj = OBJECTS[ycb_id]
    turns = symmetries(obj.primitive.axis).astype(np.float64) if obj.symmetric else np.eye(3)[None]
    transforms = np.concatenate([turns, np.zeros((len(turns), 3, 1))], -1)
    mesh = None if mesh is None else Mesh(mesh.vertices * 1000, mesh.faces)
    points = points * 1000
    return BopModel(points, corners(points), mesh, diameter(root, ycb_id) * 1000, transforms, np.zeros(3))


def corners(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "c 3"]:
    """The points that are the farthest in one of `DIRECTIONS` directions."""
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, 3))
    return points[np.unique((points @ directions.T).argmax(0))]


def symmetry_transforms(info: dict[str, Any]) -> Float64[np.ndarray, "s 3 4"]:
    """An entry of models_info.json: every discrete symmetry after every step about the axes of continuous ones.

    The step of 0 is missing, as in the bop_toolkit that DexYCB's toolkit comes with (a fork from before
    https://github.com/thodan/bop_toolkit/pull/70 of 2023): a true pose of such an object has an error of one step.
    """
    discrete = [np.eye(4)] + [np.reshape(s, (4, 4)) for s in info.get("symmetries_discrete", ())]
    steps = int(np.ceil(np.pi / SYMMETRY_STEP))
    continuous = []
    for symmetry in info.get("symmetries_continuous", ()):
        axis, offset = np.array(symmetry["axis"], float), np.array(symmetry["offset"], float)
        axis /= np.linalg.norm(axis)
        R = Rotation.from_rotvec(axis * (2 * np.pi / steps * np.arange(1, steps))[:, None]).as_matrix()
        T = np.tile(np.eye(4), (steps - 1, 1, 1))
        T[:, :3, :3], T[:, :3, 3] = R, offset - R @ offset
        continuous += list(T)
    return np.stack([c @ d for d in discrete for c in continuous or [np.eye(4)]])[:, :3]


def read_ply(path: Path) -> Mesh:
    """Vertices and triangles of a PLY file, text or binary, in the file's unit. Raises: FileError."""
    content = read_bytes(path)
    head, _, body = content.partition(b"end_header\n")
    try:
        header = head.decode("ascii").split("\n")
        form = next(line.split()[1] for line in header if line.startswith("format"))
        vertex, face = (_columns(header, name) for name in ("vertex", "face"))
        if form == "ascii":
            rows = [row.split() for row in body.decode("ascii").splitlines()]
            x = [vertex[1].index(name) for name in ("x", "y", "z")]
            points = np.array([[row[k] for k in x] for row in rows[: vertex[0]]], np.float64)
            rows = rows[vertex[0] : vertex[0] + face[0]]
            corners, faces = {int(row[0]) for row in rows}, np.array([row[1:4] for row in rows], np.int64)
        else:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}[form]
            record = np.dtype([(name, order + kind) for name, kind in zip(vertex[1], vertex[2], strict=True)])
            data = np.frombuffer(body, record, vertex[0])
            points = np.stack([data[name] for name in ("x", "y", "z")], -1).astype(np.float64)
            count, index = face[2][0]
            record = np.dtype([("count", order + count), ("index", order + index, 3)])
            faces = np.frombuffer(body, record, face[0], vertex[0] * data.itemsize)
            corners, faces = set(faces["count"].tolist()), faces["index"].astype(np.int64)
        if corners != {3}:
            raise UserError(f"faces of {corners} corners")
        mesh = Mesh(points.reshape(-1, 3), faces.reshape(-1, 3))
        if not len(mesh.faces) or mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
            raise UserError(f"{len(mesh.faces)} triangles over {len(mesh.vertices)} vertices")
    except (ValueError, KeyError, IndexError, StopIteration, UserError) as error:
        raise FileError(path, f"{describe(error)}; expected triangles in PLY format") from error
    return mesh


def _columns(header: list[str], element: str) -> tuple[int, list[str], list]:
    """Rows, names and types of an element of a PLY header; the type of a list is a pair."""
    start = next(k for k, line in enumerate(header) if line.split()[:2] == ["element", element])
    names, types = [], []
    for line in header[start + 1 :]:
        words = line.split()
        if not words or words[0] == "element":
            break
        if words[0] == "property":
            names.append(words[-1])
            kinds = [PLY_TYPES[word] for word in words[1:-1] if word != "list"]
            types.append(tuple(kinds) if words[1] == "list" else kinds[0])
    return int(header[start].split()[2]), names, types
