"""Compares amt's left and right MANO hands with smplx: python experiments/mano/run.py --smplx-python=PYTHON

PYTHON is an interpreter that has smplx and torch.
"""

import argparse
import pickle
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import amt.hand
from amt.geometry import mirror
from amt.hand import skeleton

NUM_POSES = 64
MIRROR = np.array([-1.0, 1.0, 1.0])


def synthetic(rng: np.random.Generator, is_left: bool) -> dict[str, np.ndarray]:
    """MANO's arrays with bases of their own; like the official left one, x of the left shape basis is not negated."""
    hand = amt.hand.load()
    template = hand.v_template * rng.uniform(0.9, 1.1, 3) * (MIRROR if is_left else 1)
    parents = np.array(skeleton.PARENTS).astype(np.uint32)
    return {
        "v_template": template,
        "shapedirs": hand.shapedirs * rng.uniform(0.5, 1.5, 10) + rng.normal(0, 2e-4, (778, 3, 10)),
        "posedirs": rng.normal(0, 5e-4, (778, 3, 135)),
        "J_regressor": hand.J_regressor.astype(np.float64),
        "weights": hand.weights.astype(np.float64),
        "kintree_table": np.stack([parents, np.arange(16, dtype=np.uint32)]),
        "f": (hand.faces[:, ::-1] if is_left else hand.faces).astype(np.uint32),
        "hands_mean": rng.normal(0, 0.2, 45),
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smplx-python", required=True)
    python, rng = parser.parse_args().smplx_python, np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.6, (NUM_POSES, 48)), rng.normal(0, 1, (NUM_POSES, 10))
    transl = rng.normal(0, 0.3, (NUM_POSES, 3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("RIGHT", "LEFT"):
            (folder / f"MANO_{side}.pkl").write_bytes(pickle.dumps(synthetic(rng, side == "LEFT"), protocol=2))
        np.savez(folder / "poses.npz", pose=pose, betas=betas, transl=transl)
        subprocess.run([python, Path(__file__).with_name("pose.py"), folder], check=True)
        theirs = dict(np.load(folder / "smplx.npz"))
        hand = amt.hand.load(folder / "MANO_RIGHT.pkl", folder / "MANO_LEFT.pkl")
    pose, betas, transl = (x.astype(np.float32) for x in (pose, betas, transl))
    mirrored = mirror.mirror_hand_pose(pose), betas, mirror.mirror_points(transl)
    print(f"{'':<34}{'joints':>12}{'vertices':>12}  largest distance from smplx, mm")
    for name, model, args, back, side in (
        ("right", hand, (pose, betas, transl), lambda x: x, "right"),
        ("left, by MANO_LEFT", hand.left, mirrored, mirror.mirror_points, "left"),
        ("left, by the mirrored MANO_RIGHT", hand, mirrored, mirror.mirror_points, "left"),
    ):
        rotations = model.rotations(args[0])
        _, vertices, T_joint = model.from_rotations(rotations, *args[1:])
        ours = {"joints": back(np.asarray(T_joint)[..., :3, 3]), "vertices": back(np.asarray(vertices))}
        errors = [np.linalg.norm(x - theirs[f"{side}_{k}"], axis=-1).max() * 1000 for k, x in ours.items()]
        print(f"{name:<34}{errors[0]:>12.2e}{errors[1]:>12.2e}")


if __name__ == "__main__":
    main()
