"""Hand files: the official pickle format is read; damage and malice get no further than one clear error."""

import copyreg
import io
import os
import pickle
import struct
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import amt.hand
from amt.errors import UserError
from amt.geometry import mirror
from amt.hand import mano_pickle, skeleton
from tests.hand import mano
from tests.hand.test_model import lbs

RNG = np.random.default_rng(0)
HAND = amt.hand.load()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: protocol 2 with byte strings, and the module names of that time."""

    dispatch = dict(pickle._Pickler.dispatch)
    renamed = {"numpy._core.multiarray": "numpy.core.multiarray", "scipy.sparse._csc": "scipy.sparse.csc"}

    def save_string(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    def save_global(self, obj, name=None):
        module = self.renamed.get(obj.__module__, obj.__module__)
        name = name or obj.__qualname__
        module, name = pickle._compat_pickle.REVERSE_NAME_MAPPING.get((module, name), (module, name))
        module = pickle._compat_pickle.REVERSE_IMPORT_MAPPING.get(module, module)
        self.write(f"c{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[type] = dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


@pytest.fixture
def chumpy(monkeypatch):
    """Modules named as the real ones, with objects that have their state; gone again after the pickling."""
    root, ch, reordering = (types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering"))

    def make(module, name):
        def __init__(self, **state):
            self.__dict__.update(state, _dirty_vars=set(), _itr=None)

        setattr(module, name, type(name, (), {"__module__": module.__name__, "__init__": __init__}))
        return getattr(module, name)

    for module in (root, ch, reordering):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return make(ch, "Ch"), make(reordering, "Select")


def official(chumpy):
    """The default hand's arrays as the official file has them: chumpy, csc and uint32, and extra keys."""
    Ch, Select = chumpy
    shapes_and_more = RNG.normal(size=(778, 3, 12))
    shapes_and_more[..., :10] = HAND.shapedirs
    flat = np.arange(778 * 3 * 12).reshape(778, 3, 12)[..., :10].ravel()
    parents = np.array(skeleton.PARENTS).astype(np.uint32)
    return {
        "v_template": Ch(x=HAND.v_template.astype(np.float64)),
        "shapedirs": Select(a=Ch(x=shapes_and_more), idxs=flat, preferred_shape=(778, 3, 10)),
        "posedirs": np.asfortranarray(RNG.normal(size=(778, 3, 135)) * 1e-3),
        "J_regressor": scipy.sparse.csc_matrix(HAND.J_regressor.astype(np.float64)),
        "weights": HAND.weights.astype(np.float64),
        "kintree_table": np.stack([parents, np.arange(16, dtype=np.uint32)]),
        "f": HAND.faces.astype(np.uint32),
        "hands_mean": HAND.hands_mean.astype(np.float64),
        "hands_components": HAND.hands_components.astype(np.float64),
        "J": np.zeros((16, 3)),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write(path, content, pickler=Python2Pickler):
    buffer = io.BytesIO()
    pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("pickler", [Python2Pickler, pickle.Pickler], ids=["python 2", "python 3"])
def test_reads_the_official_format(tmp_path, chumpy, monkeypatch, pickler):
    content = official(chumpy)
    path = write(tmp_path / "MANO_RIGHT.pkl", content, pickler)
    if pickler is Python2Pickler:
        names = (
            b"cnumpy.core.multiarray\n_rec",
            b"cscipy.sparse.csc\n",
            b"cchumpy.reordering\nSelect",
            b"c__builtin__\nset",
        )
        assert all(name in path.read_bytes() for name in names), "the fixture must look like the real file"
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)
    hand = amt.hand.load(path)
    for name in (
        "v_template",
        "shapedirs",
        "J_regressor",
        "weights",
        "faces",
        "hands_mean",
        "hands_components",
    ):
        np.testing.assert_array_equal(getattr(hand, name), getattr(HAND, name), err_msg=name)
    np.testing.assert_array_equal(hand.posedirs, content["posedirs"].astype(np.float32))
    assert hand.tip_vertices == skeleton.MANO_TIP_VERTICES_RIGHT
    inner = [1, 2, 4, 5, 7, 8, 10, 11]  # the others depend on the tips, which are other vertices here
    np.testing.assert_allclose(hand.flexion_axes[inner], HAND.flexion_axes[inner], atol=1e-6)


