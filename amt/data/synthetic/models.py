"""The 21 YCB objects as meshes close to their real shape, with the convex parts that collide, sites to grip and masses.

Extents are those of `amt.data.ycb`. Masses: Calli et al., "The YCB Object and Model Set", ICAR 2015, in kg.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from scipy.spatial.transform import Rotation

from amt.data.objects import Mesh, sample_mesh
from amt.data.synthetic import art
from amt.data.synthetic.shapes import SECOND, THIRD, Shape
from amt.data.ycb import OBJECTS

POINTS_SPACING = 0.007  # metres, as DexYCB's points.xyz
MASSES = {
    1: 0.414, 2: 0.411, 3: 0.514, 4: 0.349, 5: 0.603, 6: 0.171, 7: 0.187, 8: 0.097, 9: 0.370, 10: 0.066, 11: 0.178,
    12: 1.131, 13: 0.147, 14: 0.118, 15: 0.895, 16: 0.729, 17: 0.082, 18: 0.016, 19: 0.125, 20: 0.202, 21: 0.028,
}  # fmt: skip
Y_PLANE, Z_PLANE = 1, 2
# The axis along which a model can be mirrored and stay the same; the flat ones lie in their x-y plane.
MIRROR_AXIS = {i: Z_PLANE if i in (10, 15, 17, 18, 19, 20) else Y_PLANE for i in OBJECTS}


class Model(NamedTuple):
    """An object's shape and texture."""

    shape: Shape
    texture: UInt8[np.ndarray, "512 512 3"]


@functools.cache
def model(ycb_id: int) -> Model:
    """The model of a YCB object, 1..21."""
    half = OBJECTS[ycb_id].primitive.half.astype(np.float64)
    shape = Shape()
    _RECIPES[ycb_id](shape, half)
    return Model(shape, art.texture(ycb_id))


def _can(s, h, rim=0.0025):
    r, z = h[0], h[2]
    s.turned([(0, -z), (r, -z), (r, -z + rim), (r - 0.001, -z + rim), (r - 0.001, z - rim)], part="none")
    lid = [(r - 0.001, z - rim), (r, z - rim), (r, z), (r - 0.003, z), (r - 0.003, z - 0.003), (0, z - 0.003)]
    s.turned(lid, cell=SECOND, part="none")
    s.parts += Shape().turned([(r, -z), (r, z)], part="cylinder").parts
    s.site((0, 0, 0), h, round=2)


def _box(s, h):
    s.box(h).site((0, 0, 0), h)


def _mustard(s, h):
    x, y, z = h
    body = [(0, -z), (0.94 * x, -z), (x, -z + 0.01), (x, 0.2 * z), (0.86 * x, 0.45 * z), (0.5 * x, 0.62 * z)]
    s.turned(body, (1, y / x), 2.4)
    s.turned([(0.4 * y, 0.6 * z), (0.62 * y, 0.62 * z), (0.6 * y, 0.76 * z), (0.25 * y, 0.8 * z),
              (0.16 * y, z), (0, z)], cell=SECOND)  # fmt: skip
    s.site((0, 0, -0.3 * z), (x, y, 0.65 * z))


def _potted(s, h):
    x, y, z = h
    profile = [(0, -z), (0.97 * x, -z), (x, -z + 0.004), (x, z - 0.004), (0.97 * x, z)]
    s.turned(profile, (1, y / x), 4.0)
    s.turned([(0.97 * x, z), (0.93 * x, z - 0.002), (0, z - 0.002)], (1, y / x), 4.0, cell=SECOND, part="none")
    s.site((0, 0, 0), h)


def _banana(s, h):
    x, y, z = h
    angle = np.linspace(-1.0, 1.0, 9) * 0.83  # radians of a circle that is as long as the banana
    radius = (y - 0.006) / np.sin(0.83)
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], -1)
    thick = z * np.array([0.32, 0.66, 0.9, 1.0, 1.0, 1.0, 0.92, 0.7, 0.3])
    path[:, 0] += x - (path[:, 0] + thick).max()
    s.tube(path, thick)
    stem = path[-1] + np.array([[0, 0, 0], [-0.004, 0.006, 0]])
    s.tube(stem, [0.005, 0.0045], cell=SECOND, part=False)
    middle = path[2:7]
    s.site(middle.mean(0), (z, 0.045, z), round=1)


