"""Temporal fusion and actions: shapes and sizes, streams against sequences, and what may be seen."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec as P
from scipy.spatial.transform import Rotation

from amt.data.ycb import primitive_table
from amt.errors import UserError
from amt.models import factory, sigma_reparam
from amt.models.contacts import ContactOutput
from amt.models.hand import HandFeatures
from amt.models.objects import ObjectOutput
from amt.models.policy import observe
from amt.models.temporal import Observation, geometry_numbers
from amt.models.vmt import VmtOutput
from amt.robot import forward, load_robot
from amt.training.optimizer import RATE_GROUPS
from amt.training.sharding import make_mesh, path_name, tree_shardings
from configs import base, demo

CONFIG = demo.get_config("tiny")
ROBOT = load_robot()
LOW, HIGH = ROBOT.limits.astype(np.float32).T
FRAMES = 44
MEMORY = 1 + 3 + 3  # frames that an action may come from, before its own: the windows of tiny's three blocks


def build(config=CONFIG, **blocks):
    return factory.build_policy(config.fusion, config.actions, blocks)


def shapes_of(b, t, d, e):
    fields = {"hand": (d,), "objects": (d,), "contacts": (e,), "joints": (21, 3), "object_position": (3,)}
    fields |= {"object_rotation": (3, 3), "object_half": (3,), "object_confidence": ()}
    fields |= {"camera_position": (3,), "qpos": (22,)}
    shapes = {name: jax.ShapeDtypeStruct((b, t, *shape), jnp.float32) for name, shape in fields.items()}
    return Observation(**shapes, valid=jax.ShapeDtypeStruct((b, t), jnp.bool_))


@pytest.fixture(scope="module")
def seen():
    """Two sequences; of each three frames have no hand, and numbers all the same."""
    rng = np.random.default_rng(0)
    seen = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes_of(2, FRAMES, 12, 6))
    valid = np.ones((2, FRAMES), bool)
    valid[0, [5, 6, 30]] = valid[1, [0, 11, 43]] = False
    turn = Rotation.random(2 * FRAMES, random_state=0).as_matrix().reshape(2, FRAMES, 3, 3).astype(np.float32)
    qpos = rng.uniform(LOW, HIGH, (2, FRAMES, 22)).astype(np.float32)
    sure = rng.uniform(0.1, 1, (2, FRAMES)).astype(np.float32)
    joints, camera = 0.1 * seen.joints, np.abs(seen.camera_position) + 1
    return seen.replace(
        camera_position=camera, joints=joints, valid=valid, object_rotation=turn, qpos=qpos, object_confidence=sure
    )


@pytest.fixture(scope="module")
def policy():
    return build()


@pytest.fixture(scope="module")
def variables(policy, seen):
    """Random numbers, larger than those of `init`: heads that start near zero would hide what they see."""
    shapes = jax.eval_shape(policy.init, jax.random.key(0), seen)
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        width = x.shape[0] ** -0.5 if name == "kernel" else 0.3
        return (rng.normal(0, width, x.shape) + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def act_with(policy):
    run = jax.jit(lambda variables, seen: policy.apply(variables, seen)[0])
    return lambda variables, seen: jax.tree.map(np.asarray, run(variables, seen))


@pytest.fixture(scope="module")
def act(act_with, variables):
    return lambda seen: act_with(variables, seen)


@pytest.fixture(scope="module")
def at_once(act, seen):
    return act(seen)


def frames(tree, index):
    return jax.tree.map(lambda x: x[:, index], tree)


def with_frames(seen, index, **fields):
    """Other numbers in some frames."""

    def put(x, value):
        x = np.array(x)
        x[:, index] = value
        return x

    return seen.replace(**{name: put(getattr(seen, name), value) for name, value in fields.items()})


def assert_same(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def test_every_output_of_the_full_size_has_its_shape():
    policy, (b, t, n) = build(base.get_config(), dtype="bfloat16"), (3, 5, 10)
    seen, cache = shapes_of(b, t, 1024, 512), jax.eval_shape(lambda: policy.empty_cache(b))
    (out, after), _ = jax.eval_shape(lambda *x: policy.init_with_output(jax.random.key(0), *x), seen, cache)
    assert {name: x.shape for name, x in vars(out).items()} == {
        "commands": (b, t, n, 22),
        "position": (b, t, n, 3),
        "rotation": (b, t, n, 3, 3),
        "grasp": (b, t, n, 10),
        "aperture": (b, t, n),
        "approach": (b, t, n, 3),
        "force": (b, t, n),
        "confidence": (b, t, n),
    }
    assert {x.dtype.name for x in jax.tree.leaves(out)} == {"float32"}
    assert [x.keys.shape for x in cache.fusion] == 4 * [(b, 7, 4, 16, 64)] + 4 * [(b, 15, 4, 16, 64)]
    assert [x.values.shape for x in cache.actions] == 4 * [(b, 15, 4, 8, 64)]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), cache)


def test_parameters_of_the_full_size_are_counted():
    shapes = jax.eval_shape(build(base.get_config()).init, jax.random.key(0), shapes_of(1, 1, 1024, 512))["params"]

    def linear(n, m):
        return n * m + m

    def block(d, m, context=0):
        own, norms = 4 * linear(d, d), 2 + (context > 0)
        cross = 2 * linear(d, d) + 2 * linear(context, d) if context else 0
        return own + cross + linear(d, m) + linear(m, d) + norms * 2 * d

    def control(n):
        return linear(512 + 31, 64) + linear(64, 64) + 2 * 2 * 64 + linear(64, n)

    d, w = 1024, 512
    fusion = 8 * block(d, 4096) + 3 * linear(d, d) + linear(512, d) + linear(95, d) + 4 * d + 2 * d
    actions = 4 * block(w, 2048, d) + 10 * w + linear(31, w) + 2 * w + control(6) + control(16) + linear(w, 25)
    counted = {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in shapes.items()}
    assert counted == {"fusion": fusion, "actions": actions}


def test_a_stream_answers_as_the_whole_sequence_and_does_not_grow(policy, variables, seen, at_once):
    step = jax.jit(lambda seen, cache: policy.apply(variables, seen, cache), donate_argnums=1)
    cache = policy.empty_cache(2)
    sizes = jax.tree.map(lambda x: (x.shape, x.dtype), cache)
    for t in range(FRAMES):
        actions, cache = step(frames(seen, slice(t, t + 1)), cache)
        assert_same(actions, frames(at_once, slice(t, t + 1)), atol=1e-5)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), cache) == sizes
    assert step._cache_size() == 1


def test_a_stream_may_take_several_frames_at_a_time(policy, variables, seen, at_once):
    step = jax.jit(lambda seen, cache: policy.apply(variables, seen, cache))
    cache, answers = policy.empty_cache(2), []
    for t in range(0, FRAMES, 22):
        actions, cache = step(frames(seen, slice(t, t + 22)), cache)
        answers.append(actions)
    assert_same(jax.tree.map(lambda *x: np.concatenate(x, axis=1), *answers), at_once, atol=1e-5)


def test_the_future_changes_nothing_and_the_past_as_far_as_windows_reach(act, seen, at_once):
    t = 20
    after = act(with_frames(seen, t, hand=3.0, joints=0.5))
    assert_same(frames(after, slice(t)), frames(at_once, slice(t)), rtol=0)
    assert_same(frames(after, slice(t + MEMORY + 1, None)), frames(at_once, slice(t + MEMORY + 1, None)), rtol=0)
    for k in range(t, t + MEMORY + 1):
        assert np.abs(after.commands[:, k] - at_once.commands[:, k]).max() > 1e-6, k


@pytest.mark.parametrize("field", ["hand", "objects", "contacts", "joints", "object_position", "object_half", "qpos"])
def test_every_input_is_seen(act, seen, at_once, field):
    value = getattr(seen, field)[:, 20] + 0.1
    after = act(with_frames(seen, 20, **{field: value}))
    assert np.abs(after.position[:, 20] - at_once.position[:, 20]).max() > 1e-5


def test_the_order_of_frames_is_seen(act, seen, at_once):
    order = np.arange(FRAMES)
    order[[18, 19]] = 19, 18
    assert np.abs(act(frames(seen, order)).commands[:, 20] - at_once.commands[:, 20]).max() > 1e-5


def test_a_frame_without_a_hand_says_nothing_but_the_joints(policy, variables, act, seen, at_once):
    """Not even NaN reaches actions or gradients; frames before and after are seen as ever."""
    dark = ~seen.valid

    def spoil(x):
        return np.where(dark.reshape(*dark.shape, *[1] * (x.ndim - 2)), np.nan, x).astype(x.dtype)

    spoiled = jax.tree.map(spoil, seen).replace(qpos=seen.qpos, valid=seen.valid)
    assert_same(act(spoiled), at_once, rtol=0)

    def loss(variables, seen):
        return sum(x.sum() for x in jax.tree.leaves(policy.apply(variables, seen)[0]))

    gradients = jax.jit(jax.grad(loss))(variables, frames(spoiled, slice(10)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_behind_frames_without_a_hand_a_frame_stands_alone(act, seen):
    lost = with_frames(seen, slice(0, 20), valid=False)
    alone = act(frames(seen, slice(20, 21)))
    assert_same(frames(act(lost), slice(20, 21)), alone, atol=1e-5)


def test_geometry_is_as_documented(seen):
    found = np.asarray(geometry_numbers(seen))[1, 7]
    joints, thing = (np.asarray(x[1, 7], np.float64) for x in (seen.joints, seen.object_position))
    wrist, z = joints[0], joints[9] - joints[0]
    z = z / np.linalg.norm(z)
    x = np.cross(joints[5] - joints[17], z)
    x = x / np.linalg.norm(x)
    palm = np.stack([x, np.cross(z, x), z], axis=1)
    camera = np.asarray(seen.camera_position[1, 7], np.float64)

    def on_table(point):
        """3 cm above it, on the line from the camera through the point, at most 3 times as far."""
        there = camera + (point - camera) * min(3.0, (camera[2] - 0.03) / (camera[2] - point[2]))
        return np.concatenate([there[:2], 10 * (there - wrist) @ palm])

    grip = joints[[4, 8]].mean(0) / 2 + joints[[4, 12]].mean(0) / 2
    expected = [10 * (joints[1:] - wrist) @ palm, wrist, palm[:, 0], palm[:, 1], on_table(grip)]
    expected += [thing, 10 * (thing - wrist) @ palm]
    turn = seen.object_rotation[1, 7]
    expected += [turn[:, 0], turn[:, 1], 10 * seen.object_half[1, 7], seen.object_confidence[1, 7], on_table(thing)]
    np.testing.assert_allclose(found, np.concatenate([np.ravel(part) for part in expected]), atol=1e-4)
    nothing = seen.replace(object_confidence=np.zeros_like(seen.object_confidence))
    assert (np.asarray(geometry_numbers(nothing))[..., -21:] == 0).all()


def perceived(rng, n, T):
    """What a camera at `T` (T_base_camera, one a crop) says of n scenes that are the same in the base frame."""
    R, origin = T[:, :3, :3], T[:, :3, 3]

    def seen_at(points):
        return np.einsum("nji,nqj->nqi", R, points - origin[:, None]).astype(np.float32)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    turn = Rotation.random(n * 3, random_state=1).as_matrix().reshape(n, 3, 3, 3)
    joints, position = 0.1 * draw(n, 21, 3), draw(n, 3, 3)
    confidence = np.tile(np.float32([2, -3, 3]), (n, 1))  # the first is the one that is held
    classes = np.where(np.arange(100) == 5, 50, draw(n, 3, 100)).astype(np.float32)
    turned_object = np.einsum("nji,nqjk->nqik", R, turn).astype(np.float32)
    hand = HandFeatures(draw(n, 21, 8), draw(n, 21, 3), draw(n, 21), draw(n, 10))
    objects = ObjectOutput(seen_at(position), turned_object, confidence, classes, draw(n, 3, 8))
    contacts = ContactOutput(seen_at(joints[:, :2]), draw(n, 2), draw(n, 2, 4), draw(n, 2, 3), draw(n, 2, 6))
    truth = joints, position[:, 0], turn[:, 0]
    return VmtOutput(hand.replace(joints=seen_at(joints)), objects, contacts), truth


def test_the_policy_is_told_of_the_base_frame_wherever_the_camera_is():
    b, t = 2, 3
    half, _ = primitive_table()
    for seed in (0, 1):
        T = np.tile(np.eye(4), (b * t, 1, 1))
        T[:, :3, :3] = Rotation.random(b * t, random_state=seed).as_matrix()
        T[:, :3, 3] = np.random.default_rng(seed).normal(size=(b * t, 3))
        out, (joints, position, turn) = perceived(np.random.default_rng(5), b * t, T)
        T = T.reshape(b, t, 4, 4).astype(np.float32)
        rest = np.zeros((b, t, 22), np.float32), np.ones((b, t), bool)
        seen = observe(out, T, half, *rest, np.ones((b, t), np.float32))
        np.testing.assert_allclose(seen.joints.reshape(-1, 21, 3), joints, atol=1e-5)
        np.testing.assert_allclose(seen.object_position.reshape(-1, 3), position, atol=1e-5)
        np.testing.assert_allclose(seen.object_rotation.reshape(-1, 3, 3), turn, atol=1e-5)
        twice = observe(out, T, half, *rest, np.full((b, t), 2, np.float32))
        for name in ("joints", "object_position"):
            near = getattr(seen, name).reshape(b, t, -1, 3) - T[:, :, None, :3, 3]
            far = getattr(twice, name).reshape(b, t, -1, 3) - T[:, :, None, :3, 3]
            np.testing.assert_allclose(far, 2 * near, atol=1e-5)
        np.testing.assert_array_equal(twice.object_rotation, seen.object_rotation)
        np.testing.assert_allclose(seen.object_half, np.broadcast_to(half[5], (b, t, 3)), rtol=1e-4)
        np.testing.assert_allclose(seen.object_confidence, 1 / (1 + np.exp(-2.0)), rtol=1e-5)
        np.testing.assert_allclose(seen.hand.reshape(-1, 8), out.hand.tokens.mean(1), atol=1e-6)
        weight = 1 / (1 + np.exp(-out.contacts.confidence))
        mean = (out.contacts.tokens * weight[..., None]).sum(1) / weight.sum(1, keepdims=True)
        np.testing.assert_allclose(seen.contacts.reshape(-1, 6), mean, atol=1e-5)


def test_a_decoder_of_zeros_leaves_the_robot_as_it_is(act_with, variables, seen):
    """Commands are the joints themselves, the end effector is where it is, the approach is the palm's normal."""
    params = variables["params"]
    zeros = {"params": params | {"actions": jax.tree.map(np.zeros_like, params["actions"])}}
    one = frames(seen, slice(1))
    out = act_with(zeros, one)
    for step in range(CONFIG.actions.num_steps):
        np.testing.assert_array_equal(out.commands[:, :, step], one.qpos)
    wrist = np.asarray(forward(ROBOT, one.qpos, ("wrist",))["wrist"])[:, :, None]
    np.testing.assert_allclose(out.position, np.broadcast_to(wrist[..., :3, 3], out.position.shape), atol=1e-6)
    np.testing.assert_allclose(out.rotation, np.broadcast_to(wrist[..., :3, :3], out.rotation.shape), atol=1e-5)
    np.testing.assert_allclose(out.approach, np.broadcast_to(wrist[..., :3, 0], out.approach.shape), atol=1e-5)


