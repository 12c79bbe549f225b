"""Files of PyTorch read without PyTorch: state dicts and TorchScript modules, as arrays by name; nothing in them runs."""

import functools
import io
import math
import pathlib
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ddpm.errors import InputError
from ddpm.interop import plain_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens the files of torch.save before PyTorch 1.6
DTYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a file of `torch.save` or `torch.jit.save`, by their names; names of nested ones are joined by dots.

    Raises:
      InputError: no such file, no file of PyTorch or a broken one, or one that names other classes and functions than
        those of tensors.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {str(path)!r}: give the path of a file of PyTorch, .pt or .pth.")
    try:
        arrays: dict[str, np.ndarray] = {}
        with file.open("rb") as opened:
            content, storages = _zip(opened) if zipfile.is_zipfile(opened) else _legacy(opened)
            _collect(content, "", storages, arrays, set())
    except plain_pickle.Refused as refused:
        raise InputError(
            f"{path} names {refused}: only files of tensors are read, because others run code. "
            "Save it with torch.save(model.state_dict(), path)."
        ) from None
    except Exception as error:  # of many kinds: a broken file fails anywhere
        why = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a file of PyTorch ({why}). Copy it again.") from error
    if not arrays:
        raise InputError(f"{path} holds no tensors. Save it with torch.save(model.state_dict(), path).")
    return arrays


class _Storage(NamedTuple):
    """Numbers in a row, outside of the pickle."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage: what the pickle says of a tensor."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self, data: np.ndarray) -> np.ndarray:
        numbers = (self.offset, *self.shape, *self.strides)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        size = math.prod(self.shape)
        if min(numbers) < 0 or size > len(data) or (size and last >= len(data)):
            raise ValueError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset} "
                f"leaves its storage of {len(data)} numbers"
            )
        if not size:
            return np.zeros(self.shape, data.dtype)
        strides = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides, writeable=False).copy()


class _Module:
    """An object of a TorchScript class: its attributes, none of its code."""

    attributes: Any = None

    def __new__(cls, *args: Any) -> "_Module":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


def _also(module: str, name: str) -> object:
    """What stands for the classes and functions of PyTorch."""
    if module == "torch" and name.removesuffix("Storage") in DTYPES:
        return np.dtype(DTYPES[name.removesuffix("Storage")])
    if module.split(".")[0] == "__torch__":
        return _Module
    return {
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
            storage, offset, tuple(shape), tuple(strides)
        ),
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
        **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "tensor", "double", "bool")},
    }.get((module, name))


def _storage(record: tuple) -> _Storage:
    kind, dtype, key, _, size = record[:5]
    plain = type(kind) is type(key) is str and isinstance(dtype, np.dtype) and type(size) is int
    if not plain or kind != "storage" or any(view is not None for view in record[5:]):
        raise ValueError("its pickle refers to what is no storage")  # which is not shown: it may be anything
    return _Storage(key, dtype, size)


def _zip(file: io.BufferedIOBase) -> tuple[object, Any]:
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not pickles:
        raise ValueError("the zip holds no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    byteorder = f"{folder}byteorder"
    if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
        raise ValueError("its numbers are big-endian")
    content = plain_pickle.read(io.BytesIO(archive.read(pickles[0])), _also, _storage)

    @functools.cache
    def storages(storage: _Storage) -> np.ndarray:
        member = archive.getinfo(f"{folder}data/{storage.key}")
        if member.file_size != storage.size * storage.dtype.itemsize or member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"storage {storage.key} is of {member.file_size} bytes, not {storage.size} {storage.dtype}"
            )
        return np.frombuffer(archive.read(member), storage.dtype)

    return content, storages


def _legacy(file: io.BufferedIOBase) -> tuple[object, Any]:
    """Magic number, version, facts of the machine, the object, the order of the storages; then their numbers."""
    file.seek(0)
    if file.read(1) != b"\x80":
        raise ValueError("it is no whole zip, and no pickle")
    file.seek(0)
    if plain_pickle.read(file) != LEGACY_MAGIC:
        raise ValueError("it opens as no file of torch.save does")
    plain_pickle.read(file)
    if not plain_pickle.read(file)["little_endian"]:
        raise ValueError("its numbers are big-endian")
    known: dict[str, _Storage] = {}

    def remember(record):
        storage = _storage(record)
        return known.setdefault(storage.key, storage)

    content = plain_pickle.read(file, _also, remember)
    data = {}
    for key in plain_pickle.read(file):
        storage = known[key]
        size = int.from_bytes(file.read(8), "little")
        read = file.read(storage.size * storage.dtype.itemsize)
        if size != storage.size or len(read) != storage.size * storage.dtype.itemsize:
            raise ValueError(f"storage {key} ends after {len(read)} bytes; it is of {storage.size} {storage.dtype}")
        data[key] = np.frombuffer(read, storage.dtype)
    return content, lambda storage: data[storage.key]


def _collect(value: Any, name: str, storages: Any, arrays: dict[str, np.ndarray], seen: set[int]) -> None:
    """Puts the tensors in a value into `arrays`; a container that is there many times is opened once."""
    if isinstance(value, _Tensor):
        arrays[name] = value.array(storages(value.storage))
        return
    value = value.attributes if isinstance(value, _Module) else value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, item in inner:
        if type(key) in (str, int):
            _collect(item, f"{name}.{key}" if name else str(key), storages, arrays, seen)
