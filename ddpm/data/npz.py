"""Images from a NumPy .npz file."""

import pathlib

import numpy as np
from numpy.lib.npyio import NpzFile

from ddpm.data.images import Dataset
from ddpm.errors import InputError, unknown_name

CHANNELS = range(1, 5)


def npz(*, path: str, array: str = "arr_0", labels: str = "arr_1", captions: str = "captions") -> Dataset:
    """The uint8 array [count, height, width(, channels)] of a .npz file, as guided-diffusion writes its samples.

    Args:
      path: the file.
      array: the images' name in it; where there is no 'arr_0', that is the only array that can be images.
      labels: the name of their classes, integers from 0; none are read where the file has no such array.
      captions: the name of what they show, strings; likewise.
    Raises:
      InputError: no such file or array, no uint8 images in it, or labels or captions that are none.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {path!r}: give the .npz file with --config.data.npz.path=FILE.")
    try:
        with NpzFile(file, allow_pickle=False) as stored:
            names = stored.files
            if array == "arr_0" and array not in names:
                able = [name for name in names if _can_be_images(np.asarray(stored[name]))]
                array = able[0] if len(able) == 1 else array
            images, classes, words = (
                np.asarray(stored[name]) if name in names else None for name in (array, labels, captions)
            )
    except Exception as error:  # of many kinds: zipfile's, zlib's, NumPy's, tokenize's
        raise InputError(
            f"{path} cannot be read as a .npz file of images ({error}). Write or copy it again."
        ) from error
    if images is None:
        raise unknown_name(f"array in {path} (--config.data.npz.array)", array, names)
    if not _can_be_images(images):
        raise InputError(
            f"array {array!r} of {path} is {images.dtype} of shape {images.shape}; images must be uint8 in 0..255, "
            "[count, height, width] or [count, height, width, channels]."
        )
    if images.ndim == 4 and images.shape[1] in CHANNELS and images.shape[3] not in CHANNELS:
        raise InputError(
            f"array {array!r} of {path} is of shape {images.shape}, channels first; images must be [count, height, width, "
            "channels]. Write images.transpose(0, 2, 3, 1) instead."
        )
    images = images[..., None] if images.ndim == 3 else images
    if words is not None and (words.ndim != 1 or words.dtype.kind != "U"):
        raise InputError(
            f"array {captions!r} of {path} is {words.dtype} of shape {words.shape}; captions must be strings, [count]. "
            "Give --config.data.npz.captions='' to read none."
        )
    words = None if words is None else words.tolist()
    if classes is None:
        return Dataset(images, captions=words)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer) or len(classes) == 0 or classes.min() < 0:
        raise InputError(
            f"array {labels!r} of {path} is {classes.dtype} of shape {classes.shape}; labels must be integers from 0, [count]. "
            "Give --config.data.npz.labels='' to read none."
        )
    return Dataset(images, tuple(map(str, range(classes.max() + 1))), classes.astype(np.int32), words)


def _can_be_images(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and values.ndim in (3, 4)