def _handle(s, center, a, b, reach, thick, cell):
    """A bow from `a` to `b` (radius, z at the wall) that stands out by `reach` along x."""
    t = np.linspace(0, np.pi, 7)
    z = (a[1] + b[1]) / 2 + (b[1] - a[1]) / 2 * -np.cos(t)
    x = a[0] + (b[0] - a[0]) * (t / np.pi) + (reach - thick) * np.sin(t) ** 0.6
    path = np.stack([x, 0 * x, z], -1) + center
    s.tube(path, thick, flat=1.3, normal=(0, 1, 0), cell=cell)
    return path


def _pitcher(s, h):
    z, r = h[2], 0.056
    center = np.array([-h[0] + r, 0, 0])
    s.vessel([(0.9 * r, -z), (0.93 * r, -0.3 * z), (r, z)], 0.003, center)
    path = _handle(s, center, (0.93 * r, -0.45 * z), (0.98 * r, 0.75 * z), 2 * h[0] - 2 * r - 0.001, 0.008, THIRD)
    s.site(path[2:5].mean(0), (0.009, 0.0105, 0.055), round=2)
    s.site(center + [-r, 0, z - 0.03], (0.002, 0.02, 0.03))
    s.site(center + [0, r, z - 0.03], (0.02, 0.002, 0.03))


def _bleach(s, h):
    x, y, z = h
    body = [(0, -z), (0.95 * x, -z), (x, -z + 0.01), (x, 0.15 * z), (0.9 * x, 0.4 * z), (0.42 * x, 0.66 * z)]
    s.turned(body, (1, y / x), 2.6)
    s.turned([(0.3 * x, 0.64 * z), (0.3 * x, 0.8 * z)], part="hull")
    s.turned([(0.37 * x, 0.78 * z), (0.37 * x, z), (0, z)], cell=SECOND)
    s.site((0, 0, -0.2 * z), (x, y, 0.6 * z)).site((0, 0, 0.85 * z), (0.37 * x, 0.37 * x, 0.12 * z), round=2)


def _bowl(s, h):
    r, z = h[0], h[2]
    t = np.linspace(0.18, 1, 4)
    s.vessel(np.stack([0.42 * r + 0.58 * r * np.sin(t * np.pi / 2) ** 1.4, -z + 2 * z * t**1.7], -1), 0.0035)
    for k in range(4):
        d = np.array([np.cos(k * np.pi / 2), np.sin(k * np.pi / 2), 0])
        R = Rotation.from_euler("z", k * np.pi / 2).as_matrix()
        s.site(0.96 * r * d + [0, 0, 0.6 * z], (0.003, 0.02, 0.35 * z), R)


def _mug(s, h):
    r, z = h[0], h[2]
    s.vessel([(0.94 * r, -z), (r, -z + 0.004), (r, z)], 0.004)
    path = _handle(s, np.zeros(3), (r - 0.002, -0.62 * z), (r - 0.002, 0.62 * z), 0.0257, 0.0055, THIRD)
    s.site((0, 0, 0), h, round=2)
    s.site((-r + 0.002, 0, 0.6 * z), (0.003, 0.02, 0.35 * z))
    s.site(path[2:5].mean(0), (0.006, 0.008, 0.022), round=2)


def _drill(s, h):
    x, y, z = h
    s.tube([[-x + 0.028, y - 0.034, 0], [x - 0.05, y - 0.034, 0]], [0.03, 0.027], flat=0.92)
    s.rod([x - 0.045, y - 0.034, 0], [x - 0.012, y - 0.034, 0], 0.017, cell=SECOND)
    s.rod([x - 0.012, y - 0.034, 0], [x, y - 0.034, 0], 0.006, cell=SECOND)
    low = np.array([-0.35 * x, -y + 0.04, 0])
    s.tube([[-0.12 * x, y - 0.055, 0], low], [0.02, 0.019], flat=0.95, cell=THIRD)
    s.box((0.045, 0.02, z), (-0.3 * x, -y + 0.02, 0), cell=SECOND)
    grip = np.array([[-0.12 * x, y - 0.06, 0], low])
    axis = (grip[1] - grip[0]) / np.linalg.norm(grip[1] - grip[0])
    R = np.stack([np.cross(axis, [0, 0, 1.0]), axis, [0, 0, 1.0]], 1)
    s.site(grip.mean(0), (0.02, 0.04, 0.019), R)
    s.site((-0.25 * x, y - 0.034, 0), (0.06, 0.029, 0.027))


