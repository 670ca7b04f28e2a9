"""From a clip to files, with a predictor that knows the truth: what is tested here is the glue."""

import csv
import json
import subprocess
import sys
import types
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

import amt.hand
from amt.errors import UserError
from amt.inference.video import open_clip, read_frames, write_video
from amt.models import weights
from amt.modes import demo, predict, predict_settings
from amt.robot import RenderUnavailable, load_robot
from amt.structs import Contacts, HandPose, ObjectPoses, Prediction
from configs import demo as demo_config

ROOT = Path(__file__).parents[2]
FRAMES, WIDTH, HEIGHT = 10, 160, 120
LOST = (4, 5)


class TruePredictor:
    """A hand that moves sideways, half a metre away, and is out of sight in frames `LOST`."""

    settings = weights.architecture(demo_config.get_config("tiny").to_dict())

    def __init__(self, found=True):
        self.found, self.start, self.calls = found, 0, []

    def __call__(self, images, camera, progress, is_left=None):
        frames = np.arange(self.start, self.start + len(images))
        self.start += len(images)
        self.calls.append(images.shape)
        progress.update(len(images))
        count = len(images)
        hand = amt.hand.load()
        pose = np.zeros((count, 48), np.float32)
        pose[:, 0] = -np.pi / 2
        transl = np.stack([0.01 * frames - 0.05, 0 * frames, 0 * frames + 0.5], -1).astype(np.float32)
        joints, vertices = hand(jnp.asarray(pose), jnp.zeros((count, 10)), jnp.asarray(transl))
        rotations = np.asarray(hand.rotations(jnp.asarray(pose)))
        object_pose = np.tile(np.eye(3, 4, dtype=np.float32), (count, 2, 1, 1))
        object_pose[..., 3] = transl[:, None]
        return Prediction(
            hand=HandPose(
                global_orient=rotations[:, 0],
                hand_pose=rotations[:, 1:],
                betas=np.zeros((count, 10), np.float32),
                transl=transl,
                joints=joints,
                vertices=vertices,
                is_left=np.zeros(count, bool),
                valid=~np.isin(frames, LOST) & self.found,
            ),
            joint_confidence=np.full((count, 21), 0.8, np.float32),
            side_confidence=np.full(count, 0.9, np.float32),
            objects=ObjectPoses(
                pose=object_pose,
                ycb_ids=np.tile([3, 0], (count, 1)),
                confidence=np.full((count, 2), 0.9, np.float32),
                valid=np.tile([True, False], (count, 1)),
            ),
            contacts=Contacts(
                points=np.asarray(joints)[:, [4, 8]],
                confidence=np.tile(np.float32([0.9, 0.2]), (count, 1)),
                kind=np.full((count, 2), 2),
                force=np.tile(np.float32([0, 3, 4]), (count, 2, 1)),
            ),
            camera=camera,
        )


def use(monkeypatch, predictor):
    """Makes `load_predictor` return `predictor`, whatever weights there are."""
    module = types.ModuleType("amt.inference.predictor")
    module.load_predictor = lambda folder=None, hand=None: predictor
    monkeypatch.setitem(sys.modules, "amt.inference.predictor", module)
    return predictor


def make_config(**camera):
    config = demo_config.get_config("tiny")
    config.camera.update({"K": (160, 0, 79.5, 0, 160, 59.5, 0, 0, 1), **camera})
    return config


