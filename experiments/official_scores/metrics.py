"""Seconds that all metrics of --mode=evaluate take: made-up labels, models and predictions. See README.md."""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from run import write_data, write_models

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.evaluation.baseline import TrainingMean
from amt.evaluation.columns import Frames, Measure
from amt.evaluation.evaluate import SCORERS
from amt.evaluation.samples import join, with_motion
from amt.evaluation.summary import summarise
from amt.geometry import cameras
from amt.inference.predictor import FoundHands
from amt.structs import Contacts, HandPose, ObjectPoses, Prediction

GROUP = 72  # frames of a video, which evaluation compares at once
QUERIES, CONTACTS = 10, 10


def predictions(labels: dict[str, np.ndarray], rng: np.random.Generator) -> Prediction:
    """Labels with noise: 2 cm at joints and objects, contacts around the fingertips."""
    n = len(labels["K"])

    def noisy(x, size=0.02):
        return (x + rng.normal(0, size, x.shape)).astype(np.float32)

    joints, pose = noisy(labels["joints_3d"]), labels["object_pose"].copy()
    pose[..., 3] = noisy(pose[..., 3])
    confidence = np.full((n, QUERIES), 0.9, np.float32)
    eye = np.tile(np.eye(3, dtype=np.float32), (n, 15, 1, 1))
    hand = HandPose(eye[:, 0], eye, labels["betas"], joints[:, 0], joints, np.zeros((n, 778, 3), np.float32),
                    labels["is_left"], np.ones(n, bool))  # fmt: skip
    objects = ObjectPoses(pose, labels["object_ids"], confidence, confidence > 0.4)
    points = noisy(np.repeat(joints[:, [4, 8, 12, 16, 20]], 2, axis=1), 0.005)
    contacts = Contacts(points, confidence, np.ones((n, CONTACTS), int), np.ones((n, CONTACTS, 3), np.float32))
    return Prediction(hand, np.full((n, 21), 0.9, np.float32), np.ones(n, np.float32), objects, contacts, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.04, (21, 3)) * (np.arange(21) > 0)[:, None]
    mean = TrainingMean(joints, joints, joints, 0.5 + 2 * joints[:, :2], np.array([0.02, 0.03, 0.05]), 1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_data(root, 1)  # one sequence, whose frames come again and again
        write_models(root / "bop/s0/models_eval")
        source = DexYCB(root, "s0", "all", with_seg=True)
        predictor = SimpleNamespace(hand=hand_model.load(), margin=1.35, contacts_taught=True, mesh=None)
        measure = Measure(source, mean, predictor, {"weights": "none"})
        groups = []
        for k, start in enumerate(range(0, arguments.frames, GROUP)):
            numbers = np.arange(start, start + GROUP) % len(source)
            samples = [source.labels(int(i), with_seg=True) for i in numbers]
            labels = {key: np.stack([s[key] for s in samples]) for key in samples[0]}
            prediction = predictions(labels, rng)
            box = cameras.hand_box(labels["joints_2d"].astype(np.float64))
            found, clips = FoundHands((box,), np.zeros(GROUP), np.ones(GROUP)), np.full(GROUP, k)
            groups.append(Frames(numbers, clips, (640, 480), labels, prediction, prediction, found.presence, found))
        measure(groups[0])  # compiles, and reads the models
        start, before = time.monotonic(), time.process_time()
        with ThreadPoolExecutor(SCORERS) as scorers:
            samples = with_motion(join(list(scorers.map(measure, groups))))
        middle, between = time.monotonic(), time.process_time()
        summarise(samples)
        end, after = time.monotonic(), time.process_time()
    print(f"{len(samples)} frames, {os.cpu_count()} cores")
    print(f"columns: {middle - start:.1f} s, processor time {between - before:.1f} s")
    print(f"figures, groups, intervals: {end - middle:.1f} s, processor time {after - between:.1f} s")


if __name__ == "__main__":
    main()
