"""A folder of images; a sub-folder is a class."""

import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ddpm.data.crop import as_is, square
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
                return square(image, self.size, self.channels) if self.size else as_is(image, self.channels)
        except Exception as error:
            raise _unreadable(path, error) from error

    def content(self, i: int) -> bytes:
        """The bytes of file i."""
        return self.paths[i].read_bytes()


def folder(*, path: str, size: int = 64, channels: int = 3) -> Dataset:
    """Every image below a folder, resized and centre-cropped to size x size; classes are its sub-folders.

    Args:
      path: the folder; image files anywhere below it, other files are passed over.
      size: height and width in pixels; 0 leaves the images as they are, which must be of one size.
      channels: 1 (grey) or 3 (colour).
    Raises:
      InputError: no such folder, no image in it, a file that is no image, or a size that is none.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"no folder {path!r}: give the folder of images with --config.data.folder.path=FOLDER.")
    if size < 0 or channels not in (1, 3):
        raise InputError(
            f"size = {size}, channels = {channels}: size must be at least 1 (--config.data.folder.size=64), or 0 to leave the "
            "images as they are; channels 1 or 3."
        )
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(
            f"no image below {path!r}, only {', '.join(SUFFIXES)} count: give --config.data.folder.path=FOLDER."
        )
    with ThreadPoolExecutor() as threads:
        sizes = list(threads.map(_read_size, paths))
    if not size and len(set(sizes)) > 1:
        other = next(i for i, found in enumerate(sizes) if found != sizes[0])
        raise InputError(
            f"{paths[0]} is {sizes[0][0]} x {sizes[0][1]}, {paths[other]} {sizes[other][0]} x {sizes[other][1]}: images that are "
            "left as they are must be of one size. Give --config.data.folder.size=64 to resize them."
        )
    owner = [p.relative_to(root).parts[0] if p.parent != root else None for p in paths]
    classes = sorted(set(owner) - {None})
    labels = np.array([classes.index(name) for name in owner], np.int32) if classes and None not in owner else None
    return Dataset(ImageFiles(paths, size, channels), tuple(classes), labels)


def _read_size(path: pathlib.Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    # PIL's decoders raise OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError, ...
    return InputError(f"{path} cannot be read as an image ({error}). Mend or remove it.")
