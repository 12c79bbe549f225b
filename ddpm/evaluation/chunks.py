"""Rows of arrays computed piece by piece, kept on disk so that an interrupted evaluation goes on where it stopped."""

import io
import logging
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np


class Chunks:
    """Arrays of equal length that grow by rows: files `<first>-<last>.npz` in a directory, or in memory without one.

    A file is written under another name and moved, so that what is there is whole. One that cannot be read, as after a
    full disk, is dropped with all that follow.

    Args:
      first, end: where these rows stand among those of the directory; what begins outside is another's.
    """

    def __init__(self, directory: pathlib.Path | None, first: int = 0, end: float | int = math.inf):
        self._directory = directory
        self._memory: list[dict[str, np.ndarray]] = []
        self._files: list[pathlib.Path] = []
        self._rows = first
        for file in sorted(directory.glob("*-*.npz")) if directory else ():
            start, last = map(int, file.stem.split("-"))
            if not first <= start < end:
                continue
            if start == self._rows and _is_whole(file):
                self._files.append(file)
                self._rows = last
            else:
                logging.warning("%s is broken, or follows one that is: dropped, and computed anew", file)
                file.unlink()

    def rows(self, limit: int) -> int:
        """The row up to which all are there, at most `limit`."""
        return min(self._rows, limit)

    def append(self, arrays: dict[str, np.ndarray]) -> None:
        """Adds rows to every array."""
        count = len(next(iter(arrays.values())))
        if self._directory is None:
            self._memory.append(arrays)
        else:
            self._directory.mkdir(parents=True, exist_ok=True)
            file = self._directory / f"{self._rows:09d}-{self._rows + count:09d}.npz"
            part = self._directory / f".{self._rows}.{os.getpid()}.npz"
            np.savez(part, **arrays)
            part.replace(file)
            self._files.append(file)
        self._rows += count

    def names(self) -> list[str]:
        """Names of the arrays."""
        if self._memory:
            return list(self._memory[0])
        if not self._files:
            return []
        with np.load(self._files[0]) as arrays:
            return arrays.files

    def read(self, name: str, first: int, last: int) -> Iterator[np.ndarray]:
        """Rows first..last-1 of an array, piece by piece."""
        start = 0
        for piece in self._pieces(name):
            low, high = max(first - start, 0), min(last - start, len(piece))
            if low < high:
                yield piece[low:high]
            start += len(piece)

    def _pieces(self, name):
        yield from (arrays[name] for arrays in self._memory)
        for file in self._files:
            with np.load(file) as arrays:
                yield arrays[name]


def _is_whole(file: pathlib.Path) -> bool:
    stored = io.BytesIO(file.read_bytes())  # what the disk or its rights refuse is raised, and nothing dropped for it
    try:
        with zipfile.ZipFile(stored) as archive:
            return archive.testzip() is None  # every byte has its share in a checksum
    except Exception:  # of many kinds: a broken directory of the archive is read as anything
        return False
