"""Images drawn by several processes, a share by each, into a folder that all see."""

import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ddpm import sharding
from ddpm.evaluation.chunks import Chunks
from ddpm.sampling.batched import Batch


def draw_share(
    directory: pathlib.Path,
    draw: Callable[[int, int], Iterator[Batch]],
    num: int,
    rows: Callable[[Batch], dict[str, np.ndarray]],
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Draws this process's share of images 0..num-1 and waits for the others; `Chunks(directory)` holds all of them then.

    Shares of a process that did not end are drawn again by whoever asks for them, as is all after an image that is not finite.

    Args:
      draw: first and last index -> batches.
      rows: what is kept of a batch.
    """
    first, last = (num * k // jax.process_count() for k in (jax.process_index(), jax.process_index() + 1))
    chunks = Chunks(directory, first, last)
    for batch in draw(chunks.rows(last), last):
        if not batch.finite.all():
            break
        chunks.append(rows(batch))
        progress(
            f"{chunks.rows(last) - first}/{last - first} images, the share of the first of {jax.process_count()} processes"
        )
    sharding.wait_for_all(f"images in {directory}")
