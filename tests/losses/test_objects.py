"""Terms of a frame that ask for labels of contacts and objects: scipy's rotations, closed forms, real geometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from amt import losses
from amt.models.contacts import ContactOutput
from amt.models.objects import ObjectOutput
from amt.structs import Batch
from amt.training.step import symmetry_table
from tests.losses.test_perception import HAND, LABELS, perfect, touching
from tests.samples import make_batch

SYMMETRIES = jnp.asarray(symmetry_table())
PHYSICAL = jax.jit(lambda out, batch, target: losses.physical_losses(out, batch, target, HAND))
CONTACT = jax.jit(losses.contact_losses)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return touching(make_batch(4))


def contacts(batch, **changed):
    """Queries on the labels' contacts, in reverse order, and those labels."""
    target = jax.tree.map(np.asarray, LABELS(batch)).replace(**changed)
    points = target.contacts[:, ::-1]
    b, q = points.shape[:2]
    zeros = np.zeros((b, q, 4), np.float32)
    sure = np.where(target.contacts_valid[:, ::-1], 20, -20).astype(np.float32)
    return ContactOutput(points, sure, zeros, zeros[..., :3], zeros), target


def test_kind_and_force_are_compared_with_the_matched_label(batch):
    """Labels that are not known (-1, NaN) do not count, nor does what has no point."""
    rng = np.random.default_rng(0)
    shape = (4, losses.NUM_CONTACTS)
    kind = rng.integers(-1, 4, shape)
    force = rng.normal(0, 12, (*shape, 3)).astype(np.float32)
    force[:, ::3] = np.nan
    out, target = contacts(batch, contact_kind=kind, contact_force=force)
    valid = target.contacts_valid & (rng.random(shape) < 0.7)
    target = target.replace(contacts_valid=valid, contact_kind=kind)
    logits = rng.normal(size=(*shape, 4)).astype(np.float32)
    guess = rng.normal(0, 12, (*shape, 3)).astype(np.float32)
    terms = CONTACT(out.replace(kind=logits, force=guess), batch, target)
    logits, guess = logits[:, ::-1], guess[:, ::-1]

    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    known = valid & (kind >= 0)
    plain = -np.take_along_axis(log_p, np.maximum(kind, 0)[..., None], -1)[..., 0][known].mean()
    assert terms["contact_kind"] == pytest.approx(plain, rel=1e-4)
    error = np.abs(guess - force) / 10
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5).sum(-1)
    assert terms["contact_force"] == pytest.approx(huber[valid & np.isfinite(force[..., 0])].mean(), rel=1e-4)
    slope = jax.grad(lambda o: CONTACT(o, batch, target)["contact_force"])(out)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))


def test_without_labels_of_kind_and_force_their_terms_are_nothing(batch):
    out, target = contacts(batch)
    terms = CONTACT(out, batch, target)
    assert terms["contact_kind"] == 0 and terms["contact_force"] == 0 and terms["contact_confidence"] >= 0
    assert (target.contact_kind == -1).all() and np.isnan(target.contact_force).all()


def simulated(batch):
    """Contacts at four joints, of three kinds, known for the first two samples; the third has none of the fourth's."""
    points, valid = np.zeros((4, 10, 3), np.float32), np.zeros((4, 10), bool)
    points[:, :4], valid[:, :4] = batch.joints_3d[:, [4, 8, 12, 16]], True
    force = np.random.default_rng(3).normal(0, 3, (4, 10, 3)).astype(np.float32)
    kind = np.tile(np.int32([1, 2, 3, 3] + [0] * 6), (4, 1))
    return batch.replace(
        contact_points=points,
        contact_force=force,
        contact_kind=kind,
        contact_valid=valid,
        contact_known=np.array([True, True, False, False]),
    )


