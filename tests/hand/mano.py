"""Synthetic hands in MANO's files: other bases than the embedded hand's, the left one with the official one's quirk."""

import numpy as np

import amt.hand
from amt.hand import skeleton

EMBEDDED = amt.hand.load()
MIRROR = np.array([-1.0, 1.0, 1.0])


def arrays(seed: int, is_left: bool = False) -> dict[str, np.ndarray]:
    """A hand under MANO's names: its own template, shapes, correctives, mean pose and PCA basis.

    Like the official MANO_LEFT its shape basis is that of a right hand: x is not negated.
    """
    rng = np.random.default_rng(seed)
    template = EMBEDDED.v_template.astype(np.float64) * rng.uniform(0.9, 1.1, 3)
    basis, _ = np.linalg.qr(rng.normal(size=(45, 45)))
    parents = np.array(skeleton.PARENTS).astype(np.uint32)
    return {
        "v_template": template * MIRROR if is_left else template,
        "shapedirs": EMBEDDED.shapedirs * rng.uniform(0.5, 1.5, 10) + rng.normal(0, 2e-4, (778, 3, 10)),
        "posedirs": rng.normal(0, 5e-4, (778, 3, 135)),
        "J_regressor": EMBEDDED.J_regressor.astype(np.float64),
        "weights": EMBEDDED.weights.astype(np.float64),
        "kintree_table": np.stack([parents, np.arange(16, dtype=np.uint32)]),
        "f": (EMBEDDED.faces[:, ::-1] if is_left else EMBEDDED.faces).astype(np.uint32),
        "hands_mean": rng.normal(0, 0.2, 45),
        "hands_components": basis,
    }


def write(folder, seed: int = 0):
    """MANO_RIGHT.npz and MANO_LEFT.npz in `folder`; returns the paths."""
    paths = folder / "MANO_RIGHT.npz", folder / "MANO_LEFT.npz"
    for path, is_left in zip(paths, (False, True), strict=True):
        np.savez(path, **arrays(seed + is_left, is_left))
    return paths
