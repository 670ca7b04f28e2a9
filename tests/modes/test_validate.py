"""`--mode=validate`: what it prints, what it writes, and its exit status by severity."""

import json

import pytest

import launch
from amt.data.validation import WARNINGS
from tests.data.layout import SUBJECTS, change_arrays, first, real_labels, write


@pytest.fixture
def root(tmp_path, monkeypatch):
    """One sequence without pose.npz: a warning."""
    monkeypatch.setattr(launch, "set_up_jax", lambda cache_dir: None)
    write(tmp_path / "data", SUBJECTS[:1], 1, 1, real_labels, (640, 480))
    return tmp_path / "data"


def validate(root, workdir) -> int:
    options = ["--mode=validate", f"--workdir={workdir}", f"--config.data.root={root}"]
    return launch.main(["", *options, "--config.validate.num_workers=0"])


def test_warnings_alone_are_no_failure(root, tmp_path, capsys):
    assert validate(root, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "warning  doubtful world poses: 1" in printed and "pose.npz: not there" in printed
    result = json.loads((tmp_path / "run/validate.json").read_text())
    assert (result["errors"], result["warnings"], result["frames"]) == (0, 2, 3)
    assert result["first"]["labels of another hand"][0].endswith("go on; give --config.hand.model=MANO_RIGHT.pkl")
    assert set(result["kinds"]) <= set(WARNINGS)


def test_errors_are_a_failure_and_are_written(root, tmp_path, capsys):
    path = first(root, "labels_000000.npz")
    change_arrays(path, joint_3d=real_labels(0, 0, 0, 0)["joint_3d"] * 1000)
    first(root, "color_000000.jpg").write_bytes(b"no image")
    assert validate(root, tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert "error    unreadable image: 1" in captured.out and "error    wrong units: 1" in captured.out
    assert str(path) in captured.out
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and "2 errors (1 unreadable image, 1 wrong units)" in last
    result = json.loads((tmp_path / "run/validate.json").read_text())
    assert result["kinds"] == {"unreadable image": 1, "wrong units": 1, "doubtful world poses": 1}
    assert result["errors"] == 2 and str(path) in result["first"]["wrong units"][0]