def test_high_level_answers_are_possible_ones(at_once):
    np.testing.assert_allclose(np.linalg.norm(at_once.approach, axis=-1), 1, atol=1e-5)
    identity = np.einsum("...ji,...jk->...ik", at_once.rotation, at_once.rotation)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-5)
    assert (at_once.force > 0).all() and (at_once.aperture > 0).all()
    assert (at_once.commands >= LOW).all() and (at_once.commands <= HIGH).all()


def test_gains_are_on_every_dense_of_the_blocks_and_nowhere_else(variables):
    params, _ = sigma_reparam.init(variables["params"])
    gained = {path.removesuffix("gain") for path in flatten_dict(params, sep="/") if path.endswith("/gain")}
    kernels = {path.removesuffix("kernel") for path in flatten_dict(params, sep="/") if path.endswith("/kernel")}
    assert gained == {path for path in kernels if "/Block_" in path}
    assert len(gained) == 6 * CONFIG.fusion.depth + 10 * CONFIG.actions.depth


def test_every_parameter_has_one_group_and_a_place_on_the_mesh():
    shapes = jax.eval_shape(build(base.get_config()).init, jax.random.key(0), shapes_of(1, 1, 1024, 512))["params"]
    tree = {"policy": shapes}
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        assert [group for group, pattern in RATE_GROUPS if re.search(pattern, path_name(path))] == ["policy"]
    placed = tree_shardings(tree, make_mesh(2, 2, 2))
    assert placed["policy"]["fusion"]["Block_0"]["Dense_0"]["kernel"].spec == P("fsdp", "tensor")


