"""A whole data set as arrays. What costs more to decode than to read is decoded once on a machine."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from ddpm.cache import cache_directory, keep, kept
from ddpm.data.images import Dataset

BLOCK = 1024  # rows that are read at once
COMPARED = 8  # images that are decoded to see that what was kept is what would be read


def in_memory(dataset: Dataset) -> np.ndarray:
    """All images, or latents, as one array [count, height, width, channels]; the next time from the cache of the machine.

    There they are known by the SHA-256 of their files or records, and hold only while some of them decode to the same.
    """
    if not hasattr(dataset.images, "digests"):
        return stacked(dataset.images)
    file = cache_directory("images") / f"{dataset.sha256}.npz"
    try:
        images = kept(file)
        if images and _same(images[0], dataset.images):
            return images[0]
    except OSError as error:
        logging.warning("%s cannot be read (%s): the images are decoded", file, error)
    images = stacked(dataset.images)
    try:
        keep(file, [images])
    except OSError as error:
        logging.warning("%s cannot be written (%s): the images are decoded each time", file, error)
    return images


def stacked(rows: Sequence | np.ndarray) -> np.ndarray:
    """All rows as one array; many at once of a sequence that has `__getitems__(indices)`."""
    if isinstance(rows, np.ndarray):
        return rows
    if hasattr(rows, "__getitems__"):
        starts = range(0, len(rows), BLOCK)
        return np.concatenate([rows.__getitems__(range(i, min(i + BLOCK, len(rows)))) for i in starts])
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(rows.__getitem__, range(len(rows)))))


def _same(images, rows):
    chosen = np.linspace(0, len(rows) - 1, COMPARED).astype(int).tolist()
    return len(images) == len(rows) and all(np.array_equal(images[i], rows[i]) for i in chosen)
