"""A folder of images; a sub-folder is a class."""

import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ddpm.data.crop import square
from ddpm.data.images import Dataset
from ddpm.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".jp2", ".pgm", ".ppm", ".tif", ".tiff")


class ImageFiles(Sequence):
    """Image files, read and cut to squares when asked."""

    def __init__(self, paths: list[pathlib.Path], size: int, channels: int):
        self.paths, self.size, self.channels = paths, size, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        path = self.paths[i]
        try:
            with Image.open(path) as image:
                return square(image, self.size, self.channels)
        except Exception as error:
            raise _unreadable(path, error) from error


def folder(*, path: str, size: int, channels: int = 3) -> Dataset:
    """Every image below a folder, resized and centre-cropped to size x size; classes are its sub-folders.

    Args:
      path: the folder; image files anywhere below it, other files are passed over.
      size: height and width in pixels.
      channels: 1 (grey) or 3 (colour).
    Raises:
      InputError: no such folder, no image in it, a file that is no image, or a size that is none.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"no folder {path!r}: give the folder of images with --config.data.folder.path=FOLDER.")
    if size < 1 or channels not in (1, 3):
        raise InputError(
            f"size = {size}, channels = {channels}: size must be at least 1 (--config.data.folder.size=64), channels 1 or 3."
        )
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(
            f"no image below {path!r}, only {', '.join(SUFFIXES)} count: give --config.data.folder.path=FOLDER."
        )
    with ThreadPoolExecutor() as threads:
        list(threads.map(_read_header, paths))
    classes = sorted({p.relative_to(root).parts[0] for p in paths if p.parent != root})
    return Dataset(ImageFiles(paths, size, channels), tuple(classes))


def _read_header(path: pathlib.Path) -> None:
    try:
        Image.open(path).close()
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    # PIL's decoders raise OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError, ...
    return InputError(f"{path} cannot be read as an image ({error}). Mend or remove it.")
