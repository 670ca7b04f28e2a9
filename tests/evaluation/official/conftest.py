"""A small data set with hands and objects in the segmentation, written by hand."""

import cv2
import numpy as np
import pytest

from amt.data.dexycb import DexYCB
from amt.evaluation.official import score_file
from tests.data import layout

UNLABELLED = (1, 3)  # camera and frame without a hand's labels


def labels(subject, sequence, camera, frame):
    """As `layout.real_labels`, with a rectangle of the grasped object and the hand's outline, all of it in view."""
    found = layout.real_labels(subject, sequence, camera, frame)
    found["pose_y"][..., 3] = [[0.03, 0.02, 0.5], [-0.05, 0.01, 0.6]]
    found["seg"][200:260, 100:180] = 18
    cv2.fillConvexPoly(found["seg"], cv2.convexHull(found["joint_2d"][0]).astype(np.int32), 255)
    if (camera, frame) == UNLABELLED:
        found["joint_3d"][:] = found["joint_2d"][:] = -1
    return found


@pytest.fixture(scope="package")
def source(tmp_path_factory):
    """s0 test: one sequence, three cameras, six frames each; all but one of the 18 samples have a labelled hand."""
    root = tmp_path_factory.mktemp("official")
    layout.write(root, layout.SUBJECTS[2:], num_frames=6, make=labels, size=(640, 480))
    return DexYCB(root, "s0", "test")


def score_of(path, source, with_vsd=False):
    """`score_file`, which has to tell of every frame."""
    told = []
    figures = score_file(path, source, with_vsd, told.append)
    assert sum(told) == len(source)
    return figures
