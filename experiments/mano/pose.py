"""Poses synthetic MANO files with smplx, in an environment of its own: python pose.py FOLDER

Reads FOLDER/MANO_*.pkl and FOLDER/poses.npz, writes FOLDER/smplx.npz. smplx may not be used commercially, so nothing of
amt imports it.
"""

import sys
from pathlib import Path

import numpy as np
import smplx
import torch


def main(folder: Path) -> None:
    poses, found = np.load(folder / "poses.npz"), {}
    pose, betas, transl = (torch.tensor(poses[name]) for name in ("pose", "betas", "transl"))
    for side in ("right", "left"):
        layer = smplx.create(
            str(folder / f"MANO_{side.upper()}.pkl"),
            "mano",
            is_rhand=side == "right",
            use_pca=False,  # smplx takes 45 coefficients for axis-angle vectors, whatever use_pca says
            num_pca_comps=45,
            flat_hand_mean=False,
            batch_size=len(pose),
            dtype=torch.float64,
        )
        hand_pose = pose[:, 3:] @ torch.tensor(layer.np_hand_components)
        out = layer(betas=betas, global_orient=pose[:, :3], hand_pose=hand_pose, transl=transl)
        found |= {f"{side}_vertices": out.vertices.detach().numpy(), f"{side}_joints": out.joints.detach().numpy()}
    np.savez(folder / "smplx.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
