"""Labels of another hand model: right to 10 micrometres when posed with it, left out with the embedded one.

The set is in the DexYCB layout; its labels are posed by MANO's equations in plain NumPy, left hands with a left model
whose bases are its own, as in DexYCB.
"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import amt.hand
from amt.data.dexycb import DexYCB
from amt.data.hand_labels import HandIds, check_hand_labels, describe_masked, pose_labels
from amt.data.packed import make_plan, open_source, pack
from amt.data.pipeline import to_batch
from amt.data.transforms import network_batch
from amt.errors import UserError
from amt.evaluation.contacts import contact_labels
from amt.geometry import mirror
from amt.hand import skeleton
from amt.losses.labels import labels as posed_targets
from tests.data import layout
from tests.hand import mano
from tests.hand.test_model import lbs
from tests.samples import changed

TOLERANCE = 1e-5  # metres
TIPS = {False: skeleton.MANO_TIP_VERTICES_RIGHT, True: skeleton.MANO_TIP_VERTICES_LEFT}
K = np.array([[600.0, 0, 320.5], [0, 610, 240], [0, 0, 1]])
MODELS = {is_left: mano.arrays(int(is_left), is_left) for is_left in (False, True)}


def truth(subject, sequence, camera, frame):
    """What MANO poses: labels of DexYCB and the vertices behind them; sequence 1 is of a left hand."""
    rng = np.random.default_rng([subject, sequence, camera, frame])
    is_left, betas = sequence == 1, np.full(10, 0.1 * subject)
    pose = np.concatenate([Rotation.random(random_state=rng).as_rotvec(), rng.normal(0, 0.4, 45)])
    joints, _, _ = lbs(MODELS[is_left], TIPS[is_left], pose, betas, np.zeros(3))
    transl = np.array([0.02, -0.01, 0.6]) - joints.mean(0)
    joints, vertices, _ = lbs(MODELS[is_left], TIPS[is_left], pose, betas, transl)
    uv = joints @ (K + np.diag([camera, 0, 0])).T
    objects = np.concatenate([np.tile(np.eye(3), (2, 1, 1)), np.stack([joints[12], joints[4]])[..., None]], -1)
    label = {"joint_3d": joints[None], "joint_2d": (uv[:, :2] / uv[:, 2:])[None], "pose_y": objects}
    label |= {"pose_m": np.concatenate([pose, transl])[None]}
    return {"seg": np.zeros((480, 640), np.uint8)} | {k: v.astype(np.float32) for k, v in label.items()}, vertices


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The set's root, and the right and left models' files."""
    root = tmp_path_factory.mktemp("hands")
    layout.write(
        root / "data", layout.SUBJECTS[:2], 2, 2, lambda *frame: truth(*frame)[0], size=(640, 480)
    )  # fmt: skip
    return root / "data", *mano.write(root)


def true_vertices(source):
    places = [source.locate(i) for i in range(len(source))]
    return np.stack([truth(s.subject, s.index, camera, frame)[1] for s, camera, frame in places])


def vertices_of_training(source, hand):
    """The vertices that training's terms compare with, taken back into the camera's frame."""
    samples = [source[i] for i in range(len(source))]
    batch = to_batch(network_batch(samples, None, changed(component="perception")))
    target = posed_targets(batch, hand)
    vertices = np.einsum("bji,bvj->bvi", batch.R_crop_camera, target.vertices)
    left = np.array([sample["is_left"] for sample in samples])[:, None, None]
    return np.where(left, mirror.mirror_points(vertices), vertices), batch


def stacked(source):
    samples = [source.labels(i) for i in range(len(source))]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


@pytest.mark.parametrize("packed", [False, True])
def test_the_right_hand_gives_the_vertices_back(data, packed, tmp_path):
    root, right, left = data
    hand = amt.hand.load(right, left)
    if packed:
        whole = DexYCB(root, part="all")
        list(pack(whole, make_plan(whole, 10), tmp_path))
        root = tmp_path
    source = open_source(root, "s0", "all", hands=HandIds.of(hand))
    expected = true_vertices(source)
    vertices, batch = vertices_of_training(source, hand)
    assert batch.hand_pose_valid.all() and 0 < batch.left_basis.sum() < len(source)
    assert np.abs(vertices - expected).max() < TOLERANCE
    _, evaluated = pose_labels(hand, stacked(source))
    assert np.abs(evaluated - expected).max() < TOLERANCE
    check_hand_labels(source, hand)


