"""Loss terms against closed forms, and their gradients where they could be infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from amt import losses
from amt.data.ycb import OBJECTS
from amt.geometry.cameras import project
from amt.geometry.primitives import signed_distance
from amt.models.contacts import ContactOutput
from amt.models.finder import Found
from amt.models.hand import CoarseHand, HandFeatures
from amt.models.keypoints import Keypoints, cell_centers
from amt.models.objects import ObjectOutput
from amt.models.perception import PerceptionOutput
from amt.models.vmt import VmtHand, VmtOutput
from amt.training.step import symmetry_table
from configs import demo, vmt
from tests.samples import HAND, make_batch

QUERIES, CELLS, SIZE = 10, 8, 32
SYMMETRIES = jnp.asarray(symmetry_table())
LABELS = jax.jit(lambda batch: losses.labels(batch, HAND))
TERMS = jax.jit(
    lambda out, found, batch: {
        **losses.perception_losses(out, batch, HAND, SYMMETRIES),
        **losses.finder_losses(found, batch),
    }
)
# What `perception_losses` computes: the other terms have tests of their own.
OTHERS = (*losses.PHYSICAL, "hand_joint_weights", "kl", "attention_entropy")
WEIGHTS = {name: weight for name, weight in demo.get_config().train.loss.items() if name not in OTHERS}


def touching(batch):
    """The first object moved into the palm, where fingers touch it."""
    pose = batch.object_pose.copy()
    pose[:, 0, :, 3] = batch.joints_3d[:, [5, 9, 12, 16]].mean(1)
    return batch.replace(object_pose=pose)


@pytest.fixture(scope="module")
def batch():
    made = touching(make_batch(12))
    assert made.joints_valid[:2].all() and not made.joints_valid.all()
    return made


def one_hot_maps(uv):
    """Log-heatmaps with nearly all of the mass in the cell at each point."""
    centers = np.asarray(cell_centers(CELLS))
    cell = np.abs(uv[..., None] - centers).argmin(-1)
    maps = np.full((*uv.shape[:-1], CELLS, CELLS), -20.0, np.float32)
    b, j = np.indices(uv.shape[:2])
    maps[b, j, cell[..., 1], cell[..., 0]] = 0.0
    return maps


def perfect(batch, seed=0):
    """What a model would say that knows the labels: (PerceptionOutput, Found). Masked rows hold the labels too."""
    rng = np.random.default_rng(seed)
    target = jax.tree.map(np.asarray, LABELS(batch))
    n = len(batch.K)
    f32 = np.float32
    uv = ((batch.joints_2d + 0.5) / SIZE).astype(f32)
    scale = np.where(batch.joints_valid, batch.joints_3d[:, 0, 2] * SIZE / batch.K[:, 0, 0], 1).astype(f32)
    depth = (batch.joints_3d[..., 2] - batch.joints_3d[:, :1, 2]) / scale[:, None]
    eye = np.broadcast_to(np.eye(4, dtype=f32), (n, 16, 4, 4))
    tokens = np.zeros((n, 21, 4), f32)
    joints = batch.joints_3d
    coarse = CoarseHand(target.rotations, batch.betas, joints[:, 0], joints, target.vertices, eye)
    seen = np.where(np.repeat(batch.joints_valid[:, None], 21, 1), 20, -20).astype(f32)
    hand = HandFeatures(tokens, joints, seen, batch.betas)
    rows = np.arange(n)[:, None]
    order = rng.permuted(np.tile(np.arange(QUERIES), (n, 1)), axis=1)  # queries in any order, but the grasped one first
    held = np.where(batch.grasped < 0, order[:, 0], batch.grasped)[:, None]
    order[rows[:, 0], (order == held).argmax(1)] = order[:, 0]
    order[:, :1] = held
    pose, ids = batch.object_pose[rows, order], batch.object_ids[rows, order]
    real = batch.object_valid[rows, order]
    rotation = np.where(real[..., None, None], pose[..., :3], np.eye(3)).astype(f32)
    classes = np.where(np.arange(22) == ids[..., None], 20, 0).astype(f32)
    confidence = np.where(real, 20, -20).astype(f32)
    middles = (project(np.where(real[..., None], pose[..., 3], [0, 0, 1]), batch.K) + 0.5) / SIZE
    maps = one_hot_maps(np.asarray(middles))
    objects = ObjectOutput(pose[..., 3], rotation, confidence, classes, np.zeros((n, QUERIES, 4), f32), maps)
    touch = np.where(target.contacts_valid, 20, -20).astype(f32)
    nothing = np.zeros((n, QUERIES, 4), f32)
    contacts = ContactOutput(target.contacts, touch, nothing, nothing[..., :3], nothing)
    keypoints = Keypoints(uv, depth.astype(f32), scale, one_hot_maps(uv))
    sure = np.where(batch.frame_is_left, 20, -20).astype(f32)
    there = np.where(batch.frame_has_hand, 20, -20).astype(f32)
    maps = np.full((n, 21, CELLS, CELLS), -np.log(CELLS**2), f32)
    found = Found(batch.frame_joints, sure, there, maps)
    right = np.where(batch.shows_left, -20, 20).astype(f32)
    return PerceptionOutput(keypoints, joints, coarse, hand, joints, right, objects, contacts), found


def perfect_vmt(batch):
    out, _ = perfect(batch)
    k = out.keypoints
    hand = VmtHand(batch.joints_3d, k.uv[:, 0], k.scale, out.hand.confidence, batch.betas, out.hand.tokens)
    return VmtOutput(hand, out.objects.replace(log_heatmaps=None), out.contacts)


def terms(out, found, batch):
    return {k: float(v) for k, v in TERMS(out, found, batch).items()}


def test_a_perfect_answer_costs_nothing(batch):
    """But the cross-entropies of heatmaps, whose least is the entropy of the blurred targets."""
    values = terms(*perfect(batch), batch)
    assert values.keys() == WEIGHTS.keys()
    for name, value in values.items():
        if "heatmap" not in name:
            assert abs(value) < 2e-3, name  # geodesic angles of float32 rotations


def test_vmt_has_amts_terms_of_what_it_predicts(batch):
    """Those that its configuration weighs; an error of its wrist, scale and joints costs what it says."""

    def both(out, batch):
        target = losses.labels(batch, HAND)
        physical = losses.physical_losses(out, batch, target, HAND)
        return losses.perception_losses(out, batch, HAND, SYMMETRIES, jnp.zeros(21)) | physical

    all_terms = jax.jit(both)
    out = perfect_vmt(batch)
    values = all_terms(out, batch)
    weights = vmt.get_config().train.loss
    weighed = {name for name, w in weights.items() if w} - {"kl", "attention_entropy"}
    assert values.keys() == weighed | {"hand_absolute"}
    for name in values.keys() - {"contact_placement"}:
        assert abs(values[name]) < 2e-3, name
    place, scale = out.hand.place + np.float32([0.02, -0.03]), out.hand.scale * np.float32(1.2)
    moved = all_terms(out.replace(hand=out.hand.replace(place=place, scale=scale)), batch)
    assert moved["keypoint_place"] == pytest.approx(0.05, rel=1e-3)
    assert moved["keypoint_scale"] == pytest.approx(np.log(1.2), rel=1e-3)
    longer = batch.joints_3d * np.float32([1, 1, 1.1])
    depth = np.abs(batch.joints_3d[..., 2] - batch.joints_3d[:, :1, 2])[batch.joints_valid]
    assert all_terms(out.replace(hand=out.hand.replace(joints=longer)), batch)["hand_coarse"] == pytest.approx(
        (depth @ np.asarray(losses.joint_weights())).mean() / 21, rel=1e-3
    )


def test_crops_of_a_left_hand_teach_the_side_alone(batch):
    out, found = perfect(batch)
    left = batch.replace(
        shows_left=np.ones_like(batch.shows_left),
        joints_valid=np.zeros_like(batch.joints_valid),
        hand_pose_valid=np.zeros_like(batch.hand_pose_valid),
        hand_visible=np.ones_like(batch.hand_visible),
        object_valid=np.zeros_like(batch.object_valid),
    )
    values = {k: v for k, v in terms(out, found, left).items() if not k.startswith("finder")}
    assert values.pop("hand_side") == pytest.approx(20, rel=1e-3)
    assert not any(values.values()), values


def test_heatmap_terms_are_cross_entropies(batch):
    """Against uniform maps: log of the number of cells."""
    out, found = perfect(batch)
    keypoints = out.keypoints.replace(log_heatmaps=np.full_like(out.keypoints.log_heatmaps, -np.log(CELLS**2)))
    objects = out.objects.replace(log_heatmaps=np.full_like(out.objects.log_heatmaps, -np.log(CELLS**2)))
    values = terms(out.replace(keypoints=keypoints, objects=objects), found, batch)
    assert values["keypoint_heatmap"] == pytest.approx(np.log(CELLS**2), rel=1e-5)
    assert values["finder_heatmap"] == pytest.approx(np.log(CELLS**2), rel=1e-5)
    assert values["object_heatmap"] == pytest.approx(np.log(CELLS**2), rel=1e-5)


def test_joint_errors_are_weighted_decimetres(batch):
    """One tip 1 cm off: 0.1 dm, a 21st of the joints, importance 1.5 of a mean of 23.5 / 21."""
    out, found = perfect(batch)
    off = out.joints + np.float32([0, 0.01, 0]) * (np.arange(21) == 8)[:, None].astype(np.float32)
    values = terms(out.replace(joints=off), found, batch)
    assert values["hand_refined"] == pytest.approx(0.1 * 1.5 / 23.5, abs=2e-5)
    assert values["hand_coarse"] < 1e-4
    moved = terms(out.replace(joints=out.joints + np.float32(0.1)), found, batch)
    assert moved["hand_refined"] < 1e-4 and moved["reprojection"] > 0.01
    assert moved["hand_absolute"] == pytest.approx(3**0.5, rel=1e-4)


def test_keypoint_terms_are_plain_means(batch):
    out, found = perfect(batch)
    k = out.keypoints
    k = k.replace(uv=k.uv + np.float32([0.02, -0.03]), scale=k.scale * np.float32(1.2))
    depth = k.depth.copy()
    depth[:, 3] += 0.21
    values = terms(out.replace(keypoints=k.replace(depth=depth)), found, batch)
    assert values["keypoint_place"] == pytest.approx(0.05, rel=1e-3)
    assert values["keypoint_scale"] == pytest.approx(np.log(1.2), rel=1e-3)
    assert values["keypoint_depth"] == pytest.approx(0.01, rel=1e-3)


def test_rotation_and_shape_terms(batch):
    out, found = perfect(batch)
    turn = Rotation.from_rotvec([0, 0.3, 0]).as_matrix().astype(np.float32)
    R = out.coarse.rotations.copy()
    R[:, 4] = R[:, 4] @ turn
    coarse = out.coarse.replace(rotations=R, betas=out.coarse.betas + np.float32(0.5))
    values = terms(out.replace(coarse=coarse), found, batch)
    assert values["hand_rotation"] == pytest.approx(0.3 / 16, abs=1e-3)
    assert values["hand_shape"] == pytest.approx(0.25, rel=1e-4)
    left = batch.replace(left_basis=np.ones_like(batch.left_basis))  # shapes of another basis are not comparable
    assert terms(out.replace(coarse=coarse), found, left)["hand_shape"] == 0


def test_object_terms(batch):
    """Every object moved by 20 cm relative to the wrist and turned by 0.4 about an axis without symmetry."""
    out, found = perfect(batch)
    far = out.objects.replace(position=out.objects.position + np.float32([0.2, 0, 0]))
    values = terms(out.replace(objects=far), found, batch)
    assert values["object_position"] == pytest.approx(2 - 0.5 + 1, rel=1e-3)  # smooth L1 and half the distance
    turn = Rotation.from_rotvec([0, 0.4, 0]).as_matrix().astype(np.float32)
    turned = out.objects.replace(rotation=out.objects.rotation @ turn)
    assert terms(out.replace(objects=turned), found, batch)["object_rotation"] == pytest.approx(0.4, abs=2e-3)


@pytest.mark.parametrize("ycb_id", [1, 3, 18])
def test_symmetric_rotations_cost_nothing(batch, ycb_id):
    changed = batch.replace(object_ids=np.where(batch.object_ids == 3, ycb_id, batch.object_ids))
    out, found = perfect(changed)
    for k in (1, 2, 13, 23):
        same = out.objects.replace(rotation=out.objects.rotation @ SYMMETRIES[ycb_id, k])
        assert terms(out.replace(objects=same), found, changed)["object_rotation"] < 2e-3


def test_finder_terms(batch):
    out, found = perfect(batch)
    values = terms(out, found.replace(uv=found.uv + np.float32([0.03, -0.01]), left=-found.left), batch)
    valid = batch.frame_joints_valid
    extent = np.maximum(np.ptp(batch.frame_joints, axis=1).max(-1), 0.1)  # places count in sizes of the hand
    expected = np.broadcast_to(0.04 / extent[:, None], valid.shape)[valid].mean()
    assert values["finder_place"] == pytest.approx(expected, rel=1e-3)
    assert values["finder_side"] == pytest.approx(20, rel=1e-3)
    assert terms(out, found.replace(presence=-found.presence), batch)["finder_presence"] == pytest.approx(20)


def test_masked_samples_do_not_count(batch):
    hidden = ~batch.joints_valid
    out, found = perfect(batch)
    rng = np.random.default_rng(0)

    def spoil(x):
        mask = hidden.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(mask, rng.normal(0, 3, x.shape), x).astype(x.dtype)

    spoiled = jax.tree.map(spoil, out)
    scale = np.abs(spoiled.keypoints.scale)  # a model's is an exponential
    spoiled = spoiled.replace(keypoints=spoiled.keypoints.replace(scale=scale))
    clean, dirty = terms(out, found, batch), terms(spoiled, found, batch)
    assert dirty.pop("hand_confidence") > 1e-3  # a crop without a hand teaches that there is none
    for name, value in dirty.items():
        assert value == pytest.approx(clean[name], abs=1e-4), name


def test_masked_mean():
    x, mask = np.float32([1, 2, np.inf, 5]), np.array([True, True, False, True])
    assert losses.masked_mean(x, mask) == pytest.approx(8 / 3)
    assert losses.masked_mean(x, np.zeros(4, bool)) == 0


@pytest.mark.parametrize("num_labels", [10, 4])
def test_matching_is_optimal(num_labels):
    rng = np.random.default_rng(num_labels)
    cost = rng.normal(size=(20, 10, num_labels)).astype(np.float32)
    valid = rng.random((20, num_labels)) < 0.6
    chosen = np.asarray(losses.match(cost, valid))
    for b in range(20):
        assert len(set(chosen[b])) == num_labels
        ours = cost[b, chosen[b], np.arange(num_labels)][valid[b]].sum()
        rows, columns = linear_sum_assignment(cost[b][:, valid[b]])
        assert ours == pytest.approx(cost[b][:, valid[b]][rows, columns].sum(), abs=1e-4)


def test_contact_labels_are_hand_vertices_on_the_object(batch):
    """All valid ones are near the surface, there are ten where there are ten candidates, none is named twice."""
    target = jax.tree.map(np.asarray, LABELS(batch))
    half, axis = OBJECTS[3].primitive
    assert (batch.object_ids[:, 0] == 3).all() and target.contacts_valid[0].any()
    for b in range(len(batch.K)):
        pose = batch.object_pose[b, 0]
        local = (target.vertices[b] - pose[:, 3]) @ pose[:, :3]
        clearance = signed_distance(local, half, np.asarray(axis))
        known = batch.hand_pose_valid[b] and batch.object_valid[b, 0]
        count = min(losses.NUM_CONTACTS, (clearance < 0.005).sum()) if known else 0
        assert target.contacts_valid[b].sum() == count
        points = target.contacts[b][target.contacts_valid[b]]
        gaps = np.linalg.norm(points[:, None] - target.vertices[b][None], axis=-1)
        assert (gaps.min(1) < 1e-5).all() if count else True
        assert (clearance[gaps.argmin(1)] < 0.005 + 1e-5).all() and len(set(gaps.argmin(1))) == count


def test_a_bare_hand_has_no_contacts(batch):
    bare = batch.replace(grasped=np.full_like(batch.grasped, -1))
    assert not np.asarray(LABELS(bare).contacts_valid).any()


GRADIENT = jax.jit(
    jax.grad(lambda answer, batch: losses.total(TERMS(*answer, batch), WEIGHTS), argnums=0, allow_int=True)
)


def degenerate(case, batch):
    out, found = perfect(batch)
    if case == "all masked":
        masks = ("joints_valid", "hand_visible", "hand_pose_valid", "object_valid", "frame_known")
        masks += ("frame_joints_valid", "frame_has_hand")
        batch = batch.replace(**{name: np.zeros_like(getattr(batch, name)) for name in masks})
        batch = batch.replace(joints_3d=0 * batch.joints_3d, joints_2d=0 * batch.joints_2d)
    elif case == "everything in one point":
        objects = out.objects.replace(position=0 * out.objects.position)
        contacts = out.contacts.replace(points=0 * out.contacts.points)
        out = out.replace(joints=0 * out.joints, objects=objects, contacts=contacts)
    elif case == "half a turn":
        flip = np.float32(np.diag([1, -1, -1]))
        R = out.coarse.rotations @ flip
        objects = out.objects.replace(rotation=out.objects.rotation @ np.float32(np.diag([-1, -1, 1])))
        out = out.replace(coarse=out.coarse.replace(rotations=R), objects=objects)
    elif case == "behind the camera":
        out = out.replace(joints=out.joints * np.float32([1, 1, -1]))
    elif case == "sure and wrong":
        out = jax.tree.map(lambda x: x * np.float32(1), out)
        objects = out.objects.replace(confidence=-5 * out.objects.confidence, classes=-5 * out.objects.classes)
        out, found = out.replace(objects=objects), found.replace(presence=-5 * found.presence)
    return out, found, batch


@pytest.mark.parametrize(
    "case",
    ["perfect", "all masked", "everything in one point", "half a turn", "behind the camera", "sure and wrong"],
)
def test_gradients_are_finite_in_a_batch_of_one(case):
    single = touching(make_batch(1, seed=4))
    assert single.joints_valid.all()
    out, found, single = degenerate(case, single)
    values = TERMS(out, found, single)
    assert all(np.isfinite(v) for v in values.values()), values
    if case == "all masked":
        assert {name for name, v in values.items() if v != 0} <= {"hand_confidence"}, values
    gradient = GRADIENT((out, found), single)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_the_total_forgets_no_term():
    terms = {"a": jnp.float32(2), "b": jnp.float32(3)}
    assert losses.total(terms, {"a": 1.0, "b": 0.5}) == 3.5
    with pytest.raises(ValueError, match="'b'"):
        losses.total(terms, {"a": 1.0})


def test_learned_joint_weights_start_as_the_fixed_ones(batch):
    out, _ = perfect(batch)
    moved = np.random.default_rng(1).normal(0, 0.01, out.joints.shape).astype(np.float32)
    out, target = out.replace(joints=out.joints + moved), LABELS(batch)
    fixed, learned = (
        {k: float(v) for k, v in losses.hand_losses(out, batch, target, logits).items()}
        for logits in (None, jnp.zeros(21))
    )
    assert learned.pop("hand_joint_weights") == pytest.approx(0, abs=1e-6)
    assert learned == pytest.approx(fixed, rel=1e-5) and fixed["hand_refined"] > 0.05


@pytest.mark.parametrize("config", [demo.get_config(), vmt.get_config()], ids=["demo", "vmt"])
def test_learned_joint_weights_do_not_flee_to_the_wrist(config):
    """Where they come to rest among errors of a model that is half trained: none at the wrist, 6 cm at the tips."""
    weights = config.train.loss
    terms = ("hand_keypoints", "hand_coarse", "hand_corrected", "hand_refined")
    error = 0.06 * np.float32([0.0, *[0.25, 0.5, 0.75, 1.0] * 5])
    truth = np.zeros((1, 21, 3), np.float32)
    predicted = truth + error[None, :, None] * np.float32([1, 0, 0])

    @jax.jit
    @jax.grad
    def slope(logits):
        joints = losses.adaptive_mpjpe(predicted, truth, np.ones(1, bool), logits)
        evenness = weights.hand_joint_weights * losses.weight_evenness(logits)
        return sum(weights[name] for name in terms) * joints + evenness

    logits = jnp.zeros(21)
    for _ in range(500):
        logits = logits - 2.0 * slope(logits)
    assert np.abs(slope(logits)).max() < 1e-3
    learned = 21 * np.asarray(jax.nn.softmax(logits))
    assert 0.5 < learned.min() < 1 < learned[0] < 2