def _scissors(s, h):
    x, y, z = h
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for side in (-1, 1):
        ring = np.stack([0.02 * np.cos(angle), 0.03 * np.sin(angle), 0 * angle], -1)
        ring += [side * (x - 0.0255), -y + 0.0355, 0]
        s.tube(ring, 0.0055, flat=z / 0.0055 * 0.95, closed=True, part=False)
        for a, b in zip(ring[::2], np.roll(ring[::2], -1, 0), strict=True):
            s.parts += Shape().tube([a, b], 0.0062, part=True).parts
        top = [side * (x - 0.031), -y + 0.065, 0]
        s.tube([top, [side * 0.006, -0.005, 0]], [0.006, 0.006], flat=0.9)
        blade = np.array([[side * 0.005, -0.01, 0], [side * 0.009, 0.03, 0], [side * 0.006, y - 0.004, 0]])
        s.tube(blade, [0.008, 0.008, 0.002], flat=0.3, cell=SECOND, part=False)
        s.parts += Shape().box((0.006, 0.45 * y, 0.0025), (side * 0.007, 0.47 * y, 0)).parts
    s.rod([0, 0, -0.8 * z], [0, 0, 0.8 * z], 0.006, cell=SECOND)
    s.site((0, -0.16 * y, 0), (0.02, 0.035, 0.006)).site((0, 0.05 * y, 0), (0.013, 0.03, 0.006))


def _marker(s, h):
    r, y = h[0], h[1]
    s.rod([0, -y, 0], [0, 0.3 * y, 0], r)
    s.rod([0, 0.3 * y, 0], [0, y, 0], r * 0.97, cell=SECOND)
    s.site((0, 0, 0), h, round=1)


def _clamp(s, h):
    x, y, z = h
    t = 0.42 * z
    for side in (-1, 1):
        s.tube([[side * (x - 0.012), -y + 0.012, 0], [side * 0.2 * x, -0.02 * y, 0]], [0.011, 0.009], flat=t / 0.009)
        jaw = [[side * 0.2 * x, -0.02 * y, 0], [side * 0.42 * x, 0.45 * y, 0], [side * 0.1 * x, y - 0.012, 0]]
        s.tube(jaw, [0.009, 0.011, 0.008], flat=t / 0.009, cell=THIRD)
    s.rod([0, -0.02 * y, -z], [0, -0.02 * y, z], 0.016, cell=SECOND)
    s.tube([[-0.2 * x, -0.02 * y, 0], [0.2 * x, -0.02 * y, 0]], 0.012, flat=1.0)
    s.site((0, 0.0, 0), (0.024, 0.02, z), round=-1).site((0, 0.1 * y, 0), (0.03, 0.03, t))
    s.site((0.55 * x, -0.45 * y, 0), (0.02, 0.012, t), Rotation.from_euler("z", -0.9).as_matrix())


_RECIPES = {
    1: _can, 2: _box, 3: _box, 4: _can, 5: _mustard, 6: _can, 7: _box, 8: _box, 9: _potted, 10: _banana, 11: _pitcher,
    12: _bleach, 13: _bowl, 14: _mug, 15: _drill, 16: _box, 17: _scissors, 18: _marker, 19: _clamp, 20: _clamp,
    21: _box,
}  # fmt: skip


def obj_text(shape: Shape, material: str = "material_0") -> str:
    """A Wavefront OBJ with texture coordinates."""
    lines = [f"mtllib textured_simple.obj.mtl\nusemtl {material}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in shape.vertices]
    lines += [f"vt {u:.5f} {v:.5f}" for u, v in shape.uv]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in shape.faces + 1]
    return "\n".join(lines) + "\n"


def write_models(folder: Path) -> None:
    """`NAME/textured_simple.obj`, its material and texture, and `points.xyz` of all objects, as DexYCB has them."""
    for ycb_id, entry in OBJECTS.items():
        shape, texture = model(ycb_id)
        place = folder / entry.name
        place.mkdir(parents=True, exist_ok=True)
        points = sample_mesh(Mesh(shape.vertices, shape.faces), POINTS_SPACING).points
        np.savetxt(place / "points.xyz", points, "%.6f")
        (place / "texture_map.png").write_bytes(cv2.imencode(".png", texture[..., ::-1])[1].tobytes())
        material = "newmtl material_0\nKa 1 1 1\nKd 1 1 1\nmap_Kd texture_map.png\n"
        (place / "textured_simple.obj.mtl").write_text(material)
        (place / "textured_simple.obj").write_text(obj_text(shape))
