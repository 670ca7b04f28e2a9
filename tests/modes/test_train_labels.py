"""Training on data sets that lack labels: what there is is learned, and nothing at all is one error at once."""

import shutil

import numpy as np
import pytest

from amt.errors import UserError
from amt.modes import evaluate, generate, train
from configs import demo
from tests.data import layout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate.run(demo.get_config("tiny"), folder, None)
    return folder


def unlabelled(root, folder, **arrays):
    """The data set with other labels in every frame."""
    for path in shutil.copytree(root, folder).rglob("labels_*.npz"):
        layout.change_arrays(path, **arrays)
    return folder


NOWHERE = {"joint_3d": np.full((1, 21, 3), -1.0, np.float32), "joint_2d": np.full((1, 21, 2), -1.0, np.float32)}


def test_without_joints_there_is_one_error_before_any_training(root, tmp_path):
    config = demo.get_config("tiny")
    config.data.root = str(unlabelled(root, tmp_path / "data", **NOWHERE))
    with pytest.raises(UserError, match=r"'val'\): no joints in view in any of the samples that validation looks at"):
        train.run(config, tmp_path, None)
    for path in (tmp_path / "data").glob("*/*_000004/*/labels_*.npz"):  # those of val
        shutil.copy(root / path.relative_to(tmp_path / "data"), path)
    with pytest.raises(UserError, match=r"'train'\): none of 16 samples spread over it has joint_3d and joint_2d, 60%"):
        train.run(config, tmp_path, None)
    assert not list(tmp_path.glob("*.csv")) and not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_joints_without_poses_are_learned_and_scored(root, tmp_path, capsys):
    """As where the poses are those of another hand model."""
    config = demo.get_config("tiny")
    config.data.root = str(unlabelled(root, tmp_path / "data", pose_m=np.zeros((1, 51), np.float32)))
    config.train.steps = 2
    config.eval.update(checkpoint=str(tmp_path), part="all", measure_inference=False, report=True)
    assert np.isfinite(train.run(config, tmp_path, None)["val_mpjpe_mm"])
    figures = evaluate.run(config, tmp_path, None)
    assert figures["mpjpe_mm"] > 0 and figures["mean_mpjpe_mm"] > 0 and figures["contact_frames"] == 0
    assert all(np.isfinite(x) for x in figures.values() if isinstance(x, float))
    assert "figures are left out, no frame has what they need: " in capsys.readouterr().err
