"""The sheet of crops: its size, and skeletons where the camera sees them."""

import numpy as np

from amt.viz.sheet import COLUMNS, LABEL, TILE, contact_sheet

SIZE = 64


def test_skeletons_lie_where_the_camera_sees_the_joints():
    K = np.tile([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1]], (5, 1, 1))
    images = np.zeros((5, SIZE, SIZE, 3), np.uint8)
    left, right = (np.tile([x, 0.0, 1.0], (5, 21, 1)) for x in (-0.25, 0.25))
    valid = np.array([True, True, True, False, True])
    sheet = contact_sheet(images, K, predicted=left, labelled=right, valid=valid)
    assert sheet.shape == (2 * TILE, COLUMNS * TILE, 3)
    for i in range(5):
        row, column = divmod(i, COLUMNS)
        tile = sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        assert tile[TILE // 2, TILE // 4].any()
        assert tuple(tile[TILE // 2, 3 * TILE // 4]) == (LABEL if valid[i] else (0, 0, 0))
        rows, columns = np.nonzero(tile.any(-1))
        assert abs(rows - TILE // 2).max() < 8 and set(columns // (TILE // 2)) == ({0, 1} if valid[i] else {0})
    assert not sheet[TILE:, TILE:].any()
