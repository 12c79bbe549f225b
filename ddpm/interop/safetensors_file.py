"""Files of safetensors: arrays by name, and nothing that could run."""

import pathlib

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 then
import numpy as np

from ddpm.errors import InputError


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, floats of any precision in float32.

    Raises:
      InputError: no such file, or a broken one.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {str(path)!r}: give the path of a .safetensors file.")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: _float32(array) for name, array in load_file(file).items()}
    except (SafetensorError, OSError, KeyError, ValueError) as error:  # KeyError: a dtype that NumPy has not
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}). Copy it again.") from error


def _float32(array: np.ndarray) -> np.ndarray:
    return array if np.issubdtype(array.dtype, np.integer) or array.dtype == bool else array.astype(np.float32)