def test_labels_are_the_simulated_contacts_where_they_are_known_and_geometrys_elsewhere(batch):
    plain, target = (jax.tree.map(np.asarray, LABELS(b)) for b in (batch, simulated(batch)))
    np.testing.assert_array_equal(target.contacts[2:], plain.contacts[2:])
    np.testing.assert_array_equal(target.contacts_valid[2:], plain.contacts_valid[2:])
    assert (target.contact_kind[2:] == -1).all() and np.isnan(target.contact_force[2:]).all()
    made = simulated(batch)
    np.testing.assert_array_equal(target.contacts[:2], made.contact_points[:2])
    np.testing.assert_array_equal(target.contacts_valid[:2], made.contact_valid[:2])
    np.testing.assert_array_equal(target.contact_force[:2], made.contact_force[:2])
    np.testing.assert_array_equal(target.contact_kind[:2], made.contact_kind[:2])
    lost = made.replace(contact_valid=np.zeros((4, 10), bool))
    assert (np.asarray(LABELS(lost).contact_kind)[:2] == 0).all()  # a hand that touches nothing: none
    lost = lost.replace(contact_kind=np.full((4, 10), -1, np.int32))
    assert (np.asarray(LABELS(lost).contact_kind) == -1).all()  # files without kinds


def test_an_answer_of_the_simulated_contacts_costs_nothing_and_others_slope_towards_it(batch):
    made = simulated(batch)
    target = jax.tree.map(np.asarray, LABELS(made))
    sure = np.where(target.contacts_valid, 20, -20).astype(np.float32)
    kind = np.where(np.arange(4) == target.contact_kind[..., None], 20, 0).astype(np.float32)
    out = ContactOutput(target.contacts, sure, kind, np.nan_to_num(target.contact_force), kind)
    terms = CONTACT(out, made, target)
    assert made.hand_pose_valid[:2].any()
    assert all(value < 1e-4 for value in terms.values()), terms
    wrong = out.replace(kind=kind[..., ::-1], force=-out.force)
    terms, slope = CONTACT(wrong, made, target), jax.grad(lambda o: sum(CONTACT(o, made, target).values()))(wrong)
    assert terms["contact_kind"] > 1 and terms["contact_force"] > 0.01
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    assert np.abs(slope.force[:2]).max() > 0 and not np.asarray(slope.force[2:]).any()


def test_a_perfect_hand_costs_little_physics(batch):
    """Contact points on the hand within 5 mm of the object; the hand moved far into the object costs its depth."""
    out, _ = perfect(batch)
    target = LABELS(batch)
    at_rest = PHYSICAL(out, batch, target)
    assert at_rest["physics_force"] == 0
    off = out.replace(contacts=out.contacts.replace(points=out.contacts.points + np.float32([0, 0, 0.1])))
    assert PHYSICAL(off, batch, target)["contact_placement"] > at_rest["contact_placement"] + 0.3
    away = batch.object_pose.copy()
    away[:, :, :, 3] += 1.0
    assert PHYSICAL(out, batch.replace(object_pose=away), target)["physics_penetration"] == 0

    clearance, known = (np.asarray(x) for x in losses.to_grasped(target.vertices, batch))
    assert known.any() and (clearance[known] < 0).any()
    expected = np.maximum(-clearance, 0).mean(-1)[known].mean() * 10
    assert at_rest["physics_penetration"] == pytest.approx(expected, rel=1e-3)


def test_the_hand_is_held_against_the_object_from_wrist_to_wrist(batch):
    """How far away the whole hand was thought to be changes no penetration, and penetration does not teach it."""
    out, _ = perfect(batch)
    target = LABELS(batch)

    def depth(shift):
        coarse = out.coarse.replace(joints=out.coarse.joints + shift, vertices=out.coarse.vertices + shift)
        return PHYSICAL(out.replace(coarse=coarse), batch, target)["physics_penetration"]

    far = np.broadcast_to(np.float32([0, 0, 0.2]), (len(batch.K), 1, 3))
    assert float(depth(far)) == pytest.approx(float(depth(0 * far)), rel=1e-3)
    np.testing.assert_allclose(jax.grad(depth)(far), 0, atol=1e-5)


