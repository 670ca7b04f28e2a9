"""A table of evaluated frames without a data set: labels and predictions that are labels with noise."""

import numpy as np

from amt.evaluation.contacts import LIMITS_MM
from amt.evaluation.samples import Samples, make_samples

COUNTS = [
    f"{prefix}contact_{part}_{name}{mm}mm"
    for prefix in ("", "mean_")
    for part in ("predicted", "right", "true", "found")
    for name in ("", "relative_")
    for mm in LIMITS_MM
]


def table(videos=4, frames=5, seed=0, noise=0.01, cameras=1) -> Samples:
    """`noise` metres around joints at random; so many videos in a row are cameras of one recording."""
    rng, n = np.random.default_rng(seed), videos * frames
    clip, frame = np.repeat(np.arange(videos), frames), np.tile(np.arange(frames), videos)
    truth = rng.normal(0, 0.05, (n, 21, 3)) + [0, 0, 0.6]
    joints = truth + rng.normal(0, noise, truth.shape)
    errors = {
        "joint_error_mm": joints - truth,
        "root_relative_joint_error_mm": (joints - joints[:, :1]) - (truth - truth[:, :1]),
        "aligned_joint_error_mm": 0.5 * (joints - truth),
    }
    errors = {name: 1000 * np.linalg.norm(x, axis=-1) for name, x in errors.items()}
    columns = {
        "index": np.arange(n),
        "clip": clip,
        "sequence": np.array([f"20200709_{k // cameras:06d}" for k in clip]),
        "subject": np.array([f"subject-{k // cameras % 2}" for k in clip]),
        "camera": np.array([f"camera{k % 3}" for k in clip]),
        "frame": frame,
        "rate_hz": np.full(n, 30.0),
        "is_left": clip % 2 == 1,
        "object_id": clip % 3,
        "grasp_kind": np.where(clip % 3, "power", ""),
        "touches": frame % 3 - 1,
        "image_size_px": np.tile([640, 480], (n, 1)),
        "K_px": np.tile([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], (n, 1, 1)),
        "joint_visible": rng.random((n, 21)) < 0.8,
        "visible_by_seg": np.ones(n),
        "true_joints_m": truth,
        "true_object_pose_m": rng.normal(size=(n, 3, 4)),
        "true_contact_points_m": rng.normal(size=(n, 10, 3)),
        "true_contact_valid": np.ones((n, 10)),
        "true_contact_kind": np.ones((n, 10)),
        "true_contact_force_n": rng.normal(size=(n, 10, 3)),
        "found_center_px": rng.normal(320, 9, (n, 2)),
        "found_size_px": rng.normal(90, 9, n),
        "found_angle_rad": rng.normal(0, 1, n),
        "hand_found": np.ones(n),
        "predicted_left": clip % 2 == 1,
        "joints_m": joints,
        "joint_confidence": rng.random((n, 21)),
        "global_orient": rng.normal(size=(n, 3, 3)),
        "hand_pose": rng.normal(size=(n, 15, 3, 3)),
        "betas": rng.normal(size=(n, 10)),
        "transl_m": rng.normal(size=(n, 3)),
        "object_pose_m": rng.normal(size=(n, 3, 4)),
        "contact_points_m": rng.normal(size=(n, 6, 3)),
        "contact_confidence": rng.random((n, 6)),
        "contact_kind": np.ones((n, 6)),
        "contact_force_n": rng.normal(size=(n, 6, 3)),
        "joint_error_2d_px": errors["joint_error_mm"] / 2,
        **errors,
    }
    figures = {
        "mpjpe_mm": errors["root_relative_joint_error_mm"].mean(-1),
        "pa_mpjpe_mm": errors["aligned_joint_error_mm"].mean(-1),
        "mean_mpjpe_mm": np.full(n, 60.0),
    }
    figures["add_s_mm"] = rng.gamma(2, 20, n)
    counts = {name: rng.integers(0, 3 if "right" in name or "found" in name else 6, n) for name in COUNTS}
    counts |= {"contact_frames": np.ones(n), "contact_simulated": np.zeros(n)}
    about = {"weights": "w", "root": "/data", "split": "s0", "part": "test", "source_samples": 1000}
    return make_samples(about, columns, figures, counts)
