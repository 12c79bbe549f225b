"""A folder of images; a sub-folder is a class, and files beside the images say what they show."""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ddpm.data import captioned
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

    def digests(self) -> Iterator[bytes]:
        """The SHA-256 of each file."""
        with ThreadPoolExecutor() as threads:
            yield from threads.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), self.paths)


def folder(*, path: str, size: int = 64, channels: int = 3) -> Dataset:
    """Every image below a folder, resized and centre-cropped to size x size; classes are its sub-folders.

    Captions stand in captions.json in the folder, {"cat/1.png": "a cat"} or {"cat/1.png": {"caption": "a cat", "category":
    "animals"}}; images that it does not name are left out, and categories are the classes. Or they stand in a .txt beside
    each image, 1.txt for 1.png. A caption may be empty.

    Args:
      path: the folder; image files anywhere below it, other files are passed over.
      size: height and width in pixels; 0 leaves the images as they are, which must be of one size.
      channels: 1 (grey) or 3 (colour); 0 is what the files are, which must all be the same.
    Raises:
      InputError: no such folder, no image in it, a file that is no image, a size that is none, images that differ in
        what is left as it is, or captions of some images alone.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"no folder {path!r}: give the folder of images with --config.data.folder.path=FOLDER.")
    if size < 0 or channels not in (0, 1, 3):
        raise InputError(
            f"size = {size}, channels = {channels}: size must be at least 1 (--config.data.folder.size=64), or 0 to leave the "
            "images as they are; channels 1 or 3, or 0 likewise."
        )
    files = set(_files(root))
    paths = sorted(path for path in files if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(
            f"no image below {path!r}, only {', '.join(SUFFIXES)} count: give --config.data.folder.path=FOLDER."
        )
    paths, words, categories = captioned.beside(root, paths, files)
    with ThreadPoolExecutor() as threads:
        sizes, depths = zip(*threads.map(_read_header, paths), strict=True)
    if not size:
        told = [f"{width} x {height}" for width, height in sizes]
        _check_all_same(paths, told, "of one size. Give --config.data.folder.size=64 to resize them")
    if not channels:
        told = ["grey" if depth == 1 else "colour" for depth in depths]
        _check_all_same(paths, told, "all grey or all colour. Give --config.data.folder.channels=3 to convert them")
        channels = depths[0]
    owner = categories or [p.relative_to(root).parts[0] if p.parent != root else None for p in paths]
    classes = sorted(set(owner) - {None})
    labels = np.array([classes.index(name) for name in owner], np.int32) if classes and None not in owner else None
    return Dataset(ImageFiles(paths, size, channels), tuple(classes), labels, words)


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below a folder, also behind links; not behind one that leads back to a folder above it."""
    for place, folders, names in os.walk(root, followlinks=True):
        here = pathlib.Path(place)
        above = {folder.resolve() for folder in (here, *here.parents)}
        folders[:] = [name for name in folders if (here / name).resolve() not in above]
        yield from (here / name for name in names)


def _check_all_same(paths: list[pathlib.Path], told: list[str], rule: str) -> None:
    for path, what in zip(paths, told, strict=True):
        if what != told[0]:
            raise InputError(
                f"{paths[0]} is {told[0]}, {path} {what}: images that are left as they are must be {rule}."
            )


def _read_header(path: pathlib.Path) -> tuple[tuple[int, int], int]:
    """((width, height), channels)."""
    try:
        with Image.open(path) as image:
            return image.size, 1 if Image.getmodebase(image.mode) == "L" else 3
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    # PIL's decoders raise OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError, ...
    return InputError(f"{path} cannot be read as an image ({error}). Mend or remove it.")
