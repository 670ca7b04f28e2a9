"""How far the embedded weights are from MediaPipe's landmarks on a real video of a bare hand.

python experiments/real_video/run.py --video=human_hand_video.mp4 --keypoints=human_hand_keypoints.npz --sheet=sheet.png
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import amt
from amt.geometry import cameras
from amt.hand.skeleton import BONES_21
from amt.inference.intrinsics import make_camera
from amt.inference.video import read_frames

COLORS = ((255, 120, 90), (255, 205, 60), (90, 220, 110), (70, 170, 255), (205, 120, 255))  # thumb to little, RGB
FIELD_OF_VIEW = 0.96  # radians, as configs/base.py assumes of an unknown camera
SHEET = (4, 6)  # rows, columns
HALF = 260  # pixels around the hand that a tile shows


def draw(image, joints, landmarks, size=260):
    """The hand with the predicted skeleton and MediaPipe's landmarks (white)."""
    image = image.copy()
    for a, b in BONES_21:
        ends = (tuple(int(v) for v in joints[k]) for k in (a, b))
        cv2.line(image, *ends, COLORS[(b - 1) // 4], 6, cv2.LINE_AA)
    for point in landmarks:
        cv2.circle(image, tuple(int(v) for v in point), 6, (255, 255, 255), -1, cv2.LINE_AA)
    x, y = (int(np.clip(c, HALF, n - HALF)) for c, n in zip(landmarks.mean(0), image.shape[1::-1], strict=True))
    tile = image[y - HALF : y + HALF, x - HALF : x + HALF]
    return cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--keypoints", type=Path, required=True, help="npz with uv [frames,21,2], pixels")
    parser.add_argument("--sheet", type=Path, help="a picture of some frames is written here")
    parser.add_argument("--weights", help="a folder of --mode=train or a file; the embedded ones without")
    parser.add_argument("--every", type=int, default=3, help="every n-th frame is looked at")
    args = parser.parse_args()
    frames = read_frames(args.video).frames[:: args.every]
    landmarks = np.load(args.keypoints)["uv"][:: args.every]
    camera = make_camera((), (), frames.shape[2], frames.shape[1], FIELD_OF_VIEW).camera
    prediction = amt.load_predictor(args.weights)(frames, camera)
    joints = prediction.hand.joints.astype(np.float64)
    joints[..., 2] = np.maximum(joints[..., 2], 0.05)
    pixels = cameras.project(joints, np.asarray(camera.K, np.float64))
    diagonal = np.linalg.norm(np.ptp(landmarks, axis=1), axis=-1)
    error = np.linalg.norm(pixels - landmarks, axis=-1) / diagonal[:, None]
    error = error[np.isfinite(error).all(1)]
    print(f"{len(frames)} frames, a hand in {prediction.hand.valid.mean():.1%}")
    print(f"of the box diagonal: joints' median {np.median(error):.2%}, frames' median {np.median(error.mean(1)):.2%}")
    if args.sheet:
        rows, columns = SHEET
        chosen = np.linspace(0, len(frames) - 1, rows * columns).astype(int)
        tiles = [draw(frames[k], pixels[k], landmarks[k]) for k in chosen]
        lines = [np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)]
        cv2.imwrite(str(args.sheet), np.concatenate(lines)[..., ::-1])


if __name__ == "__main__":
    main()