class Runs:
    """Unpickled carelessly, calls `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def attacks(sentinel):
    code = f"open({str(sentinel)!r}, 'w').close()"
    command = f"touch {sentinel}"
    run = Runs(os.system, command)
    array = np.empty(1, object)
    array[0] = run
    text = code.encode()
    return {
        "os.system": pickle.dumps(run, 2),
        "builtins.eval": pickle.dumps(Runs(eval, code), 2),
        "protocol 4": pickle.dumps(Runs(exec, code), 4),
        "text protocol": b"c__builtin__\neval\n(V" + text + b"\ntR.",
        "INST opcode": b"(V" + command.encode() + b"\nios\nsystem\n.",
        "nested": pickle.dumps({"v_template": [({"x": run},)]}, 2),
        "in an object array": pickle.dumps({"v_template": array}, 2),
        "after an allowed one": pickle.dumps([np.zeros(3), run], 2),
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0bos.system...\x93\x8c\x01x\x85R.",
        "getattr": b"c__builtin__\ngetattr\n.",
        "numpy's own": b"cnumpy.testing._private.utils\nrunstring\n(V" + text + b"\n}tR.",
        "setstate on a class": b"cchumpy.ch\nCh\n}X\x05\x00\x00\x00arrayX\x01\x00\x00\x00xsb.",
        "slots on a class": b"cchumpy.ch\nCh\n(N}X\x05\x00\x00\x00arrayX\x01\x00\x00\x00xstb.",
        "reconstructor": b"ccopy_reg\n_reconstructor\n(c__builtin__\neval\nc__builtin__\nobject\nNtR.",
        "extension": b"\x82\x01.",
        "persistent id": b"Pos.system\n.",
    }


@pytest.mark.parametrize("name", attacks("x"))
def test_refuses_and_executes_nothing(tmp_path, name):
    sentinel = tmp_path / "executed"
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(attacks(sentinel)[name])
    methods = {cls: dict(vars(cls)) for cls in set(mano_pickle._GLOBALS.values())}
    with pytest.raises(UserError, match="MANO_RIGHT.pkl") as error:
        amt.hand.load(path)
    assert not sentinel.exists()
    assert "\n" not in str(error.value)
    assert methods == {cls: dict(vars(cls)) for cls in methods}, "a pickle must not alter the reader"


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path):
    for name in (
        "os.system",
        "builtins.eval",
        "text protocol",
        "INST opcode",
        "nested",
        "in an object array",
    ):
        sentinel = tmp_path / name.replace(" ", "_")
        pickle.loads(attacks(sentinel)[name])
        assert sentinel.exists(), name


def test_the_refused_name_is_told(tmp_path):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(attacks(tmp_path / "x")["os.system"])
    with pytest.raises(UserError, match="posix.system"):
        amt.hand.load(path)


def test_a_registered_extension_is_refused_too(tmp_path):
    copyreg.add_extension("os", "system", 0xF1)
    try:
        path = tmp_path / "MANO_RIGHT.pkl"
        path.write_bytes(b"\x82\xf1(V" + f"touch {tmp_path / 'executed'}".encode() + b"\ntR.")
        with pytest.raises(UserError, match="os.system"):
            amt.hand.load(path)
        assert not (tmp_path / "executed").exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF1)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_truncated(tmp_path, chumpy, keep):
    path = write(tmp_path / "MANO_RIGHT.pkl", official(chumpy))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="not a readable MANO pickle"):
        amt.hand.load(path)


CHANGES = {
    "missing weights, f": lambda c: (c.pop("weights"), c.pop("f")),
    r"weights is \(777, 16\), expected \(778, 16\)": lambda c: c.update(weights=np.zeros((777, 16))),
    r"J_regressor is \(16, 6890\)": lambda c: c.update(J_regressor=scipy.sparse.csc_matrix((16, 6890))),
    "shapedirs is not an array": lambda c: c["shapedirs"].__dict__.update(idxs=np.array([10**9])),
    "hands_mean is not an array": lambda c: c.update(hands_mean="lbs"),
    "posedirs is not an array": lambda c: c.update(posedirs=np.array([{}, {}])),
    "v_template is not an array": lambda c: c["v_template"].__dict__.pop("x"),
    "kintree_table is not MANO's": lambda c: c.update(kintree_table=np.zeros((2, 16), np.uint32)),
    "f.* names vertices outside": lambda c: c.update(f=np.full((1538, 3), 778, np.uint32)),
    "not finite": lambda c: c.update(hands_mean=np.full(45, np.nan)),
}


@pytest.mark.parametrize("message", CHANGES)
def test_wrong_content_is_one_clear_error(tmp_path, chumpy, message):
    content = official(chumpy)
    CHANGES[message](content)
    with pytest.raises(UserError, match=message) as error:
        amt.hand.load(write(tmp_path / "MANO_RIGHT.pkl", content))
    assert "\n" not in str(error.value)


def test_not_a_dictionary(tmp_path):
    with pytest.raises(UserError, match="expected a dictionary, found list"):
        amt.hand.load(write(tmp_path / "MANO_RIGHT.pkl", [1, 2]))


def test_other_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        amt.hand.load(tmp_path / "MANO_RIGHT.pkl")
    for name, message in (
        ("hand.obj", "ending in .npz or .pkl"),
        ("hand.npz", "not a readable"),
    ):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(UserError, match=message):
            amt.hand.load(tmp_path / name)
    np.savez(tmp_path / "part.npz", v_template=HAND.v_template)
    with pytest.raises(UserError, match="missing shapedirs"):
        amt.hand.load(tmp_path / "part.npz")
    np.savez(
        tmp_path / "evil.npz",
        v_template=np.array([Runs(os.system, f"touch {tmp_path / 'executed'}")], object),
    )
    with pytest.raises(UserError, match="not a readable .npz"):
        amt.hand.load(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


def test_the_side_is_told_by_the_hand_and_not_by_the_name(tmp_path):
    right, left = mano.write(tmp_path)
    disguised = tmp_path / "MANO_RIGHT_v2.npz"
    disguised.write_bytes(left.read_bytes())
    with pytest.raises(UserError, match="MANO_RIGHT_v2.npz: holds a left hand"):
        amt.hand.load(disguised)
    with pytest.raises(UserError, match="MANO_RIGHT.npz: holds a right hand; expected MANO_LEFT.pkl"):
        amt.hand.load(right, right)
    assert amt.hand.load(right, disguised).left.fingerprint == amt.hand.load(right, left).left.fingerprint


def test_a_left_model_poses_the_mirror_images_of_its_own_hands(tmp_path):
    pose, betas = RNG.normal(0, 0.5, 48), RNG.normal(size=10)
    hand = amt.hand.load(*mano.write(tmp_path, seed=3))
    joints, vertices, _ = lbs(mano.arrays(4, True), skeleton.MANO_TIP_VERTICES_LEFT, pose, betas, np.zeros(3))
    mirrored = mirror.mirror_hand_pose(pose.astype(np.float32)), betas.astype(np.float32)
    ours = hand.left(*mirrored, np.zeros(3, np.float32))
    for x, expected in zip(ours, (joints, vertices), strict=True):
        np.testing.assert_allclose(mirror.mirror_points(np.asarray(x)), expected, atol=1e-6)
    assert hand.left.tip_vertices[2] == 445 and hand.tip_vertices[2] == 444  # the middle finger's, as in DexYCB
    right = np.asarray(hand(*mirrored, np.zeros(3, np.float32))[1])
    assert np.abs(mirror.mirror_points(right) - vertices).max() > 0.01, "a mirrored right hand is another hand"
    left_basis = np.array([True, False])
    both = tuple(np.stack([x, x]) for x in mirrored)
    R = hand.rotations(both[0], left_basis)
    chosen = hand.from_rotations(R, both[1], np.zeros((2, 3), np.float32), left_basis)[1]
    np.testing.assert_allclose(mirror.mirror_points(np.asarray(chosen[0])), vertices, atol=1e-6)
    np.testing.assert_allclose(chosen[1], right, atol=1e-6)


def test_the_fingerprint_tells_hands_apart_and_nothing_else(tmp_path):
    assert HAND.fingerprint == amt.hand.EMBEDDED_HAND
    right, left = mano.write(tmp_path)
    hand = amt.hand.load(right)
    assert hand.fingerprint == amt.hand.load(right, left).fingerprint == jax.tree.map(jnp.asarray, hand).fingerprint
    others = [HAND, amt.hand.load(right, left).left, hand.mirrored(), hand.replace(posedirs=None)]
    others += [hand.replace(hands_components=hand.hands_components[::-1]), hand.replace(tip_vertices=(1, 2, 3, 4, 5))]
    assert len({hand.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert hand.mirrored().mirrored().fingerprint == hand.fingerprint


def test_a_saved_hand_loads_again(tmp_path):
    arrays = {name: getattr(HAND, name) for name in mano_names()}
    np.savez(tmp_path / "hand.npz", **arrays, tip_vertices=np.array(HAND.tip_vertices))
    again = amt.hand.load(str(tmp_path / "hand.npz"))
    for name in arrays:
        np.testing.assert_array_equal(getattr(again, name), arrays[name])
    assert again.tip_vertices == HAND.tip_vertices


def mano_names():
    return (
        "v_template",
        "shapedirs",
        "J_regressor",
        "weights",
        "faces",
        "hands_mean",
        "hands_components",
        "flexion_axes",
    )


@pytest.mark.parametrize("name", ["hand.npz", "MANO_RIGHT.pkl"])
def test_a_git_lfs_pointer_is_called_one(name, tmp_path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3821356\n")
    with pytest.raises(UserError, match=f"{name}: a Git LFS pointer, not the file: run `git lfs pull`"):
        amt.hand.load(tmp_path / name)