@pytest.mark.parametrize("case", ["all masked", "one point", "half a turn", "behind the camera"])
def test_physical_terms_are_finite_in_a_batch_of_one(case):
    single = touching(make_batch(1, seed=4))
    out, _ = perfect(single)
    target = LABELS(single)
    if case == "all masked":
        nothing = np.zeros(1, bool)
        single = single.replace(hand_visible=nothing, hand_pose_valid=nothing)
    elif case == "half a turn":
        flipped = out.coarse.rotations @ np.float32(np.diag([1, -1, -1]))
        out = out.replace(coarse=out.coarse.replace(rotations=flipped))
    else:
        factor = np.float32(0) if case == "one point" else np.float32([1, 1, -1])
        coarse = out.coarse.replace(joints=out.coarse.joints * factor, vertices=out.coarse.vertices * factor)
        points = out.contacts.replace(points=out.contacts.points * factor)
        out = out.replace(joints=out.joints * factor, coarse=coarse, contacts=points)
    values = PHYSICAL(out, single, target)
    assert all(np.isfinite(v) for v in values.values()), values
    if case == "all masked":
        assert not any(values.values()), values
    slopes = jax.grad(lambda x: sum(PHYSICAL(x, single, target).values()))(out)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))


BLANK = make_batch(1, seed=4)


def one_object(ycb_id, truth, guess, position=(0.0, 0.0, 0.0)):
    """The object terms of one query, `position` from the label of the same object; it lies where the wrist does."""
    there = jnp.asarray([0, 0, 0.5])
    pose = jnp.concatenate([jnp.asarray(truth, jnp.float32), there[:, None]], -1)[None, None]
    batch = BLANK.replace(
        object_pose=pose,
        object_ids=jnp.array([[ycb_id]]),
        object_valid=jnp.ones((1, 1), bool),
        joints_3d=jnp.zeros_like(BLANK.joints_3d) + there[None, None],
    )
    nothing = jnp.zeros((1, 1, 4))
    place = there + jnp.asarray(position, jnp.float32)
    out = ObjectOutput(
        place[None, None], jnp.asarray(guess)[None, None], nothing[..., 0], jnp.zeros((1, 1, 22)), nothing
    )
    return losses.object_losses(out, there[None], batch, SYMMETRIES)


OBJECT = jax.jit(one_object)
SLOPE = jax.jit(jax.grad(lambda guess, i, truth: one_object(i, truth, guess)["object_rotation"]))


@pytest.mark.parametrize("ycb_id", [1, 2, 18])
def test_the_rotation_term_is_the_least_angle_over_symmetries(ycb_id):
    """Against scipy's angles; and its slope along a turn against a central difference."""
    same = Rotation.from_matrix(symmetry_table()[ycb_id])
    for seed in range(5):
        truth, guess = Rotation.random(2, random_state=seed)
        angles = (guess.inv() * truth * same).magnitude()
        R, Q = (np.asarray(x.as_matrix(), np.float32) for x in (truth, guess))
        assert OBJECT(ycb_id, R, Q)["object_rotation"] == pytest.approx(angles.min(), abs=1e-4)
        axis = np.random.default_rng(seed).normal(size=3)
        step = 5e-3 * axis / np.linalg.norm(axis)
        plus, minus = ((guess * Rotation.from_rotvec(s)).as_matrix().astype(np.float32) for s in (step, -step))
        slope = (np.asarray(SLOPE(Q, ycb_id, R)) * (plus - minus)).sum()
        change = float(np.subtract(*(OBJECT(ycb_id, R, q)["object_rotation"] for q in (plus, minus))))
        assert slope == pytest.approx(change, abs=2e-4)


@pytest.mark.parametrize("angle", [0.0, 1e-4, np.pi - 1e-4, np.pi])
def test_the_rotation_term_has_a_finite_slope_at_zero_and_pi(angle):
    truth = Rotation.random(random_state=7)
    guess = truth * Rotation.from_rotvec(angle * np.float64([0.6, 0.0, 0.8]))
    R, Q = (np.asarray(x.as_matrix(), np.float32) for x in (truth, guess))
    assert np.isfinite(OBJECT(2, R, Q)["object_rotation"]) and np.isfinite(SLOPE(Q, 2, R)).all()


@pytest.mark.parametrize("dm", [0.2, 0.9, 3.0])
def test_position_is_smooth_l1_and_half_the_distance(dm):
    eye = np.eye(3, dtype=np.float32)
    value = OBJECT(2, eye, eye, (0.0, 0.6 * dm / 10, 0.8 * dm / 10))["object_position"]
    assert value == pytest.approx((0.5 * dm**2 if dm < 1 else dm - 0.5) + 0.5 * dm, rel=1e-4)


