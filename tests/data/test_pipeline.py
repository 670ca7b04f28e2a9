"""Batches: the same for any number of workers, resumable to the sample, padded at the end."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amt.data.dexycb import DexYCB
from amt.data.pipeline import eval_batches, stack, to_mesh, train_iterator, with_context
from amt.data.transforms import network_sample
from amt.errors import UserError
from amt.evaluation.evaluate import chosen_clips
from amt.structs import Batch
from tests.samples import changed

CONFIG = changed(image_size=32, frame_size=32)


@pytest.fixture(scope="module")
def source(generated):
    return DexYCB(generated, "s1", "train")  # 16 samples


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_batches_have_the_fields_and_shapes_of_the_model(source):
    batch = next(train_iterator(source, CONFIG, 4, 0, 0))
    assert isinstance(batch, Batch)
    assert batch.image.shape == (4, 32, 32, 3) and batch.image.dtype == np.uint8
    assert batch.frame.shape == (4, 32, 32, 3) and batch.joints_3d.shape == (4, 21, 3)
    assert {str(x.dtype) for x in jax.tree.leaves(batch)} == {"uint8", "float32", "bool", "int32"}


@pytest.mark.slow
@pytest.mark.parametrize("jitter", [True, False])
def test_the_order_is_the_same_for_any_number_of_workers(source, jitter):
    """Three epochs, so that reshuffling counts too."""
    alone = take(train_iterator(source, CONFIG, 4, 5, 0, jitter=jitter), 12)
    for num_workers in (1, 2) if jitter else (2,):
        assert_equal(alone, take(train_iterator(source, CONFIG, 4, 5, num_workers, jitter=jitter), 12))


def test_without_jitter_a_sample_is_what_evaluation_reads(source):
    batch = next(train_iterator(source, CONFIG, 4, 0, 0, jitter=False))
    known = {source[i]["hand_pose"][:48].tobytes(): i for i in range(len(source))}
    expected = stack([network_sample(source[known[pose.tobytes()]], None, CONFIG) for pose in batch.hand_pose])
    assert_equal([batch], [expected])


def test_with_context_the_crop_is_in_the_middle(source):
    """The same camera axis and the same size of a pixel, more of the image around it."""
    wide = with_context(CONFIG, 1.25)
    assert wide.image_size == 40
    narrow_sample, wide_sample = (network_sample(source[3], None, config) for config in (CONFIG, wide))
    np.testing.assert_allclose(wide_sample["joints_2d"], narrow_sample["joints_2d"] + 4, atol=1e-3)
    np.testing.assert_allclose(wide_sample["R_crop_camera"], narrow_sample["R_crop_camera"], atol=1e-6)
    whole = changed(crop="full")
    assert with_context(whole, 1.25) is whole


def test_the_seed_decides(source):
    first, again, other = (take(train_iterator(source, CONFIG, 4, seed, 0), 3) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert any((a.image != b.image).any() for a, b in zip(first, other, strict=True))


def test_an_epoch_sees_every_sample_once(source):
    """The hand's parameters do not change with the crop: they say which sample it was."""
    known = {source[i]["hand_pose"][:48].tobytes(): i for i in range(len(source))}
    assert len(known) == len(source)
    epochs = [take(train_iterator(source, CONFIG, 4, 0, 0), 8)[k : k + 4] for k in (0, 4)]
    orders = [[known[pose.tobytes()] for batch in epoch for pose in batch.hand_pose] for epoch in epochs]
    assert all(sorted(order) == list(range(len(source))) for order in orders)
    assert orders[0] != orders[1]


def test_jitter_differs_between_epochs(source):
    def crops(epoch):
        return {
            pose.tobytes(): joints
            for batch in take(train_iterator(source, CONFIG, 4, 0, 0), 8)[4 * epoch : 4 * epoch + 4]
            for pose, joints in zip(batch.hand_pose, batch.joints_2d, strict=True)
        }

    first, second = crops(0), crops(1)
    assert all(np.abs(first[key] - second[key]).max() > 1e-3 for key in first)


def test_a_restored_iterator_goes_on_exactly(source):
    iterator = train_iterator(source, CONFIG, 4, 7, 0)
    take(iterator, 3)
    state = iterator.get_state()
    expected = take(iterator, 4)
    fresh = train_iterator(source, CONFIG, 4, 7, 0)
    fresh.set_state(state)
    assert_equal(take(fresh, 4), expected)


def test_the_last_evaluation_batch_is_padded(source):
    batches = list(eval_batches(source, CONFIG, 6, 0))
    assert [real.tolist() for _, real in batches] == [[True] * 6, [True] * 6, [True] * 4 + [False] * 2]
    assert all(batch.image.shape[0] == 6 for batch, _ in batches)
    last = batches[-1][0]
    np.testing.assert_array_equal(last.image[4], last.image[3])
    samples = stack([network_sample(source[i], None, CONFIG) for i in range(len(source))])
    together = np.concatenate([batch.joints_3d[real] for batch, real in batches])
    np.testing.assert_array_equal(together, samples.joints_3d)


def test_evaluation_of_a_part_is_spread_over_it(source):
    batches = list(eval_batches(source, CONFIG, 4, 3))
    assert len(batches) == 1 and batches[0][1].tolist() == [True] * 3 + [False]
    for row, index in enumerate((0, 8, 15)):  # first, middle, last
        expected = network_sample(source[index], None, CONFIG)["joints_3d"]
        np.testing.assert_array_equal(batches[0][0].joints_3d[row], expected)


@pytest.mark.parametrize(("component", "field"), [("finder", "frame"), ("perception", "image")])
def test_one_component_gets_its_inputs_alone(source, component, field):
    batch = next(train_iterator(source, changed(image_size=32, frame_size=32, component=component), 4, 0, 0))
    assert getattr(batch, field).shape == (4, 32, 32, 3)
    assert getattr(batch, {"frame": "image", "image": "frame"}[field]) is None
    assert len(jax.tree.leaves(batch)) == (6 if component == "finder" else 21)


def test_evaluation_takes_whole_clips_spread_over_the_source(source):
    clips = source.clips()
    assert chosen_clips(source, 0) == chosen_clips(source, len(source)) == clips
    some = chosen_clips(source, len(source) // 2)
    assert len(some) == len(clips) // 2 and some[0] == clips[0] and some[-1] == clips[-1]


def test_batches_are_split_over_the_mesh(source):
    batch = next(train_iterator(source, CONFIG, 8, 0, 0))
    mesh = jax.make_mesh((8,), ("data",))
    placed = to_mesh(batch, NamedSharding(mesh, P("data")))
    assert {shard.data.shape[0] for shard in placed.image.addressable_shards} == {1}
    jax.tree.map(np.testing.assert_array_equal, placed, batch)


def test_an_unknown_crop_stops_before_the_first_batch(source):
    with pytest.raises(UserError, match="config.data.crop=round"):
        train_iterator(source, changed(crop="round"), 4, 0, 0)


def test_processes_jitter_apart(source, monkeypatch):
    """Of a set whose samples are all the same, two processes of one run see different crops."""

    class Same:
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return source[0]

    def boxes(process):
        monkeypatch.setattr(jax, "process_index", lambda: process)
        return next(train_iterator(Same(), CONFIG, 4, 5, 0)).R_crop_camera

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not np.allclose(boxes(0), boxes(1))
    np.testing.assert_array_equal(boxes(1), boxes(1))
