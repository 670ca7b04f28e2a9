"""The command line: a wrong word is answered by one line and exit status 2, and results stay whole."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import launch
from amt.errors import Stopped, UserError
from amt.modes import BUILT, LATER, common
from amt.modes.flags import help_text, load_config, parse
from amt.storage import LOCK, only_run

ROOT = Path(launch.__file__).parent


def read(*arguments: str):
    return parse(["launch.py", *arguments], ROOT)


def test_defaults():
    options = read()
    assert (options.mode, options.workdir, options.input) == ("demo", "runs/demo", "")
    assert options.config.to_dict() == load_config("configs/demo.py", ROOT).to_dict()


def test_overrides_in_any_order_and_either_form():
    options = read(
        *("--config.train.steps=7", "--noconfig.train.resume", "--config.train.learning_rate", "1"),
        *("--config", "configs/demo.py:tiny", "--mode", "train"),
        "--config.camera.K=(600,0,320.5,0,600,240,0,0,1)",
    )
    assert options.mode == "train"
    assert options.config.train.steps == 7 and options.config.train.resume is False
    assert options.config.train.learning_rate == 1.0
    assert options.config.camera.K == (600, 0, 320.5, 0, 600, 240, 0, 0, 1)
    assert options.config.data.image_size == load_config("configs/demo.py:tiny", ROOT).data.image_size


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.nope=1", ["config.nope", "it has", "train"]),
        ("--config.train.stesp=1", ["stesp", "did you mean --config.train.steps?"]),
        ("--config.seed.x=1", ["config.seed is one value"]),
        ("--config.train.steps=many", ["config.train.steps", "'many'", "expected int"]),
        ("--config.train.steps=1.5", ["config.train.steps", "'1.5'", "expected int"]),
        ("--config.train.learning_rate=fast", ["config.train.learning_rate", "expected float"]),
        ("--config.train.resume=perhaps", ["config.train.resume", "expected bool"]),
        ("--config.train=3", ["config.train", "expected a section"]),
        ("--config.seed", ["config.seed", "Missing value"]),
        ("--config=configs/dmeo.py", ["dmeo.py", "no such file", "configs/demo.py?"]),
        ("--config=configs/demo.py:huge", ["no variant 'huge'", "tiny"]),
        ("--config=README.md", ["README.md", "cannot be loaded"]),
        ("--config=", ["--config", "FILE.py"]),
        ("--mode=trian", ["trian", "did you mean train?"]),
        ("--mode=", ["no such mode", "demo"]),
        ("--moed=train", ["moed", "mode"]),
        ("video.mp4", ["video.mp4", "--input="]),
        *((f"--mode={mode}", ["not built yet", mode]) for mode in LATER),
    ],
)
def test_a_wrong_word_gets_one_clear_answer(argument, says):
    with pytest.raises(UserError) as error:
        read(argument)
    for words in says:
        assert words in str(error.value)


def test_a_broken_config_file_is_named(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return undefined_name\n")
    with pytest.raises(UserError, match=r"broken.py: cannot be loaded: NameError: .*undefined_name"):
        read(f"--config={broken}")


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "importtime", str(ROOT / "launch.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize(
    "arguments", [["--config.nope=1"], ["--mode=serve"], ["--workdir={file}"], ["--workdir={file}/below"]]
)
def test_the_process_answers_in_one_line_without_jax(arguments, tmp_path):
    earlier = tmp_path / "demo.json"
    earlier.write_text("earlier")
    result = run(*(argument.format(file=earlier) for argument in arguments), cwd=tmp_path)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert result.returncode == 2 and result.stdout == ""
    assert len(lines) == 1 and lines[0].startswith("error: --")
    assert not any(line.rpartition("|")[2].strip() == "jax" for line in result.stderr.splitlines())
    assert earlier.read_text() == "earlier" and list(tmp_path.iterdir()) == [earlier]


def test_help_is_short_and_lists_what_works():
    text = help_text()
    assert len(text.splitlines()) < 24
    assert all(mode in text for mode in BUILT) and not any(f"\n  {mode} " in text for mode in LATER)
    assert launch.main(["launch.py", "--help"]) == 0


def test_figures_are_printed_and_written_with_config_and_versions(tmp_path, monkeypatch, capsys):
    def figures(config, workdir, input):
        assert config.seed == 5 and workdir == tmp_path and input == "clip.mp4"
        return {"mpjpe_mm": np.float32(12.5), "pa_mpjpe_mm": float("nan")}

    use(figures, monkeypatch)
    assert launch.main(["", "--mode=train", f"--workdir={tmp_path}", "--input=clip.mp4", "--config.seed=5"]) == 0
    result = json.loads((tmp_path / "train.json").read_text())
    assert result["mpjpe_mm"] == 12.5 and result["pa_mpjpe_mm"] is None
    assert result["config"]["seed"] == 5 and result["versions"]["amt"]
    assert "mpjpe_mm" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "train.json"]


@pytest.mark.parametrize(
    ("raised", "status"),
    [(UserError("a\nb"), 2), (Stopped("saved"), 75), (OSError(28, "No space left"), 2), (KeyboardInterrupt(), 130)],
)
def test_a_mode_that_stops_leaves_earlier_figures(raised, status, tmp_path, monkeypatch, capsys):
    (tmp_path / "train.json").write_text("earlier")

    def stop(config, workdir, input):
        raise raised

    use(stop, monkeypatch)
    assert launch.main(["", "--mode=train", f"--workdir={tmp_path}"]) == status
    assert (tmp_path / "train.json").read_text() == "earlier"
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def use(function, monkeypatch):
    """Puts `function` in the place of `amt.modes.train.run`."""
    monkeypatch.setattr(launch, "set_up_jax", lambda cache_dir: None)
    monkeypatch.setattr(launch.importlib, "import_module", lambda name: type("Mode", (), {"run": function}))


def test_every_built_mode_has_its_module_and_every_config_loads():
    for mode in BUILT:
        assert (ROOT / f"amt/modes/{mode}.py").exists()
    for path in (ROOT / "configs").glob("[!_]*.py"):
        assert isinstance(load_config(str(path), ROOT), ConfigDict)


def test_progress_in_a_log_says_how_far(capsys):
    assert list(common.Progress("abc", "letters", stream=sys.stdout)) == ["a", "b", "c"]
    resumed = common.Progress(1000, "steps", stream=sys.stdout)
    resumed.start -= 10.0
    resumed.skip(900, "resumed")
    resumed.update(50)
    assert "950/1000 steps  5/s  10 s left" in resumed.text()
    with common.Progress(4, "steps", stream=sys.stdout) as progress:
        progress.update(2, note="loss 0.5")
        assert "2/4 steps" in progress.text() and "left" in progress.text() and "loss 0.5" in progress.text()
    assert capsys.readouterr().out.startswith("3/3 letters")


@pytest.mark.parametrize("mode", launch.RESUMED)
def test_a_second_run_in_a_work_directory_ends_at_once(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "set_up_jax", lambda cache_dir: None)
    with only_run(tmp_path):
        assert launch.main(["launch.py", f"--mode={mode}", f"--workdir={tmp_path}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}: process ") and line.endswith("or choose another --workdir")
        assert (
            launch.main(["launch.py", "--mode=describe", f"--workdir={tmp_path}", "--config=configs/demo.py:tiny"]) == 0
        )