def test_dropout_acts_where_there_is_a_generator_and_only_there(act_with, variables, seen):
    policy, one = build(dropout=0.5), frames(seen, slice(1))
    run = jax.jit(lambda variables, **rngs: policy.apply(variables, one, rngs=rngs)[0])
    once, again, other = (run(variables, dropout=jax.random.key(k)) for k in (0, 0, 1))
    assert_same(once, again, rtol=0)
    assert np.abs(once.commands - other.commands).max() > 1e-4
    assert_same(run(variables), act_with(variables, one), atol=1e-5)


def test_a_share_of_the_blocks_is_computed_again(variables, seen):
    def count(remat):
        policy = build(remat=remat)
        return str(jax.make_jaxpr(policy.apply)(variables, frames(seen, slice(3)))).count("remat")

    assert [count(remat) for remat in (0.0, 0.5, 1.0)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("section", "field", "value", "expected"),
    [
        ("fusion", "num_heads", 3, "expected a divisor of fusion.hidden_dim=16"),
        ("actions", "num_heads", 16, "hidden_dim=16: expected an even number of features for each of 16 heads"),
        ("fusion", "short_window", 5, "expected 1 to 4, fusion.window"),
        ("fusion", "depth", 0, "expected 1 or more"),
        ("actions", "num_steps", 0, "expected 1 or more"),
    ],
)
def test_sizes_that_are_not_possible_are_named(section, field, value, expected):
    config = demo.get_config("tiny")
    config[section][field] = value
    with pytest.raises(UserError, match=f"config.{section}.*{expected}"):
        build(config)