def make_video(path, count=FRAMES):
    frames = np.random.default_rng(0).integers(0, 255, (count, HEIGHT, WIDTH, 3), np.uint8)
    write_video(path, frames, 25)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(figures, work directory) of one whole run, in chunks of 4 frames."""
    folder = tmp_path_factory.mktemp("predict")
    video = make_video(folder / "clip.mp4")
    with pytest.MonkeyPatch.context() as monkeypatch:
        predictor = use(monkeypatch, TruePredictor())
        monkeypatch.setattr(predict, "CHUNK_BYTES", 4 * WIDTH * HEIGHT * 3)
        figures = predict.run(make_config(), folder / "run", str(video))
    assert [call[0] for call in predictor.calls] == [4, 4, 2]
    return figures, folder / "run"


def test_all_files_come_out_and_no_other(finished):
    figures, folder = finished
    expected = set(predict.FILES) - (set() if figures["replay_film"] else {"replay.mp4"})
    assert set(contents(folder)) == expected


def test_commands_are_inside_the_limits_and_hold_where_no_hand_is(finished):
    _, folder = finished
    with (folder / "commands.csv").open() as file:
        header, *rows = csv.reader(file)
    robot = load_robot()
    assert header == ["time_s", "valid", *robot.joint_names] and len(rows) == FRAMES
    table = np.array(rows, float)
    time, valid, qpos = table[:, 0], table[:, 1].astype(bool), table[:, 2:]
    np.testing.assert_allclose(time, np.arange(FRAMES) / 25, atol=1e-6)
    assert np.flatnonzero(~valid).tolist() == list(LOST)
    assert (qpos >= robot.limits[:, 0]).all() and (qpos <= robot.limits[:, 1]).all()
    np.testing.assert_array_equal(qpos[list(LOST)], qpos[[3, 3]])
    assert (np.abs(np.diff(qpos[:4], axis=0)).max(1) > 1e-3).all()


def test_arrays_say_the_same_as_the_table(finished):
    _, folder = finished
    with np.load(folder / "trajectory.npz") as arrays, (folder / "commands.csv").open() as file:
        table = np.array(list(csv.reader(file))[1:], float)
        np.testing.assert_allclose(arrays["qpos"], table[:, 2:], atol=1e-6)
        assert arrays["hand_joints"].shape == (FRAMES, 21, 3) and arrays["hand_vertices"].shape == (
            FRAMES,
            778,
            3,
        )
        assert arrays["object_pose"].shape == (FRAMES, 2, 3, 4) and arrays["K"].shape == (3, 3)
        # A straight path at a constant speed is what a Savitzky-Golay filter leaves as it is.
        np.testing.assert_allclose(np.diff(arrays["hand_joints"][:4, 0, 0]), 0.01, atol=1e-5)


def test_films_have_a_frame_for_each(finished):
    figures, folder = finished
    overlay = read_frames(folder / "overlay.mp4")
    assert overlay.frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and overlay.fps == 25
    if figures["replay_film"]:
        replay = open_clip(folder / "replay.mp4")
        assert (replay.width, replay.height) == (160, 120)


def test_figures_are_right_and_written(finished):
    figures, folder = finished
    written = json.loads((folder / "predict.json").read_text())
    notes = written.pop("notes")
    assert written == pytest.approx({name: x for name, x in figures.items() if name != "notes"})
    assert notes == figures["notes"] and "held level" in notes[0]
    assert figures["camera"] == "camera held level (assumed); field of view 53 x 41 degrees"
    assert figures["frames"] == FRAMES and figures["hand_found_share"] == 0.8
    assert figures["commands_inside_limits"] and figures["closest_to_limit_rad"] > 0
    assert figures["hand_distance_m"] == pytest.approx(0.5, abs=0.05)
    assert figures["contacts_per_frame"] == 1 and figures["objects_per_frame"] == 0.8
    assert figures["retarget_wrist_position_mm"] < 10
    assert figures["total_s"] == pytest.approx(sum(figures[f"{stage}_s"] for stage in STAGES))


STAGES = ("load", "see", "smooth", "retarget", "replay", "overlay", "render")


def test_report_tells_the_story(finished):
    text = (finished[1] / "report.html").read_text()
    assert "004_sugar_box" in text and "Read this first" in text
    assert "80.0% of the frames" in text and "held level" in text and "firm" in text and "5.0 N" in text
    assert "intrinsics are unknown" not in text


def test_an_image_gives_one_pose(tmp_path, monkeypatch):
    use(monkeypatch, TruePredictor())
    cv2.imwrite(str(tmp_path / "hand.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    figures = predict.run(make_config(), tmp_path / "run", str(tmp_path / "hand.png"))
    assert figures["frames"] == 1 and "single image" in (tmp_path / "run/report.html").read_text()
    assert len((tmp_path / "run/commands.csv").read_text().splitlines()) == 2


def test_without_a_renderer_all_but_the_film_comes_out(tmp_path, monkeypatch, capsys):
    def nothing_to_render_with():
        raise RenderUnavailable("cannot render here: apt-get install libegl1")

    # The package shows the function `render` under the name of its module.
    monkeypatch.setattr(sys.modules["amt.robot.render"], "find_backend", nothing_to_render_with)
    use(monkeypatch, TruePredictor())
    video, folder = make_video(tmp_path / "clip.mp4"), tmp_path / "run"
    folder.mkdir()
    (folder / "replay.mp4").write_text("of an earlier run, which these results are not")
    assert predict.run(make_config(K=()), folder, str(video))["replay_film"] is False
    assert set(contents(folder)) == set(predict.FILES) - {"replay.mp4"}
    assert "apt-get install libegl1" in (folder / "report.html").read_text()
    assert "apt-get install libegl1" in capsys.readouterr().err
    assert "55 degrees" in (folder / "report.html").read_text()


class SidePredictor(TruePredictor):
    def __call__(self, images, camera, progress, is_left=None):
        raise RuntimeError(f"told {is_left}")


@pytest.mark.parametrize(("side", "told"), [("auto", None), ("left", True), ("right", False)])
def test_the_predictor_is_told_a_side_that_is_known(tmp_path, monkeypatch, side, told):
    use(monkeypatch, SidePredictor())
    config = make_config()
    config.predict.side = side
    with pytest.raises(RuntimeError, match=f"told {told}"):
        predict.run(config, tmp_path / "run", str(make_video(tmp_path / "clip.mp4")))


class BrokenPredictor(TruePredictor):
    def __call__(self, images, camera, progress, is_left=None):
        raise RuntimeError("out of memory")


def cut(video):
    data = video.read_bytes()
    video.write_bytes(data[: int(0.8 * len(data))])


@pytest.mark.parametrize(
    ("predictor", "damage", "error", "says"),
    [
        (TruePredictor(found=False), None, UserError, r"no hand was found in any of 10 frames"),
        (TruePredictor(), cut, UserError, r"decoding stopped after frame \d"),
        (BrokenPredictor(), None, RuntimeError, "out of memory"),
    ],
)
def test_earlier_results_stay_when_a_run_fails(tmp_path, monkeypatch, predictor, damage, error, says):
    use(monkeypatch, predictor)
    video, folder = make_video(tmp_path / "clip.mp4"), tmp_path / "run"
    folder.mkdir()
    for name in (*predict.FILES, "notes.txt"):
        (folder / name).write_text("earlier")
    before = contents(folder)
    if damage:
        damage(video)
    with pytest.raises(error, match=says):
        predict.run(make_config(), folder, str(video))
    assert contents(folder) == before


def test_commands_outside_the_limits_are_never_written(tmp_path, monkeypatch):
    use(monkeypatch, TruePredictor())
    right = amt.robot.retarget

    def wrong(*arguments, **options):
        trajectory = right(*arguments, **options)
        return trajectory.replace(qpos=trajectory.qpos + 10)

    monkeypatch.setattr("amt.robot.retarget", wrong)
    with pytest.raises(RuntimeError, match="leave the joint limits"):
        predict.run(make_config(), tmp_path / "run", str(make_video(tmp_path / "clip.mp4")))
    assert contents(tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ({"K": (600, 0, 320, 0)}, "camera.K: found 4, expected 3x3"),
        ({"K": (0, 0, 80, 0, 160, 60, 0, 0, 1)}, "fx=0"),
        ({"T_world_camera": (1, 2, 3)}, "camera.T_world_camera"),
    ],
)
def test_a_wrong_camera_is_refused(tmp_path, camera, says):
    with pytest.raises(UserError, match=says):
        predict.run(make_config(**camera), tmp_path, str(make_video(tmp_path / "clip.mp4")))


@pytest.mark.parametrize("below", ["clip.mp4", "clip.mp4/run", "/proc/amt"])
def test_a_work_directory_that_cannot_be_written_is_refused_first(tmp_path, below):
    video = make_video(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match="cannot write"):
        predict.run(make_config(), tmp_path / below, str(video))


def test_other_bad_input(tmp_path):
    config = make_config()
    with pytest.raises(UserError, match="--input is missing"):
        predict.run(config, tmp_path, "")
    with pytest.raises(UserError, match="no images"):
        predict.run(config, tmp_path, str(tmp_path))
    with pytest.raises(UserError, match="own clip"):
        demo.run(config, tmp_path, "video.mp4")
    config.predict.smoothing = "kalman"
    with pytest.raises(UserError, match="savgol, one_euro or none"):
        predict.run(config, tmp_path, str(make_video(tmp_path / "clip.mp4")))
    config.predict.update(smoothing="none", side="both")
    with pytest.raises(UserError, match="auto, left or right"):
        predict.run(config, tmp_path, str(make_video(tmp_path / "clip.mp4")))


class NeverLoaded(TruePredictor):
    @property
    def settings(self):
        raise RuntimeError("the model was loaded")


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("replay", {"meshes": "/nowhere/menagerie"}, "/nowhere/menagerie.* is missing"),
        ("replay", {"width": 4000}, "replay.width=4000: expected at most 1920"),
        ("replay", {"height": 0}, "replay.height=0: expected a positive"),
        ("replay", {"substep": -0.1}, "replay.substep"),
        ("retarget", {"side": "both"}, "retarget.side='both': expected right or left"),
        ("retarget", {"scale": "big"}, "retarget.scale='big': expected fit, or a positive number"),
        ("retarget", {"scale": "-1"}, "retarget.scale='-1'"),
        ("retarget", {"iterations": 0}, "retarget.iterations=0"),
        ("retarget", {"smoothness": 0.0}, "retarget.smoothness"),
        ("predict", {"savgol_window": 0.0}, "predict.savgol_window"),
        ("predict", {"savgol_order": -1}, "predict.savgol_order"),
        ("predict", {"smoothing": "one_euro", "one_euro_min_cutoff": 0.0}, "predict.one_euro_min_cutoff"),
        ("predict", {"max_frames": -5}, "predict.max_frames=-5"),
        ("predict", {"checkpoint": "/nowhere/weights"}, "predict.checkpoint: /nowhere/weights: no such file"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_model_is_loaded(tmp_path, monkeypatch, section, values, says):
    use(monkeypatch, NeverLoaded())
    config = make_config()
    config[section].update(values)
    with pytest.raises(UserError, match=says):
        predict.run(config, tmp_path / "run", str(make_video(tmp_path / "clip.mp4")))
    with pytest.raises(UserError, match=says):
        demo.run(config, tmp_path / "run", "")
    assert not contents(tmp_path / "run")


def test_a_scale_may_be_given_as_a_number_on_the_command_line():
    config = make_config()
    config.retarget.scale = "1.2"  # a field that holds text stays text
    assert predict_settings.scale(config.retarget) == 1.2


def test_what_was_left_out_and_understood_is_said_before_a_model_is_loaded(tmp_path, monkeypatch, capsys):
    use(monkeypatch, NeverLoaded())
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"color_{i}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"depth_{i}.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    T = (0, 0, 1, 0, -1, 0, 0, 0, 0, -1, 0, 0.3)
    with pytest.raises(RuntimeError, match="the model was loaded"):
        predict.run(make_config(T_world_camera=T), tmp_path / "run", str(tmp_path))
    depth, camera = capsys.readouterr().err.splitlines()
    assert "left out: 3 depth images (depth_0.png, ...)" in depth
    assert camera == "camera 0.30 m above the table, looking level; field of view 53 x 41 degrees"


def test_on_the_command_line_bad_input_is_one_line_and_status_2(tmp_path):
    (tmp_path / "empty.mp4").touch()
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "launch.py",
            "--mode=predict",
            f"--input={tmp_path}/empty.mp4",
            f"--workdir={tmp_path}/run",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "empty.mp4: the file is empty" in line


def test_weights_of_another_configuration_are_one_clear_error(tmp_path, monkeypatch):
    use(monkeypatch, TruePredictor())
    config = make_config()
    config.model.coarse_dim = 8
    video = make_video(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"another configuration.*model\.coarse_dim"):
        predict.run(config, tmp_path / "run", str(video))
    assert not contents(tmp_path / "run")
