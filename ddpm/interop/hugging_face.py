"""Folders in the layout of Hugging Face's transformers: config.json, model.safetensors and the files of a tokenizer."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

from ddpm.errors import InputError
from ddpm.interop import safetensors_file
from ddpm.interop.pretrained import Weights

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
ALL = (CONFIG, WEIGHTS, TOKENIZER, "vocab.json", "merges.txt")  # what the features of a text depend on


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """What a folder holds.

    path: where it is.
    what: the network it must be of, in words; `remedy`: where that is to be had.
    sha256: 16 hexadecimal digits, of its files.
    config: what config.json says.
    weights: in float32.
    """

    path: pathlib.Path
    what: str
    remedy: str
    sha256: str
    config: dict[str, Any]
    weights: Weights

    def options(self, **names: str) -> dict[str, Any]:
        """Entries of config.json by our names for them.

        Raises:
          InputError: there is none of that name.
        """
        for name in names.values():
            if name not in self.config:
                raise InputError(f"{self.path / CONFIG} is of no {self.what}: it says no {name!r}. {self.remedy}")
        return {ours: self.config[theirs] for ours, theirs in names.items()}

    def tokenizer(self) -> Any:
        """The tokenizer in tokenizer.json.

        Raises:
          InputError: there is no such file, or it is broken.
        """
        file = self.path / TOKENIZER
        if not file.is_file():
            raise InputError(f"no {TOKENIZER} in {str(self.path)!r}. {self.remedy}")
        library = tokenizers()
        try:
            return library.Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise _unreadable(file, error) from error

    def dense(self, name: str) -> dict[str, np.ndarray]:
        """A matrix product, or a part of an attention, and its bias."""
        return {"kernel": self.weights[f"{name}.weight"].T, "bias": self.weights[f"{name}.bias"]}

    def norm(self, name: str) -> dict[str, np.ndarray]:
        """A layer norm."""
        return {"scale": self.weights[f"{name}.weight"], "bias": self.weights[f"{name}.bias"]}

    def attention(self, heads: int, *, query: str, key: str, value: str, out: str) -> dict[str, dict[str, np.ndarray]]:
        """An attention: its four products, the features of each head apart from the others'."""

        def apart(layer):
            return {name: array.reshape(*array.shape[:-1], heads, -1) for name, array in layer.items()}

        last = self.dense(out)
        last["kernel"] = last["kernel"].reshape(heads, -1, last["kernel"].shape[-1])
        names = {"query": query, "key": key, "value": value}
        return {ours: apart(self.dense(theirs)) for ours, theirs in names.items()} | {"out": last}


def find(path: str, what: str, *, package: str = "", inside: str = "", remedy: str) -> Folder:
    """A folder, or that of an installed package, which is not imported.

    Args:
      path: the folder; '' looks for the package.
      what: the network, for errors; `remedy` is where it is to be had.
      inside: the folder in the package.
    Raises:
      InputError: there is no such folder or package, a file of it is missing or broken, or the library safetensors is.
    """
    folder = pathlib.Path(path).expanduser()
    if not path:
        spec = importlib.util.find_spec(package) if package else None
        if spec is None:
            lacks = f"the package {package!r} that carries one is not installed" if package else "no folder is given"
            raise InputError(f"no {what}: {lacks}. {remedy}")
        folder = pathlib.Path(spec.submodule_search_locations[0]) / inside
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"no {what} at {str(folder)!r}: it holds no {name}. {remedy}")
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except ValueError as error:
        raise _unreadable(folder / CONFIG, error) from error
    arrays = safetensors_file.read(folder / WEIGHTS)
    sha = hashlib.sha256()
    for name in ALL:
        if (folder / name).is_file():
            sha.update(hashlib.sha256((folder / name).read_bytes()).digest())
    digest = sha.hexdigest()[:16]
    return Folder(folder, what, remedy, digest, config, Weights(folder / WEIGHTS, what, remedy, digest, arrays))


def tokenizers() -> ModuleType:
    """The library of that name.

    Raises:
      InputError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("a text encoder needs the package 'tokenizers': pip install 'ddpm[text]'.") from error
    return tokenizers


def _unreadable(file: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{file} cannot be read ({' '.join(str(error).split())}). Copy it again.")
