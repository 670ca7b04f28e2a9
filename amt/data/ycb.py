"""The 21 YCB objects of DexYCB: names, symmetries, and the box or cylinder that stands for each.

`ycb_dims.json` holds the extents in millimetres of the models' axis-aligned (`aabb_mm`, in the model's axes)
and oriented (`obb_mm`, longest first) bounding boxes. Source: objects https://www.ycbbenchmarks.com, ids
https://github.com/NVlabs/dex-ycb-toolkit
"""

import json
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from amt.geometry.primitives import BOX

UNUSED_ID = 19  # 051_large_clamp: no sequence of DexYCB has it
SYMMETRIC_IDS = frozenset({1, 13, 14, 16, 18, 19, 20, 21})  # looks the same after some rotation

_X, _Y, _Z = range(3)
_CYLINDERS = {1: _Z, 4: _Z, 6: _Z, 11: _Z, 13: _Z, 14: _Z, 18: _Y}  # cans, pitcher, bowl, mug, marker


class Primitive(NamedTuple):
    """A box or cylinder, centred in its own frame: half extents in metres along x, y, z.

    `axis` is 0, 1 or 2 for a cylinder along that axis and `BOX` for a box (`amt.geometry.primitives`).
    """

    half: Float32[np.ndarray, " 3"]
    axis: int

    @property
    def diameter(self) -> float:
        """The largest distance between two of its points, metres."""
        if self.axis == BOX:
            return 2 * float(np.linalg.norm(self.half))
        return 2 * float(np.hypot(self.half[self.axis], self.half[self.axis - 1]))


class YcbObject(NamedTuple):
    """One object: its id (1..21), its name (`002_master_chef_can`) and what stands for it."""

    id: int
    name: str
    primitive: Primitive
    symmetric: bool


def _primitive(ycb_id: int, aabb_mm: list[float], obb_mm: list[float]) -> Primitive:
    """A cylinder for cans, pitcher, bowl, mug and marker, a box for the rest.

    Its sizes are the oriented bounding box's, put on the model's axes in the order of the axis-aligned one:
    some models (pudding box, banana, wood block, clamps) lie askew in their axes and would come out far too
    wide. A cylinder's radius is half the smaller width, which leaves handles out. Real models are neither
    exactly centred nor exactly aligned; generated scenes hold the primitives themselves.
    """
    half = np.empty(3, np.float32)
    half[np.argsort(aabb_mm)] = np.sort(obb_mm) / 2000
    axis = _CYLINDERS.get(ycb_id, BOX)
    if axis != BOX:
        across = [i for i in range(3) if i != axis]
        half[across] = half[across].min()
    return Primitive(half, axis)


def _load() -> dict[int, YcbObject]:
    dims = json.loads(files("amt.data").joinpath("ycb_dims.json").read_text())
    return {
        e["id"]: YcbObject(e["id"], name, _primitive(e["id"], e["aabb_mm"], e["obb_mm"]), e["id"] in SYMMETRIC_IDS)
        for name, e in dims.items()
    }


OBJECTS = _load()  # by id, 1..21
USED_IDS = tuple(i for i in OBJECTS if i != UNUSED_ID)


def primitive_table() -> tuple[Float32[np.ndarray, "22 3"], Int32[np.ndarray, " 22"]]:
    """Half extents (metres) and axis of every object, by its id; row 0, no object, is a box without size."""
    primitives = [Primitive(np.zeros(3, np.float32), BOX), *(OBJECTS[i].primitive for i in sorted(OBJECTS))]
    return np.stack([p.half for p in primitives]), np.array([p.axis for p in primitives], np.int32)
