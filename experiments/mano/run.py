"""Compares amt's hands with smplx's: PYTHONPATH=. python experiments/mano/run.py --smplx-python=PYTHON

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
from tests.hand import mano

NUM_POSES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smplx-python", required=True)
    python, rng = parser.parse_args().smplx_python, np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.6, (NUM_POSES, 48)), rng.normal(0, 1, (NUM_POSES, 10))
    transl = rng.normal(0, 0.3, (NUM_POSES, 3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("RIGHT", "LEFT"):
            arrays = mano.arrays(seed=side == "LEFT", is_left=side == "LEFT")
            (folder / f"MANO_{side}.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
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
