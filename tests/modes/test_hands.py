"""`config.hand` as a user meets it: sets, weights and runs keep the hand that they belong to."""

import numpy as np
import pytest

import amt.hand
from amt.data.dexycb import DexYCB
from amt.data.hand_labels import HAND, HandIds, check_hand_labels
from amt.errors import UserError
from amt.inference.predictor import load_predictor
from amt.models import weights
from amt.modes import evaluate, generate, predict_settings, train
from amt.modes.hands import load_hand
from configs import demo
from tests.hand import mano


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Synthetic MANO_RIGHT and MANO_LEFT."""
    return mano.write(tmp_path_factory.mktemp("mano"))


@pytest.fixture(scope="module")
def root(files, tmp_path_factory):
    """A set generated with another hand than the embedded one."""
    folder, config = tmp_path_factory.mktemp("data"), demo.get_config("tiny")
    config.hand.model = str(files[0])
    generate.run(config, folder, None)
    return folder


def test_the_left_model_is_the_one_beside_the_right_one(files, tmp_path):
    config = demo.get_config("tiny")
    assert load_hand(config.hand).fingerprint == amt.hand.EMBEDDED_HAND
    config.hand.model = str(files[0])
    assert load_hand(config.hand).left.fingerprint == amt.hand.load(*files).left.fingerprint
    alone = tmp_path / "MANO_RIGHT.npz"
    alone.write_bytes(files[0].read_bytes())
    config.hand.model = str(alone)
    assert load_hand(config.hand).left is None
    config.hand.left_model = str(files[1])
    assert load_hand(config.hand).left is not None
    config.hand.model = ""
    with pytest.raises(UserError, match=r"config\.hand\.left_model: needs the right one"):
        load_hand(config.hand)


def test_a_generated_set_is_of_the_hand_that_was_given(files, root):
    hand = amt.hand.load(*files)
    source = DexYCB(root, part="all", hands=HandIds.of(hand))
    assert {s.meta[HAND] for s in source.sequences} == {hand.fingerprint}
    check_hand_labels(source, hand)
    assert all(source.labels(i)["hand_pose_valid"] for i in range(len(source)))
    with pytest.raises(UserError, match=rf"generated with hand={hand.fingerprint}"):
        generate.run(demo.get_config("tiny"), root, None)


@pytest.mark.slow
def test_training_goes_on_without_the_labels_of_another_hand(files, root, tmp_path, capsys):
    config = demo.get_config("tiny")
    config.data.root = str(root)
    figures = train.run(config, tmp_path, None)
    assert figures["hand_labels_left_out_fraction"] == 1.0 and np.isfinite(figures["val_mpjpe_mm"])
    assert "sequences belong to other hands" in capsys.readouterr().err
    trained = tmp_path / "weights.safetensors"
    assert weights.hand_fingerprint(trained) == amt.hand.EMBEDDED_HAND

    config.hand.model = str(files[0])
    with pytest.raises(UserError, match=r"config\.hand\.model is None there and [0-9a-f]{16} here"):
        train.run(config, tmp_path, None)
    config.eval.checkpoint, config.eval.part = str(tmp_path), "all"
    with pytest.raises(UserError, match=r"trained with the embedded hand, .*; leave config\.hand\.model empty"):
        evaluate.run(config, tmp_path, None)
    with pytest.raises(UserError, match=r"trained with the embedded hand, .*; leave config\.hand\.model empty"):
        load_predictor(tmp_path, amt.hand.load(*files))


def test_weights_of_another_hand_wait_for_it(files, tmp_path):
    hand, path = amt.hand.load(*files), tmp_path / "weights.safetensors"
    weights.save(path, *weights.load(weights.EMBEDDED), hand=hand.fingerprint)
    with pytest.raises(UserError, match=rf"trained with a hand model of fingerprint {hand.fingerprint}, .*give that"):
        load_predictor(path)
    assert load_predictor(path, hand).hand.fingerprint == hand.fingerprint
    config = demo.get_config("tiny")
    config.predict.checkpoint = str(path)
    with pytest.raises(UserError, match="give that one as --config.hand.model"):
        predict_settings.check(config)  # before a frame is seen
    config.hand.model = str(files[0])
    predict_settings.check(config)
