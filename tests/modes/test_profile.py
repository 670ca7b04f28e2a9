"""The train step traced and timed, at the smallest size."""

import json

import numpy as np
import pytest

from amt.errors import UserError
from amt.modes import benchmark, generate, profile
from amt.modes.train import with_batch
from configs import vmt


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    config = vmt.get_config("tiny")
    generate.run(config, folder, None)
    config.data.root = str(folder)
    config.profile.update(warmup=1, steps=2)
    config.benchmark.update(step_batch_size=4, repeats=2)
    return config


@pytest.mark.slow
def test_a_profile_says_where_the_time_goes(config, tmp_path, capsys):
    figures = profile.run(config, tmp_path, None)
    json.dumps(figures)
    assert figures["samples_per_s"] == pytest.approx(8 * figures["steps_per_s"])
    assert 0 <= figures["idle_share"] < 1 and 0 <= figures["input_wait_share"] < 1
    operations = figures["operations"]
    assert len(operations) == config.profile.operations < figures["distinct_operations"]
    shares = [o["share"] for o in operations]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    assert figures["shown_share"] == pytest.approx(sum(shares))
    assert any("perception" in o["source"] for o in operations)
    assert operations[0]["name"] in capsys.readouterr().out
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_a_profile_needs_data_and_steps(config, tmp_path, monkeypatch):
    other = config.copy_and_resolve_references()
    other.profile.steps = 0
    with pytest.raises(UserError, match=r"config\.profile\.steps=0"):
        profile.run(other, tmp_path, None)
    monkeypatch.delenv("DEX_YCB_DIR", raising=False)
    other.profile.steps, other.data.root = 1, ""
    with pytest.raises(UserError, match=r"data\.root"):
        profile.run(other, tmp_path, None)


def test_a_benchmark_of_feeding_needs_a_number_of_samples(config, tmp_path):
    other = with_batch(config, "auto")
    with pytest.raises(UserError, match=r"config\.train\.batch_size=auto"):
        benchmark.run(other, tmp_path, None)


@pytest.mark.slow
def test_the_train_step_is_timed(config, tmp_path, monkeypatch):
    """Without its products one by one, which take long."""
    monkeypatch.setattr(benchmark, "products", lambda *_: {})
    monkeypatch.setattr(benchmark, "step_roofline", lambda *_: {"step_ms": 1.0})
    figures, measured = benchmark.train_step(config, tmp_path)
    assert figures["step_compile_warm_s"] < figures["step_compile_cold_s"]
    assert {len(values) for values in measured.values()} == {2}
    assert {"step_input_ms", "step_host_ms", "step_device_ms", "step_samples_per_s"} == measured.keys()
    assert all(np.isfinite(values).all() and min(values) > 0 for values in measured.values())
    assert config.train.batch_size == 8 and figures["step_batch_size"] == 4