def test_the_embedded_hand_does_not_and_its_labels_are_left_out(data):
    root, *_ = data
    hand = amt.hand.load()
    blind = DexYCB(root, part="all")  # as on disk
    wrong, _ = vertices_of_training(blind, hand)
    assert np.median(np.linalg.norm(wrong - true_vertices(blind), axis=-1)) > 0.01
    with pytest.raises(UserError, match="mm from the labelled joints"):
        check_hand_labels(blind, hand)
    source = DexYCB(root, part="all", hands=HandIds.of(hand))
    check_hand_labels(source, hand)  # there is nothing to check
    _, batch = vertices_of_training(source, hand)
    assert not batch.hand_pose_valid.any() and not batch.hand_pose.any() and not batch.betas.any()
    assert batch.joints_valid.all(), "joints are right with any hand"
    assert not posed_targets(batch, hand).contacts_valid.any()
    contacts = contact_labels(stacked(source), hand, root)
    assert not contacts.labelled.any() and not contacts.valid.any()
    count, line = describe_masked(source.hand_owners(), HandIds.of(hand))
    assert count == 4 and "4 of 4 sequences belong to MANO" in line
    assert line.endswith("give --config.hand.model=MANO_RIGHT.pkl --config.hand.left_model=MANO_LEFT.pkl")


def test_contacts_are_those_of_the_right_hand(data):
    root, right, left = data
    hand = amt.hand.load(right, left)
    source = DexYCB(root, part="all", hands=HandIds.of(hand))
    contacts = contact_labels(stacked(source), hand, root)
    assert contacts.labelled.all() and contacts.valid.any()
    gap = np.linalg.norm(contacts.points[:, :, None] - true_vertices(source)[:, None], axis=-1).min(-1)
    assert gap[contacts.valid].max() < TOLERANCE, "a contact is one of the hand's vertices"


def test_left_hands_wait_for_the_left_model(data):
    root, right, _ = data
    hand = amt.hand.load(right)
    source = DexYCB(root, part="all", hands=HandIds.of(hand))
    label = stacked(source)
    np.testing.assert_array_equal(label["hand_pose_valid"], ~label["is_left"])
    count, line = describe_masked(source.hand_owners(), HandIds.of(hand))
    assert count == 2 and line.endswith("give --config.hand.left_model=MANO_LEFT.pkl")


def test_a_hand_that_is_not_the_one_of_the_labels_is_found_out(data, tmp_path):
    root, *_ = data
    other = amt.hand.load(*mano.write(tmp_path, seed=7))
    source = DexYCB(root, part="all", hands=HandIds.of(other))
    with pytest.raises(UserError, match=r"config\.hand\.model, .*joints \d+ mm from the labelled joints"):
        check_hand_labels(source, other)


def test_a_wrong_left_model_is_found_out_beside_many_right_hands(tmp_path):
    layout.write(tmp_path, layout.SUBJECTS[:1], 4, 1, lambda *frame: truth(*frame)[0], size=(640, 480))
    files, (_, wrong) = mano.write(tmp_path), mano.write(tmp_path / "calibration", seed=7)
    hand = amt.hand.load(files[0], wrong)
    source = DexYCB(tmp_path, part="all", hands=HandIds.of(hand))
    assert stacked(source)["left_basis"].mean() < 0.5
    with pytest.raises(UserError, match=r"config\.hand\.left_model, .*joints \d+ mm from the labelled joints"):
        check_hand_labels(source, hand)


def test_a_set_that_names_its_hand_belongs_to_it(data, tmp_path):
    _, right, left = data
    hand = amt.hand.load(right, left)
    layout.write(tmp_path, layout.SUBJECTS[:1], 2, 1)
    for path in tmp_path.rglob("meta.yml"):
        layout.change(path, hand=hand.fingerprint)
    label = stacked(DexYCB(tmp_path, part="all", hands=HandIds.of(hand)))
    assert label["hand_pose_valid"].all() and not label["left_basis"].any()  # its left hands are mirrored right ones
    default = HandIds.of(amt.hand.load())
    source = DexYCB(tmp_path, part="all", hands=default)
    assert not stacked(source)["hand_pose_valid"].any()
    count, line = describe_masked(source.hand_owners(), default)
    assert count == 2 and hand.fingerprint in line
    (tmp_path / "generator.json").write_text("{}")
    for path in tmp_path.rglob("meta.yml"):
        layout.save(path, {k: v for k, v in layout.yaml.safe_load(path.read_text()).items() if k != "hand"})
    older = DexYCB(tmp_path, part="all", hands=default)  # generated before sets said it
    assert stacked(older)["hand_pose_valid"].all()
