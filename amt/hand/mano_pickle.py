"""Reads MANO_RIGHT.pkl without running anything in it.

The official file is a Python 2 pickle of NumPy arrays, a scipy.sparse matrix and chumpy objects. A pickle is
a small program that may call whatever it names, so the names it may use are the table below and nothing else,
and none of them is the real thing: each stands for an inert record of what the file says, from which the
arrays are made here.
"""

import pathlib
import pickle

import numpy as np

from amt.errors import UserError


class _Record:
    """What a pickle may build. Slots and a `__setstate__` of its own, so that a pickle can alter no class."""

    __slots__ = ("arguments", "state")

    def __new__(cls, *arguments):
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        self.state = state


class _Array(_Record):
    """numpy.core.multiarray._reconstruct: state (version, shape, dtype, Fortran order, bytes)."""

    __slots__ = ()

    def array(self):
        _, shape, dtype, fortran, data = self.state
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, dtype.dtype()).reshape(shape, order="F" if fortran else "C")


class _Dtype(_Record):
    """numpy.dtype: arguments (name, align, copy), state (version, byte order, ...); plain numbers only."""

    __slots__ = ()

    def dtype(self):
        name = self.arguments[0]
        if name[0] not in "fiub" or not name[1:].isdecimal():
            raise ValueError(f"array of type {name!r}")
        return np.dtype(name).newbyteorder(self.state[1] if self.state else "=")


class _Sparse(_Record):
    """scipy.sparse.csc_matrix: state {_shape, data, indices, indptr}."""

    __slots__ = ()

    def array(self):
        shape = self.state.get("_shape", self.state.get("shape"))
        data, rows, starts = (_array(self.state[key]) for key in ("data", "indices", "indptr"))
        dense = np.zeros(shape)
        np.add.at(dense, (rows, np.repeat(np.arange(shape[1]), np.diff(starts))), data)
        return dense


class _Ch(_Record):
    """chumpy.ch.Ch: a value x."""

    __slots__ = ()

    def array(self):
        return _array(self.state["x"])


class _Select(_Record):
    """chumpy.reordering.Select: entries `idxs` of `a`, flat."""

    __slots__ = ()

    def array(self):
        picked = _array(self.state["a"]).ravel()[_array(self.state["idxs"])]
        return picked.reshape(self.state.get("preferred_shape", picked.shape))


class _Bytes(_Record):
    """_codecs.encode(text, 'latin1'): how Python 3 writes bytes in an old protocol."""

    __slots__ = ()

    def __new__(cls, text, encoding):
        if encoding != "latin1":
            raise ValueError(f"bytes in encoding {encoding!r}")
        return text.encode("latin1")


class _Reconstructor(_Record):
    """copy_reg._reconstructor(class, object, None): an empty object of a class of this table."""

    __slots__ = ()

    def __new__(cls, kind, *_):
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise ValueError("an object of an unknown class")
        return kind()


_GLOBALS = {
    "numpy ndarray": _Record,
    "numpy dtype": _Dtype,
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy._core.multiarray _reconstruct": _Array,
    "numpy.core.multiarray scalar": _Record,
    "numpy._core.multiarray scalar": _Record,
    "scipy.sparse.csc csc_matrix": _Sparse,
    "scipy.sparse._csc csc_matrix": _Sparse,
    "scipy.sparse csc_matrix": _Sparse,
    "chumpy.ch Ch": _Ch,
    "chumpy Ch": _Ch,
    "chumpy.reordering Select": _Select,
    "copy_reg _reconstructor": _Reconstructor,
    "copyreg _reconstructor": _Reconstructor,
    "_codecs encode": _Bytes,
}
for _module in ("__builtin__", "builtins"):
    _GLOBALS |= {f"{_module} {name}": _Record for name in ("set", "frozenset", "object")}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, path):
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module, name):
        if f"{module} {name}" not in _GLOBALS:
            raise UserError(
                f"hand model {self.path}: refused, it asks for {module}.{name}, which no MANO file needs; "
                "nothing was executed. Use MANO_RIGHT.pkl as downloaded from mano.is.tue.mpg.de"
            )
        return _GLOBALS[f"{module} {name}"]


KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f") + (
    "hands_mean",
    "hands_components",
)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of `KEYS` as float64 or int64, their shapes as found.

    Raises UserError for a file that names anything but arrays, that is damaged, or that lacks a key.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, path).load()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"hand model {path}: not a readable MANO pickle ({_describe(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"hand model {path}: expected a dictionary, found {type(content).__name__}")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise UserError(f"hand model {path}: missing {', '.join(missing)}; is it MANO_RIGHT.pkl?")
    arrays = {}
    for key in KEYS:
        try:
            array = _array(content[key])
            arrays[key] = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        except Exception as error:
            raise UserError(f"hand model {path}: {key} is not an array ({_describe(error)})") from error
    return arrays


def _array(value):
    return value.array() if isinstance(value, _Record) else np.asarray(value)


def _describe(error):
    return " ".join(f"{type(error).__name__}: {error}".split())
