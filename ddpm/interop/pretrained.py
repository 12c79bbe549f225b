"""Weights of published networks: a file by its path, or one that an installed package carries."""

import dataclasses
import hashlib
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np

from ddpm.errors import InputError
from ddpm.interop import torch_file
from ddpm.interop.folding import fold


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """What a file of PyTorch holds.

    file: its path.
    what: the network it must be of, in words; `remedy`: where that is to be had.
    sha256: 16 hexadecimal digits, of the file's bytes.
    arrays: by their names in the file.
    """

    file: pathlib.Path
    what: str
    remedy: str
    sha256: str
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        """An array.

        Raises:
          InputError: there is none of that name.
        """
        if name not in self.arrays:
            raise InputError(f"{self.file} is no {self.what}: it holds no {name!r}. {self.remedy}")
        return self.arrays[name]

    def conv(self, conv: str, norm: str) -> dict[str, np.ndarray]:
        """A convolution without bias and the batch norm after it, in PyTorch's names, as one; epsilon is 1e-3."""
        mean, variance = self[f"{norm}.running_mean"], self[f"{norm}.running_var"]
        return fold(self[f"{conv}.weight"], mean, variance, gamma=self[f"{norm}.weight"], beta=self[f"{norm}.bias"])

    def check(self, params: dict, expected: Any) -> None:
        """Compares shapes with those of the network: `expected`, of jax.eval_shape.

        Raises:
          InputError: one differs.
        """
        for (path, leaf), wanted in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(expected), strict=True
        ):
            if leaf.shape != wanted.shape:
                name = "/".join(str(key.key) for key in path)
                raise InputError(
                    f"{self.file} is no {self.what}: {name} is {leaf.shape}, not {wanted.shape}. {self.remedy}"
                )


def find(path: str, what: str, *, package: str, pattern: str, remedy: str) -> Weights:
    """The weights in a file, or in the file of that name pattern of an installed package, which is not imported.

    Args:
      path: of the file; '' looks for the package.
      what: the network, for errors; `remedy` is where it is to be had.
      pattern: such as 'models/*.pth'.
    Raises:
      InputError: there is no such file or package, or it is no file of PyTorch.
    """
    if path:
        file = pathlib.Path(path).expanduser()
        if not file.is_file():
            raise InputError(f"no {what} at {path!r}. {remedy}")
    else:
        spec = importlib.util.find_spec(package)
        folders = (spec.submodule_search_locations if spec else None) or ()
        found = sorted(file for folder in folders for file in pathlib.Path(folder).glob(pattern))
        if not found:
            raise InputError(f"no {what}: the package {package!r} that carries one is not installed. {remedy}")
        file = found[0]
    arrays = torch_file.read(file)
    return Weights(file, what, remedy, hashlib.sha256(file.read_bytes()).hexdigest()[:16], arrays)
