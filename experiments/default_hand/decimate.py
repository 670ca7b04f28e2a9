"""Half-edge quadric decimation: a subset of the vertices is left, so weights and shapes carry over exactly.

Garland and Heckbert, "Surface simplification using quadric error metrics", SIGGRAPH 1997, with the new vertex
placed on one end of the collapsed edge.
"""

import collections

import numpy as np


def decimate(vertices, faces, num_vertices, num_boundary, weights, protect=()):
    """(kept [num_vertices], faces [f,3] into the kept ones); the boundary loop keeps `num_boundary` vertices.

    Edges whose ends follow different joints (`weights` [v,16]) cost more; `protect` lists vertices never
    removed.
    """
    mesh = _Mesh(vertices, faces, weights, set(protect))
    while len(mesh.boundary) > num_boundary:
        _, i, j = min(
            (mesh.cost(i, j), i, j)
            for i in mesh.boundary
            for j in mesh.neighbours(i) & mesh.boundary
            if mesh.allowed(i, j)
        )
        mesh.collapse(i, j)
    while mesh.count > num_vertices:
        inner = [i for i in range(len(vertices)) if mesh.faces_of[i] and i not in mesh.boundary]
        queue = sorted((mesh.cost(i, j), i, j) for i in inner for j in mesh.neighbours(i))
        touched = set()
        for _, i, j in queue[: max(60, len(queue) // 8)]:
            if mesh.count == num_vertices:
                break
            fresh = i not in touched and j not in touched and mesh.faces_of[i] and j in mesh.neighbours(i)
            if fresh and mesh.allowed(i, j):
                touched |= mesh.neighbours(i) | mesh.neighbours(j)
                mesh.collapse(i, j)
    left = np.array([mesh.faces[k] for k in sorted(mesh.alive)])
    kept = np.unique(left)
    return kept, np.searchsorted(kept, left)


class _Mesh:
    def __init__(self, vertices, faces, weights, protect):
        self.vertices, self.weights, self.protect = vertices, weights, protect
        self.faces = [tuple(face) for face in faces]
        self.alive = set(range(len(faces)))
        self.count = len(vertices)
        self.faces_of = collections.defaultdict(set)
        self.quadrics = np.zeros((len(vertices), 4, 4))
        edges = collections.Counter()
        for k, face in enumerate(self.faces):
            normal, area = self.normal(face)
            plane = np.append(normal, -normal @ vertices[face[0]])
            for i in range(3):
                self.faces_of[face[i]].add(k)
                self.quadrics[face[i]] += area * np.outer(plane, plane)
                edges[frozenset((face[i], face[(i + 1) % 3]))] += 1
        self.boundary = {i for edge, count in edges.items() if count == 1 for i in edge}

    def normal(self, face):
        a, b, c = self.vertices[list(face)]
        cross = np.cross(b - a, c - a)
        length = np.linalg.norm(cross)
        return cross / (length + 1e-18), length / 2

    def neighbours(self, i):
        return {j for k in self.faces_of[i] for j in self.faces[k]} - {i}

    def cost(self, i, j):
        point = np.append(self.vertices[j], 1)
        error = point @ (self.quadrics[i] + self.quadrics[j]) @ point
        error += 1e-9 * np.sum((self.vertices[i] - self.vertices[j]) ** 2)
        return error * (1 + 8 * np.abs(self.weights[i] - self.weights[j]).sum())

    def allowed(self, i, j):
        """Whether i may move onto j: the surface stays a manifold, unflipped, with well shaped triangles."""
        if i in self.protect or (i in self.boundary and j not in self.boundary):
            return False
        around, shared = self.neighbours(i), self.faces_of[i] & self.faces_of[j]
        if len(around & self.neighbours(j)) != len(shared):
            return False
        if i in self.boundary and len(shared) != 1:
            return False
        for k in self.faces_of[i] - shared:
            before, _ = self.normal(self.faces[k])
            moved = [j if vertex == i else vertex for vertex in self.faces[k]]
            after, area = self.normal(moved)
            corners = self.vertices[moved]
            longest = max(np.sum((corners - np.roll(corners, 1, 0)) ** 2, 1))
            if before @ after < 0.3 or area < max(1e-10, 0.04 * longest):
                return False
        return len(self.neighbours(j) | around) - 2 <= 10

    def collapse(self, i, j):
        for k in list(self.faces_of[i]):
            if j in self.faces[k]:
                self.alive.discard(k)
                for vertex in self.faces[k]:
                    self.faces_of[vertex].discard(k)
            else:
                self.faces[k] = tuple(j if vertex == i else vertex for vertex in self.faces[k])
                self.faces_of[j].add(k)
        self.faces_of[i].clear()
        self.quadrics[j] += self.quadrics[i]
        self.boundary.discard(i)
        self.count -= 1
