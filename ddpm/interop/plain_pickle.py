"""Pickles that hold nothing but containers, numbers, strings and NumPy arrays; whatever else they name never runs."""

import io
import pathlib
import pickle
import re
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


# NumPy's own dtype, and arrays of it, would take bytes of the file for addresses of objects: none of them is made here.
class _Dtype:
    def __init__(self, name: str, *_: object):
        if not isinstance(name, str) or not re.fullmatch(r"[biufcSU]\d+", name):
            raise ValueError("its arrays are of no plain numbers or strings")
        self._name, self._order = name, "="

    def __setstate__(self, state: tuple) -> None:
        _, self._order, base, names, fields, *_ = state
        if self._order not in ("<", ">", "|", "=") or (base, names, fields) != (None, None, None):
            raise ValueError("its arrays are of no plain numbers or strings")

    def plain(self) -> np.dtype:
        return np.dtype(self._name).newbyteorder(self._order)


class _Array(np.ndarray):
    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, data = state
        super().__setstate__((version, shape, _plain(dtype), is_fortran, _bytes(data)))


def _plain(dtype: object) -> np.dtype:
    if type(dtype) is not _Dtype:
        raise ValueError("an array of it is of no dtype")
    return dtype.plain()


def _bytes(data: object) -> bytes:
    if type(data) not in (bytes, bytearray):
        raise ValueError("an array of it has no bytes")
    return bytes(data)


def _reconstruct(kind: object, shape: object, code: object) -> np.ndarray:
    return _Array((0,), np.uint8)


def _scalar(dtype: object, data: object) -> object:
    (value,) = np.frombuffer(_bytes(data), _plain(dtype))
    return value


def _frombuffer(data: object, dtype: object, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(_bytes(data), _plain(dtype)).reshape(shape, order=order)


# What pickles of arrays and NumPy's numbers call, under the module names of NumPy 1 and 2.
_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): "ndarray",  # a word for _reconstruct, and nothing that can be called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        found = _ALLOWED.get((module, name)) or self.also(module, name)
        if found is None:
            raise Refused(f"{module}.{name}")
        return found
