"""Pickles that hold nothing but containers, numbers, strings and NumPy arrays; whatever else they name never runs."""

import io
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from ddpm.errors import InputError


class Refused(Exception):
    """The class or function, beyond those of arrays, that a pickle names."""


def load(path: str | pathlib.Path) -> object:
    """The object in a pickle file of dicts, lists, tuples, numbers, strings, bytes and NumPy arrays.

    Raises:
      InputError: no whole pickle, or one that names a class or function beyond those of arrays.
    """
    try:
        with open(pathlib.Path(path).expanduser(), "rb") as file:
            return read(file)
    except Refused as refused:
        raise InputError(
            f"{path} names {refused}: only pickles of containers and NumPy arrays are read, because others run code. "
            "Save its arrays with numpy.savez."
        ) from None
    except Exception as error:  # of many kinds: a broken pickle fails anywhere
        raise InputError(f"{path} cannot be read as a pickle ({error}). Copy it again.") from error


def read(
    file: io.BufferedIOBase,
    also: Callable[[str, str], object] = lambda module, name: None,
    persistent: Callable[[tuple], object] | None = None,
) -> object:
    """The object of the next pickle in an open file.

    Args:
      also: (module, name) -> what stands for a further class or function; None refuses it.
      persistent: what an object kept outside of the pickle is read as.
    Raises:
      Refused: the pickle names a class or function that is not allowed.
    """
    unpickler = _Unpickler(file)
    unpickler.also = also
    if persistent is not None:
        unpickler.persistent_load = persistent
    return unpickler.load()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # how protocols below 3 write bytes


# What pickles of arrays and NumPy's numbers call, under the module names of NumPy 1 and 2.
_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = np.empty(0).__reduce__()[0]
    _ALLOWED[f"{_core}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = np.empty(0).__reduce_ex__(5)[0]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        found = _ALLOWED.get((module, name)) or self.also(module, name)
        if found is None:
            raise Refused(f"{module}.{name}")
        return found
