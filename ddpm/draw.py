"""Many images of a run into one .npz file, piece by piece: an interrupted command goes on where it stopped."""

import pathlib
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from ddpm import remote, sharding
from ddpm.errors import InputError
from ddpm.evaluation import sources
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.shares import draw_share
from ddpm.sampling.batched import Batch, warn_of_broken

SHEET = 64  # images returned, for a grid


def draw_to(
    out: pathlib.Path,
    draw: Callable[[int, int], Iterator[Batch]],
    num: int,
    *,
    about: dict,
    progress: Callable[[str], None],
) -> tuple[np.ndarray, float] | None:
    """Writes images 0..num-1 to `out` as array arr_0, and their classes, if they were asked for some, as arr_1.

    Until all are drawn, the batches lie in `out`.parts, under a name made of `about`: other settings start anew beside them.
    Each of several processes draws a share, and the first writes.

    Args:
      draw: first and last index -> batches.
      about: how they are drawn, seed and all, but for their number.
    Returns:
      The first 64 images, and the mean of the network evaluations; of a process that is not the first None.
    Raises:
      InputError: `out` is no .npz.
    """
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"--out={out} must be a file that ends with .npz, the kind that samples are written to.")
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = out.with_name(f"{out.name}.parts") / sources.digest(about)
    if remote.seen_by_all(parts):
        draw_share(parts, draw, num, _rows, progress)
        if not sharding.is_first():
            return None
    chunks = Chunks(parts)
    first = done = chunks.rows(num)
    if first:
        progress(f"{first}/{num} images are in {parts}: goes on from there")
    began = time.monotonic()
    try:
        for batch in draw(first, num):
            chunks.append(_rows(batch))
            done += len(batch.images)
            rate = (done - first) / (time.monotonic() - began)
            progress(f"{done}/{num} images, {rate:.3g} a second, {(num - done) / rate:.0f} s to go")
    except KeyboardInterrupt:
        progress(f"interrupted: {done}/{num} images are in {parts}; the same command goes on from there")
        raise
    warn_of_broken(num - sum(int(finite.sum()) for finite in chunks.read("finite", 0, num)), num)
    _assemble(out, chunks, num)
    nfe = float(np.concatenate(list(chunks.read("nfe", 0, num))).mean())
    head = np.concatenate(list(chunks.read("images", 0, min(num, SHEET))))
    shutil.rmtree(parts)
    if not any(parts.parent.iterdir()):  # those of other settings are kept
        parts.parent.rmdir()
    return head, nfe


def _rows(batch: Batch) -> dict[str, np.ndarray]:
    return {name: rows for name, rows in batch._asdict().items() if rows is not None}


def _assemble(out, chunks, num):
    """Streams the pieces into arrays of an .npz file, none of which is ever whole in memory."""
    part = out.with_name(f".{out.name}.part")
    arrays = {"images": "arr_0", "labels": "arr_1"}
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in filter(arrays.get, chunks.names()):
            pieces = chunks.read(name, 0, num)
            head = next(pieces)
            layout = {"descr": head.dtype.str, "fortran_order": False, "shape": (num, *head.shape[1:])}
            with archive.open(f"{arrays[name]}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, layout)
                for piece in (head, *pieces):
                    entry.write(np.ascontiguousarray(piece).tobytes())
    part.replace(out)
