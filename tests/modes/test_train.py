"""Generate, train, stop, go on, evaluate: the modes as a user runs them, at the smallest sizes."""

import csv
import importlib.util
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from amt.errors import Stopped, UserError
from amt.evaluation.samples import FILE
from amt.hand import EMBEDDED_HAND
from amt.inference import predictor
from amt.inference.predictor import load_predictor
from amt.models import dinov2, weights
from amt.modes import benchmark, evaluate, generate, planning, profile, train
from amt.training import lessons, sharding, teacher
from amt.training.checkpoint import found_steps, load_averaged
from amt.training.stopping import StopRequest
from configs import demo, stage2, stage3
from tests.data import layout
from tests.models import huggingface
from tests.viz.pages import Page


@pytest.fixture(scope="module")
def config():
    return demo.get_config("tiny")


@pytest.fixture(scope="module")
def root(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    figures = generate.run(config, folder, None)
    assert figures["frames_written"] == 5 * 2 * 2
    return folder


@pytest.fixture(scope="module")
def trained(config, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    config.data.root = str(root)
    figures = train.run(config, folder, None)
    assert figures["steps"] == config.train.steps
    assert np.isfinite(figures["val_mpjpe_mm"])
    return folder


@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unstopped_one_does(config, trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(trained / "checkpoints" / "step_2", tmp_path / "checkpoints" / "step_2")
    assert train.run(config, tmp_path, None)["steps"] == config.train.steps
    whole, resumed = (weights.load(folder / "weights.safetensors")[0] for folder in (trained, tmp_path))
    for a, b in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)  # saved in half precision


@pytest.mark.slow
def test_the_best_of_its_checkpoints_is_named(config, trained):
    figures = train.run(config, trained, None)  # there is nothing left to do
    assert figures["best_step"] == 4 and figures["best_val_mpjpe_mm"] == figures["val_mpjpe_mm"]
    names = {*train.PERCEPTION_SCORES, *train.FINDER_SCORES}
    assert {name for name in figures if name.startswith("val_")} == names
    other = demo.get_config("tiny")
    other.train.best_metric = "accuracy"
    with pytest.raises(UserError, match=r"config\.train\.best_metric=accuracy: expected one of val_mpjpe_mm, "):
        train.run(other, trained, None)


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on_to_the_same_end(config, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__call__", lambda self, step: step == 3)
        with pytest.raises(Stopped, match="stopped after step 3 of 4, which is saved; run the same command again"):
            train.run(config, tmp_path, None)
    assert found_steps(tmp_path / "checkpoints")[0] == 3
    with pytest.raises(UserError, match=r"no weights\.safetensors yet; .* with --config\.train\.steps=3"):
        weights.resolve(tmp_path)
    (tmp_path / "scalars.csv").open("a").write("4,loss,1.0\n4,lo")  # of a process that was killed later
    train.run(config, tmp_path, None)
    for a, b in zip(*(jax.tree.leaves(load_averaged(f / "checkpoints")[0]) for f in (trained, tmp_path)), strict=True):
        np.testing.assert_array_equal(a, b)
    rows, again = (_rows(folder / "scalars.csv") for folder in (trained, tmp_path))
    assert rows == again and len(rows) > 4


def _rows(path):
    """But those of speed."""
    with path.open() as file:
        return [row for row in csv.reader(file) if row[1] not in ("samples_per_s", "input_wait_share")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.encoder": "dinov3"}, r"config\.model\.encoder=dinov3: expected one of conv, dinov2_small, "),
        ({"model.grid": 15}, r"config\.model\.grid=15: expected 14 or 16"),
        ({"model.grid": 16}, r"config\.data\.image_size=32: expected a multiple of 14 pixels"),
        ({"backbone.num_frozen_blocks": 13}, r"num_frozen_blocks=13: expected 0 to 12"),
        ({"backbone.dtype": "float16"}, r"config\.backbone\.dtype=float16: expected float32 or bfloat16"),
        ({}, r"config\.backbone\.weights: empty, .* --mode=convert --input=HF_FOLDER"),
        ({"train.start_from": str(weights.EMBEDDED)}, r"config\.backbone\.weights: empty"),
        ({"backbone.weights": "nowhere"}, r"nowhere: no such file; expected a backbone\.safetensors"),
        ({"backbone.weights": "TINY"}, r"config\.backbone\.weights=.*: depth is 3 there and 12 here"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused_at_once(change, says, tmp_path):
    """Before any data is looked for: there is none."""
    if change.get("backbone.weights") == "TINY":
        folder = huggingface.write(tmp_path / "hf", huggingface.config(), huggingface.tensors())
        dinov2.save(tmp_path / "backbone.safetensors", *dinov2.from_huggingface(folder))
        change = {"backbone.weights": str(tmp_path / "backbone.safetensors")}
    config = demo.get_config("tiny")
    config.update_from_flattened_dict({"model.encoder": "dinov2_small"} | change)
    with pytest.raises(UserError, match=says):
        train.run(config, tmp_path, None)


def test_every_evaluation_leaves_a_picture(config, trained):
    assert [path.name for path in (trained / "images").iterdir()] == [f"step_{config.train.eval_every}.png"]
    assert list((trained / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_checkpoints_of_another_configuration_are_refused(trained, root):
    other = demo.get_config("tiny")
    other.data.root = str(root)
    other.model.coarse_dim = 16
    with pytest.raises(UserError, match=r"another configuration.*model\.coarse_dim is 32 there and 16 here"):
        train.run(other, trained, None)
    other.eval.checkpoint = str(trained)
    with pytest.raises(UserError, match="another configuration"):
        evaluate.run(other, trained, None)


@pytest.mark.slow
def test_evaluation_stands_beside_the_training_mean(config, trained, tmp_path):
    config.eval.update(checkpoint=str(trained), part="all")
    figures = evaluate.run(config, tmp_path, None)
    json.dumps(figures)
    for name in ("mpjpe_mm", "mean_mpjpe_mm", "pa_mpjpe_mm", "error_2d_px", "mean_error_2d_px", "wrist_depth_mm"):
        assert figures[name] > 0
    assert figures["mpjpe_share_of_mean"] == pytest.approx(figures["mpjpe_mm"] / figures["mean_mpjpe_mm"])
    page = Page((tmp_path / "report.html").read_text())
    assert dict(page.tables["By the names in evaluate.json"][1:])["mpjpe_mm"] == f"{figures['mpjpe_mm']:.4f}"
    for name in ("add_s_mm", "mean_add_s_mm", "add_s_recall", "mean_add_s_recall"):
        assert figures[name] >= 0
    for name in ("contact_f1_5mm", "mean_contact_f1_5mm", "contact_f1_relative_20mm", "mean_contact_recall_20mm"):
        assert 0 <= figures[name] <= 1
    assert "contact_kind_right_share" not in figures and figures["contact_simulated_share"] == 0
    assert figures["intervals"].keys() <= figures.keys()
    assert 0 < figures["mean_skeleton_pa_mpjpe_mm"] < 40  # a hand's own variety of poses


@pytest.mark.slow
def test_evaluation_leaves_out_and_counts_what_cannot_be_read(trained, root, tmp_path):
    config = demo.get_config("tiny")
    config.eval.update(checkpoint=str(trained), part="all", max_samples=0)
    config.data.root = str(shutil.copytree(root, tmp_path / "data"))
    whole = evaluate.run(config, tmp_path, None)
    assert whole["frames_unreadable"] == 0 and not (tmp_path / "quarantine.jsonl").exists()
    label = sorted((tmp_path / "data").rglob("labels_*.npz"))[0]
    color = sorted((tmp_path / "data").rglob("color_*.jpg"))[-1]
    label.write_bytes(b"not an archive")
    color.write_bytes(color.read_bytes()[: color.stat().st_size // 2])
    figures = evaluate.run(config, tmp_path, None)
    assert figures["frames_unreadable"] == 2 and figures["samples"] == whole["samples"] - 2
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == {str(label), str(color)}
    for path in (tmp_path / "data").rglob("color_*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="are in quarantine, more than 0.1%"):
        evaluate.run(config, tmp_path, None)


@pytest.mark.slow
def test_official_files_hold_every_frame_and_are_scored(trained, root, tmp_path):
    """One of 20 frames has no labelled hand: it does not count, but its prediction is in the files."""
    config, data, out = demo.get_config("tiny"), shutil.copytree(root, tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    label = sorted(data.rglob("labels_*.npz"))[2]
    layout.change_arrays(label, joint_3d=np.full((1, 21, 3), -1.0), joint_2d=np.full((1, 21, 2), -1.0))
    config.data.root = str(data)
    config.eval.update(checkpoint=str(trained), part="all", max_samples=0)
    plain = evaluate.run(config, out, None)
    assert sorted(path.name for path in out.iterdir()) == [FILE, "report.html"]
    formats = ("hpe", "bop", "coco") if importlib.util.find_spec("pycocotools") else ("hpe", "bop")
    config.eval.update(official=True, official_formats=formats)
    figures = evaluate.run(config, out, None)
    json.dumps(figures)
    hand = figures["official_hpe"]
    assert len((out / "hpe_s0_all.txt").read_text().splitlines()) == 20
    assert plain["samples"] == figures["samples"] == hand["samples"] == 19
    assert figures["given_side_mpjpe_mm"] == pytest.approx(plain["given_side_mpjpe_mm"], rel=1e-4)
    assert figures["mpjpe_mm"] == pytest.approx(hand["root_relative_mpjpe_mm"], rel=1e-4)
    assert figures["official_bop"]["targets_missing"] == 0 < figures["official_bop"]["targets"]
    names = {"hpe": "hpe_s0_all.txt", "bop": "bop_s0_all.csv", "coco": "coco_s0_all.json"}
    for name in formats:
        again = evaluate.run(config, out, str(out / names[name]))  # as anyone's file, without weights
        np.testing.assert_equal(again[name], figures[f"official_{name}"])
    config.eval.max_samples = 5
    with pytest.raises(UserError, match=r"config\.eval\.official: .* set config\.eval\.max_samples=0"):
        evaluate.run(config, out, None)
    config.eval.max_samples = 0
    sorted(data.rglob("color_*.jpg"))[3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"color_\d+\.jpg: image or labels cannot be read .* needs every frame"):
        evaluate.run(config, out, None)


@pytest.mark.slow
def test_evaluation_on_simulated_grasps_counts_their_contacts(trained, tmp_path):
    """With weights that say that they were taught kinds and forces."""
    config = demo.get_config("tiny")
    config.generate.update(grasps="physical", gesture_share=0.0, num_sequences=2, num_frames=6, num_cameras=1)
    generate.run(config, tmp_path / "data", None)
    config.data.root = str(tmp_path / "data")
    path = tmp_path / "weights.safetensors"
    weights.save(path, *weights.load(trained / "weights.safetensors"), contacts_taught=True, hand=EMBEDDED_HAND)
    config.eval.update(checkpoint=str(path), part="all", max_samples=0)
    figures = evaluate.run(config, tmp_path, None)
    assert figures["contact_simulated_share"] == 1 and figures["contact_frames"] == figures["samples"] > 6
    for name in ("add_s_recall", "mean_add_s_recall", "contact_f1_5mm", "mean_contact_f1_relative_20mm"):
        assert 0 <= figures[name] <= 1
    assert sum(name.startswith("mean_contact") for name in figures) == 3 * 3 * 2


@pytest.mark.slow
def test_one_component_learns_from_given_weights_and_the_other_stays(trained, root, tmp_path):
    config = demo.get_config("tiny")
    config.data.root = str(root)
    config.train.update(component="finder", start_from=str(trained), steps=2)
    train.run(config, tmp_path, None)
    before, after = (weights.load(folder / "weights.safetensors")[0] for folder in (trained, tmp_path))
    for a, b in zip(jax.tree.leaves(before["perception"]), jax.tree.leaves(after["perception"]), strict=True):
        np.testing.assert_array_equal(a, b)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before["finder"], after["finder"])
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
def test_a_part_of_another_shape_begins_afresh_and_is_named(trained, root, tmp_path, capsys):
    config = demo.get_config("tiny")
    config.data.root = str(root)
    config.finder.hidden_dim = 8
    config.train.update(component="finder", start_from=str(trained), steps=1)
    train.run(config, tmp_path, None)
    assert "fresh: finder.Block_0" in capsys.readouterr().err
    before, after = (weights.load(folder / "weights.safetensors")[0] for folder in (trained, tmp_path))
    for a, b in zip(jax.tree.leaves(before["perception"]), jax.tree.leaves(after["perception"]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_trained_weights_predict(trained):
    predictor = load_predictor(trained)
    images = np.random.default_rng(0).integers(0, 255, (3, 120, 160, 3), np.uint8)
    K = np.tile(np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]]), (3, 1, 1))
    prediction = predictor.stills(images, K)
    assert prediction.hand.joints.shape == (3, 21, 3)
    assert np.isfinite(prediction.hand.joints).all()


def test_kinds_and_forces_are_taught_by_both_terms_and_simulated_contacts(tmp_path):
    config, simulated = demo.get_config("tiny"), SimpleNamespace(has_contacts=True)
    assert train._contacts_taught(config, simulated, [])
    assert not train._contacts_taught(config, SimpleNamespace(has_contacts=False), [])
    config.train.component = "finder"
    assert not train._contacts_taught(config, simulated, [])
    params, settings, mean = weights.load(weights.EMBEDDED)
    weights.save(tmp_path / "weights.safetensors", params, settings, mean, contacts_taught=True, hand=EMBEDDED_HAND)
    config.train.start_from = str(tmp_path)
    assert train._contacts_taught(config, simulated, [])  # as they were
    assert not train._contacts_taught(config, simulated, ["perception.contact_decoder"])
    config.train.component = "perception"
    config.train.loss.contact_force = 0.0
    assert not train._contacts_taught(config, simulated, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feed": "cache"}, "config.data.feed=cache: needs config.data.augment=device"),
        ({"feed": "disk"}, "config.data.feed=disk: expected stream or cache"),
        ({"augment": "gpu"}, "config.data.augment=gpu: expected host or device"),
        ({"augment": "device", "context": 0.5}, "config.data.context=0.5: expected 1 or more"),
        ({"augment": "device", "feed": "cache", "cache_share": 1e-9}, "config.data.feed=cache: .* bytes free"),
    ],
)
def test_ways_to_feed_that_cannot_be(fields, message, root, tmp_path):
    config = demo.get_config("tiny")
    config.data.root = str(root)
    config.data.update(fields)
    with pytest.raises(UserError, match=message):
        train.run(config, tmp_path, None)


def test_no_data_root_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.delenv("DEX_YCB_DIR", raising=False)
    with pytest.raises(UserError, match=r"config\.data\.root"):
        train.run(demo.get_config("tiny"), tmp_path, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "not a readable safetensors"), (b"x" * 100, "not a readable safetensors")],
)
def test_missing_and_damaged_weights(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_predictor(path)


@pytest.mark.slow
def test_a_policy_learns_on_top_and_is_played(root, trained, tmp_path, monkeypatch):
    """Stage 2 leaves perception as it was; its commands are played in MuJoCo C beside the baselines'."""
    monkeypatch.setattr(teacher, "LIKE_HUMAN", teacher.LIKE_HUMAN[:1])
    monkeypatch.setattr(lessons, "lifted_share", lambda *_: 1.0)  # no grasp of two frames lifts
    for name in ("PRESENCE", "NEW", "LOST"):  # which four steps of training do not reach
        monkeypatch.setattr(predictor, name, -1.0)
    config = stage2.get_config("tiny")
    config.data.root, config.train.start_from, config.teacher.num_workers = str(root), str(trained), 0
    figures = train.run(config, tmp_path / "a", None)
    assert figures["steps"] == config.train.steps and figures["val_tips_mm"] > 0
    before, after = (weights.load(folder / "weights.safetensors")[0] for folder in (trained, tmp_path / "a"))
    policy = after.pop("policy")
    assert set(policy) == {"fusion", "actions"}
    for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        np.testing.assert_array_equal(a, b)
    config.eval.update(checkpoint=str(tmp_path / "a"), robot=True, part="all")
    config.teacher.folder = str(tmp_path / "a")
    judged = evaluate.run(config, tmp_path, None)
    assert judged["videos"] > 0
    for origin in ("true", "predicted", "teacher", "policy"):
        assert 0 <= judged[f"{origin}_lift_share_low"] <= judged[f"{origin}_lift_share"]
    assert judged["teacher_tips_mm"] == 0 < judged["policy_tips_mm"]
    rows = json.loads((tmp_path / "robot_trials.json").read_text())["trials"]
    assert len(rows) == judged["videos"]
    assert "Lifted, by object" in Page((tmp_path / "report.html").read_text()).tables
    load_predictor(tmp_path / "a")  # a policy is no hindrance to those who only look
    mesh = sharding.one_device_mesh()
    _check_plan(planning.Planner(config, mesh), next(profile.learning(config, tmp_path).feed.iterator))
    for name in ("compile_seconds", "products", "step_roofline"):  # which take long
        monkeypatch.setattr(benchmark, name, lambda *_: {})
    config.benchmark.update(step_batch_size=config.train.batch_size, repeats=1)
    assert benchmark.train_step(config, tmp_path)[1]["step_samples_per_s"][0] > 0

    config = stage3.get_config("tiny")
    config.data.root, config.train.start_from = str(root), str(trained)
    with pytest.raises(UserError, match="has no policy; expected weights of stage 2"):
        train.run(config, tmp_path / "b", None)
    config.train.start_from, config.teacher.folder = str(tmp_path / "a"), str(tmp_path / "a")
    for name in set(config.train.loss) - {"hand_refined", "object_position", "finder_place"}:
        config.train.loss[name] = 0.0  # compiling them takes as long again, as does a mesh of eight
    monkeypatch.setattr(sharding, "make_mesh", lambda **_: mesh)
    for component in ("policy", "all"):
        config.train.component = component
        _check_plan(planning.Planner(config, mesh), next(profile.learning(config, tmp_path).feed.iterator))
    figures = train.run(config, tmp_path / "b", None)
    assert figures["steps"] == config.train.steps and figures["skipped_updates"] == 0
    assert figures["start_val_tips_mm"] != figures["val_tips_mm"]
    last = {name: float(value) for _, name, value in _rows(tmp_path / "b" / "scalars.csv")[1:]}
    assert last["rollout"] > 0 == last["rollout_not_finite_share"] and last["action_tips"] > 0
    after = weights.load(tmp_path / "b" / "weights.safetensors")[0]
    assert set(after) == {"finder", "perception", "policy"}


def _check_plan(planner: planning.Planner, fed) -> None:
    """It plans for what training is fed."""
    batch, _ = planner.step.feed(planner.config.train.batch_size)
    planned, real = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (batch, fed))
    assert planned == real
