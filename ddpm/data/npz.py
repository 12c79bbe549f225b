"""Images from a NumPy .npz file."""

import pathlib

import numpy as np
from numpy.lib.npyio import NpzFile

from ddpm.data.images import Dataset
from ddpm.errors import InputError, unknown_name


def npz(*, path: str, array: str = "arr_0", labels: str = "arr_1") -> Dataset:
    """The uint8 array [count, height, width(, channels)] of a .npz file, as guided-diffusion writes its samples.

    Args:
      path: the file.
      array: the images' name in it.
      labels: the name of their classes, integers from 0; none are read where the file has no such array.
    Raises:
      InputError: no such file or array, or no uint8 images in it.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {path!r}: give the .npz file with --config.data.npz.path=FILE.")
    try:
        with NpzFile(file, allow_pickle=False) as arrays:
            names = arrays.files
            images, classes = (np.asarray(arrays[name]) if name in names else None for name in (array, labels))
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
    images = images[..., None] if images.ndim == 3 else images
    if classes is None:
        return Dataset(images)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer) or len(classes) == 0 or classes.min() < 0:
        raise InputError(
            f"array {labels!r} of {path} is {classes.dtype} of shape {classes.shape}; labels must be integers from 0, [count]. "
            "Give --config.data.npz.labels='' to read none."
        )
    return Dataset(images, tuple(map(str, range(classes.max() + 1))), classes.astype(np.int32))
