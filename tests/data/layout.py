"""A data set in the DexYCB layout, written by hand from the dataset's description."""

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

SERIALS = ["836212060125", "839512060362", "932122061900"]
SUBJECTS = ["20250709-subject-01", "20250813-subject-02", "20250820-subject-03"]  # not DexYCB's: those have 100 each
NUM_FRAMES, NUM_SEQUENCES = 3, 5
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21465c\nsize 1217522888\n"  # of Git LFS


def labels(subject: int, sequence: int, camera: int, frame: int) -> dict:
    """Numbers that differ in every frame of every camera."""
    rng = np.random.default_rng([subject, sequence, camera, frame])
    return {
        "seg": rng.integers(0, 22, (12, 16)).astype(np.uint8),
        "pose_y": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "pose_m": rng.normal(size=(1, 51)).astype(np.float32),
        "joint_3d": rng.normal(size=(1, 21, 3)).astype(np.float32),
        "joint_2d": rng.normal(size=(1, 21, 2)).astype(np.float32),
    }


def real_labels(subject: int, sequence: int, camera: int, frame: int) -> dict:
    """A flat hand 60 cm before the camera, with the joints where this camera sees them, and two objects."""
    rng = np.random.default_rng([subject, sequence, camera, frame])
    angles = np.radians([-50, -20, 0, 20, 40])
    lengths = np.array([0.09, 0.12, 0.15, 0.17])
    fingers = lengths[:, None] * np.stack([np.sin(angles), np.cos(angles), 0 * angles], -1)[:, None]
    joints = np.concatenate([np.zeros((1, 3)), fingers.reshape(20, 3)])
    joints = joints @ Rotation.random(random_state=rng).as_matrix() + [*rng.uniform(-0.05, 0.05, 2), 0.6]
    K = np.array([[600.0 + camera, 0, 320.5], [0, 610, 240], [0, 0, 1]])
    uv = joints @ K.T
    objects = Rotation.random(2, random_state=rng).as_matrix()
    seg = np.zeros((480, 640), np.uint8)
    return {
        "seg": seg,
        "pose_y": np.concatenate([objects, rng.uniform(0.4, 0.6, (2, 3, 1))], -1).astype(np.float32),
        "pose_m": rng.normal(0, 0.3, (1, 51)).astype(np.float32),
        "joint_3d": joints[None].astype(np.float32),
        "joint_2d": (uv[:, :2] / uv[:, 2:])[None].astype(np.float32),
    }


def write(root, subjects=SUBJECTS, num_sequences=NUM_SEQUENCES, num_frames=NUM_FRAMES, make=labels, size=(16, 12)):
    """`num_sequences` of every subject; `make` gives a frame's labels, `size` is the images' width and height."""
    calibration = root / "calibration"
    (calibration / "intrinsics").mkdir(parents=True)
    (calibration / "extrinsics_20200702").mkdir()
    for camera, serial in enumerate(SERIALS):
        color = {"fx": 600.0 + camera, "fy": 610.0, "ppx": 320.5, "ppy": 240.0}
        save(calibration / f"intrinsics/{serial}_640x480.yml", {"color": color, "depth": {}})
    rows = "".join(f"  '{serial}': !!python/tuple [{row(camera)}]\n" for camera, serial in enumerate(SERIALS))
    (calibration / "extrinsics_20200702/extrinsics.yml").write_text(f"extrinsics:\n{rows}master: '{SERIALS[0]}'\n")
    for s, subject in enumerate(subjects):
        calib = f"{subject}_right"
        (calibration / f"mano_{calib}").mkdir()
        save(calibration / f"mano_{calib}/mano.yml", {"betas": [0.1 * s] * 10})
        for q in range(num_sequences):
            folder = root / subject / f"{subject[:8]}_14145{q}"
            meta = {
                "serials": SERIALS,
                "num_frames": num_frames,
                "extrinsics": "20200702",
                "ycb_ids": [4, 18],
            }
            meta |= {"ycb_grasp_ind": 1, "mano_sides": ["left" if q == 1 else "right"], "mano_calib": [calib]}
            for c, serial in enumerate(SERIALS):
                (folder / serial).mkdir(parents=True)
                for f in range(num_frames):
                    np.savez(folder / serial / f"labels_{f:06d}.npz", **make(s, q, c, f))
                    image = np.full((size[1], size[0], 3), 10 * f, np.uint8)
                    cv2.imwrite(str(folder / serial / f"color_{f:06d}.jpg"), image)
            save(folder / "meta.yml", meta)


def row(camera: int) -> str:
    return f"1, 0, 0, {camera}, 0, 0, -1, 2, 0, 1, 0, 3"


def save(path, content):
    path.write_text(yaml.safe_dump(content))


def change(path, **fields):
    """Other values in a YAML file."""
    save(path, yaml.safe_load(path.read_text()) | fields)


def change_arrays(path, **arrays):
    """Other arrays in an .npz file."""
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | arrays)


def first(root, name: str):
    return sorted(root.rglob(name))[0]


def cut(path):
    """Loses the end of a file."""
    path.write_bytes(path.read_bytes()[:-100])


def contents(root) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
