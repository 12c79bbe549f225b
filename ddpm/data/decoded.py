"""A whole data set as arrays. What costs more to decode than to read is decoded once on a machine."""

import hashlib
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
from absl import logging

from ddpm.cache import alone, cache_directory, forget, keep, kept, use
from ddpm.data.images import Dataset

BLOCK = 256  # rows that are read at once
COMPARED = 8  # images that are decoded to see that what was kept is what would be read


def in_memory(dataset: Dataset) -> np.ndarray:
    """All images, or latents, as one array [count, height, width, channels]; the next time from the cache of the machine.

    There they are known by the SHA-256 of their files or records, by this package's code for data and Pillow's version,
    and hold only while some of them decode to the same. Those that other code decoded are removed once they had no use for a day,
    and all else after a month.
    """
    if not hasattr(dataset.images, "digests"):
        return stacked(dataset.images)
    file = cache_directory("images") / f"{dataset.sha256}-{_decoder()}.npz"
    images = None
    try:
        with alone(file):
            found = kept(file)
            if found and _same(found[0], dataset.images):
                images = found[0]
                use(file)
            else:
                images = stacked(dataset.images)
                forget(file.parent, f"{dataset.sha256}-*.npz", days=1)  # by other code, and as large
                keep(file, [images])
                forget(file.parent)
    except OSError as error:
        logging.warning("images are not kept decoded in %s (%s), but decoded each time", file.parent, error)
    return stacked(dataset.images) if images is None else images


def stacked(rows: Sequence | np.ndarray) -> np.ndarray:
    """All rows as one array; many at once of a sequence that has `__getitems__(indices)`."""
    if isinstance(rows, np.ndarray):
        return rows
    first = np.asarray(rows[0])
    whole = np.empty((len(rows), *first.shape), first.dtype)
    read = getattr(rows, "__getitems__", lambda indices: [rows[i] for i in indices])

    def fill(i):
        np.stack(read(range(i, min(i + BLOCK, len(rows)))), out=whole[i : i + BLOCK])

    with ThreadPoolExecutor() as threads:
        list(threads.map(fill, range(0, len(rows), BLOCK)))
    return whole


def _decoder() -> str:
    code = b"".join(file.read_bytes() for file in sorted(pathlib.Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(code + PIL.__version__.encode()).hexdigest()[:16]


def _same(images, rows):
    chosen = np.linspace(0, len(rows) - 1, COMPARED).astype(int).tolist()
    return len(images) == len(rows) and all(np.array_equal(images[i], rows[i]) for i in chosen)
