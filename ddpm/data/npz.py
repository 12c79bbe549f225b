"""Images from a NumPy .npz file."""

import pathlib
import zipfile

import numpy as np

from ddpm.data.dataset import Dataset
from ddpm.errors import InputError, unknown_name


def npz(*, path: str, array: str = "arr_0") -> Dataset:
    """The uint8 array [count, height, width(, channels)] of a .npz file, as guided-diffusion writes its samples.

    Args:
      path: the file.
      array: the array's name in it.
    Raises:
      InputError: no such file or array, or no uint8 images in it.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"no file {path!r}: give the .npz file with --config.data.npz.path=FILE.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if array not in arrays.files:
                raise unknown_name(f"array in {path} (--config.data.npz.array)", array, arrays.files)
            images = arrays[array]
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} cannot be read as a .npz file of images: {error}.") from error
    return Dataset(images[..., None] if images.ndim == 3 else images)