def test_the_place_is_compared_along_lines_of_sight():
    """Nearer or farther along its line an object costs nothing, beside it by pixels in sides of the crop."""
    eye, K = np.eye(3, dtype=np.float32), np.asarray(BLANK.K[0], np.float64)
    center, size = np.array([0.02, -0.01, 0.5]), BLANK.image.shape[1]

    def place(position, slope=False):
        pose = np.concatenate([eye, center[:, None]], -1, dtype=np.float32)[None, None]
        batch = BLANK.replace(object_pose=pose, object_ids=np.int32([[2]]), object_valid=np.ones((1, 1), bool))
        nothing, where = jnp.zeros((1, 1, 4)), jnp.asarray(position, jnp.float32)[None, None]
        out = ObjectOutput(where, eye[None, None], nothing[..., 0], nothing, nothing)

        def cost(out):
            return losses.object_losses(out, jnp.zeros((1, 3)), batch, SYMMETRIES)["object_place"]

        return jax.grad(cost)(out).position if slope else float(cost(out))

    assert place(center) == pytest.approx(0, abs=1e-8)
    assert place(1.4 * center) == pytest.approx(0, abs=1e-8)
    aside = center + [0.03, 0, 0]
    pixels = [K @ p / p[2] for p in (aside, center)]
    error = abs(pixels[0][0] - pixels[1][0]) / size
    assert error > 0.02
    assert place(aside) == pytest.approx(error - 0.01, rel=1e-3)
    assert place(-center) == 0 and np.isfinite(place(-center, slope=True)).all()  # behind the camera


@pytest.mark.parametrize("center", [(0.3, 0.0, 0.5), (0.0, -0.3, 0.5), (0.0, 0.0, -0.5)])
def test_nobody_is_asked_for_what_is_not_in_the_crop(center):
    """But the confidence: it should say that nothing is there."""
    eye = np.eye(3, dtype=np.float32)
    pose = np.concatenate([eye, np.array(center)[:, None]], -1, dtype=np.float32)[None, None]
    batch = BLANK.replace(object_pose=pose, object_ids=np.int32([[2]]), object_valid=np.ones((1, 1), bool))
    maps, nothing = jnp.full((1, 1, 4, 4), -jnp.log(16.0)), jnp.zeros((1, 1, 4))
    where = jnp.asarray([[[0.05, 0.1, 0.6]]])

    def value(confidence):
        out = ObjectOutput(where, eye[None, None], jnp.full((1, 1), confidence), jnp.zeros((1, 1, 22)), nothing, maps)
        return losses.object_losses(out, jnp.zeros((1, 3)), batch, SYMMETRIES)

    found = value(-20.0)
    assert "object_heatmap" in found and all(abs(float(x)) < 1e-6 for x in found.values())
    assert float(value(20.0)["object_confidence"]) == pytest.approx(20, rel=1e-4)


def test_the_first_query_is_the_grasped_object_s():
    """Where two queries say two objects rightly, but the other way round, both are wrong; the right way, none is."""
    eye, places = np.eye(3, dtype=np.float32), np.float32([[0.05, 0, 0.5], [-0.05, 0, 0.5]])
    pose = np.concatenate([np.tile(eye, (2, 1, 1)), places[..., None]], -1)[None]
    batch = BLANK.replace(object_pose=pose, object_ids=np.int32([[2, 3]]), object_valid=np.ones((1, 2), bool))
    nothing = jnp.zeros((1, 2, 4))

    def off(order, grasped):
        where = jnp.asarray(places[None, order] - BLANK.joints_3d[:, :1])
        out = ObjectOutput(
            where, jnp.asarray(np.tile(eye, (1, 2, 1, 1))), nothing[..., 0], jnp.zeros((1, 2, 22)), nothing
        )
        held = batch.replace(grasped=np.int32([grasped]))
        return float(losses.object_losses(out, jnp.zeros((1, 3)), held, SYMMETRIES)["object_position"])

    for grasped in (0, 1):
        assert off([grasped, 1 - grasped], grasped) < 1e-4
        assert off([1 - grasped, grasped], grasped) == pytest.approx(1 - 0.5 + 0.5, rel=1e-3)  # a decimetre each
