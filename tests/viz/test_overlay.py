"""Overlays: lines land where the projection says, and nothing behind the camera is drawn."""

import numpy as np
import pytest

from amt.structs import Camera, Contacts, HandPose, ObjectPoses, Prediction
from amt.viz.overlay import (
    AXES,
    BOX,
    CONTACT,
    FINGER_COLORS,
    OUTLINE,
    Canvas,
    draw_object,
    draw_outline,
    draw_overlay,
)

K = np.array([[500.0, 0, 160], [0, 500, 120], [0, 0, 1]])
SQUARE = np.array([[-0.05, -0.05, 0.5], [0.05, -0.05, 0.5], [0.05, 0.05, 0.5], [-0.05, 0.05, 0.5]])
SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]])


def blank():
    return Canvas(np.zeros((240, 320, 3), np.uint8), K)


def make_prediction(z=0.5, valid=True):
    joints = np.random.default_rng(0).uniform(-0.08, 0.08, (1, 21, 3)) + [0, 0, z]
    joints[0, 9:13] = [[0, 0, z], [0.02, 0, z], [0.04, 0, z], [0.06, 0, z]]
    eye = np.eye(3)
    return Prediction(
        hand=HandPose(
            global_orient=eye[None],
            hand_pose=np.tile(eye, (1, 15, 1, 1)),
            betas=np.zeros((1, 10)),
            transl=joints[:, 0],
            joints=joints,
            vertices=(SQUARE + [0, 0, z - 0.5])[None],
            is_left=np.zeros(1, bool),
            valid=np.array([valid]),
        ),
        joint_confidence=np.ones((1, 21)),
        side_confidence=np.ones(1),
        objects=ObjectPoses(
            pose=np.hstack([eye, [[0.1], [-0.05], [z]]])[None, None],
            ycb_ids=np.array([[3]]),
            confidence=np.ones((1, 1)),
            valid=np.ones((1, 1), bool),
        ),
        contacts=Contacts(
            points=np.array([[[-0.1, 0.08, z], [-0.1, -0.08, z]]]),
            confidence=np.array([[0.9, 0.1]]),
            kind=np.ones((1, 2), int),
            force=np.zeros((1, 2, 3)),
        ),
        camera=Camera(K=K, T_world_camera=np.eye(4)),
    )


def near(image, color, levels=40):
    """Pixels within so many grey levels of a colour, as (x, y)."""
    hit = (np.abs(image.astype(int) - color) < levels).all(-1)
    return np.argwhere(hit)[:, ::-1]


def test_each_part_is_drawn_where_it_projects():
    before = np.full((240, 320, 3), 90, np.uint8)
    image = draw_overlay(before, make_prediction(), 0, faces=SQUARE_FACES, object_sizes={3: (0.04, 0.04, 0.04)})
    assert (before == 90).all()
    assert image.shape == before.shape and image.dtype == np.uint8
    tip = 500 * 0.06 / 0.5 + 160
    assert np.abs(near(image, FINGER_COLORS["middle"]) - [tip, 120]).max(1).min() <= 1
    contact = near(image, CONTACT)
    assert len(contact) and np.abs(contact - [60, 200]).max() < 6  # the unsure one is left out
    assert np.abs(near(image, AXES[0]).max(0) - [160 + 500 * 0.15 / 0.5, 70]).max() <= 3
    assert len(near(image, BOX))


def test_what_is_lost_is_not_drawn():
    image = draw_overlay(np.full((240, 320, 3), 90, np.uint8), make_prediction(valid=False), 0, faces=SQUARE_FACES)
    for color in (*FINGER_COLORS.values(), CONTACT):
        assert not len(near(image, color, levels=5))
    assert len(near(image, AXES[0]))


def test_outline_is_the_silhouette_of_the_mesh():
    canvas = blank()
    draw_outline(canvas, SQUARE, SQUARE_FACES)
    drawn = near(canvas.image, OUTLINE)
    np.testing.assert_array_equal(drawn.min(0), [110, 70])
    np.testing.assert_array_equal(drawn.max(0), [210, 170])
    assert not canvas.image[80:160, 120:200].any()  # neither the inside nor the diagonal edge


@pytest.mark.parametrize("z", [-0.5, -0.06])
def test_nothing_behind_the_camera(z):
    image = draw_overlay(np.full((240, 320, 3), 90, np.uint8), make_prediction(z), 0, faces=SQUARE_FACES)
    assert (image[40:] == 90).all()  # below the text line


def test_a_box_that_reaches_behind_the_camera_is_cut():
    canvas = blank()
    draw_object(canvas, np.hstack([np.eye(3), [[0.0], [0.0], [0.3]]]), (0.1, 0.1, 1.0), "long box")
    corners = 160 + 500 * 0.05 / 0.8 * np.array([-1, 1])  # of the far side, z = 0.8
    drawn = near(canvas.image, BOX)
    for x in corners:
        assert np.abs(drawn[:, 0] - x).min() <= 1
    canvas.line(np.array([0, 0, -1.0]), np.array([0, 0, -2.0]), BOX)


def test_lines_scale_with_the_image():
    assert Canvas(np.zeros((720, 1280, 3), np.uint8), K).scale == 2.0


def test_one_camera_a_frame_is_possible():
    prediction = make_prediction()
    moved = prediction.replace(camera=Camera(K=K[None], T_world_camera=np.eye(4)[None]))
    image = np.zeros((240, 320, 3), np.uint8)
    np.testing.assert_array_equal(
        draw_overlay(image, prediction, 0, faces=SQUARE_FACES),
        draw_overlay(image, moved, 0, faces=SQUARE_FACES),
    )
