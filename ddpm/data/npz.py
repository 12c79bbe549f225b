"""Images from a NumPy .npz file."""

import pathlib

import numpy as np
from numpy.lib.npyio import NpzFile

from ddpm.data.images import Dataset
from ddpm.errors import InputError, unknown_name


def npz(*, path: str, array: str = "arr_0") -> Dataset:
    """The uint8 array [count, height, width(, channels)] of a .npz file, as guided-diffusion writes its samples.

    Args:
      path: the file.
      array: the array's name in it.
    Raises:
      InputError: no such file or array, or no uint8 images in it.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {path!r}: give the .npz file with --config.data.npz.path=FILE.")
    try:
        with NpzFile(file, allow_pickle=False) as arrays:
            names = arrays.files
            images = np.asarray(arrays[array]) if array in names else None
    except Exception as error:  # of many kinds: zipfile's, zlib's, NumPy's, tokenize's
        raise InputError(
            f"{path} cannot be read as a .npz file of images ({error}). Write or copy it again."
        ) from error
    if images is None:
        raise unknown_name(f"array in {path} (--config.data.npz.array)", array, names)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"array {array!r} of {path} is {images.dtype} of shape {images.shape}; images must be uint8 in 0..255, "
            "[count, height, width] or [count, height, width, channels]."
        )
    return Dataset(images[..., None] if images.ndim == 3 else images)
