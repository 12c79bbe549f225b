"""Weights by name, of a .safetensors file or one of PyTorch: finite floats, in float32."""

import pathlib

import numpy as np

from ddpm.errors import InputError
from ddpm.interop import safetensors_file, torch_file

NAME = "diffusion_pytorch_model"  # of the files that diffusers writes


class Arrays(dict):
    """Arrays of a file; one that is missing, or of another form, is told of."""

    def __init__(self, arrays: dict[str, np.ndarray], file: pathlib.Path):
        super().__init__(arrays)
        self.file = file

    def __missing__(self, name: str) -> np.ndarray:
        raise InputError(f"{self.file} holds no {name!r}: it is not whole, or of another network.")

    def of(self, name: str, dims: int) -> np.ndarray:
        """The array of a name.

        Raises:
          InputError: there is none, or one of another number of dimensions.
        """
        array = self[name]
        if array.ndim != dims:
            raise InputError(
                f"{self.file}: {name!r} is of shape {array.shape}, and has {dims} dimensions in its network."
            )
        return array


def read(file: pathlib.Path) -> Arrays:
    """The weights in a file.

    Raises:
      InputError: it cannot be read, or holds integers, or numbers that are not finite.
    """
    arrays = (safetensors_file if file.suffix == ".safetensors" else torch_file).read(file)
    made = {}
    for name, array in arrays.items():
        if array.dtype.kind in "biu":
            raise InputError(f"{file}: {name!r} is of {array.dtype}, and weights are floats: it is no file of weights.")
        made[name] = array.astype(np.float32)
        if not np.isfinite(made[name]).all():
            raise InputError(f"{file}: {name!r} holds numbers that are not finite, such as NaN. Copy it again.")
    return Arrays(made, file)


def in_folder(folder: pathlib.Path) -> pathlib.Path:
    """The file of weights in a folder of diffusers.

    Raises:
      InputError: there is none.
    """
    for file in (folder / f"{NAME}.safetensors", folder / f"{NAME}.bin"):
        if file.is_file():
            return file
    raise InputError(f"{folder} holds no {NAME}.safetensors: copy the weights there, in one file.")
