"""Images to be evaluated, wherever they come from, with what is to be known of them."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ddpm.data.images import Dataset
from ddpm.errors import InputError, check_at_least
from ddpm.evaluation.chunks import Chunks
from ddpm.sampling.batched import Batch

BATCH = 64  # images that are read from a data set at once


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images 0..num-1.

    about: where they come from, as JSON: the provenance of every figure computed from them.
    num, shape: their number, and (height, width, channels).
    read: first index -> batches from there to the last, uint8 [b, height, width, channels].
    pick: indices -> these images, for pictures.
    chosen: where the images stand in their data set; None if they are of none.
    known_afterwards: what more is known of them once all are read.
    """

    about: dict
    num: int
    shape: tuple[int, int, int]
    read: Callable[[int], Iterator[np.ndarray]]
    pick: Callable[[Sequence[int]], np.ndarray]
    chosen: np.ndarray | None = None
    known_afterwards: Callable[[], dict] = dict

    @property
    def key(self) -> str:
        """What names the images in a cache: a hash of all that is known of them but for their name."""
        return digest({key: value for key, value in self.about.items() if key != "name"})


def digest(about: dict) -> str:
    """16 hexadecimal digits of the SHA-256 of JSON."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def of_dataset(dataset: Dataset, name: str, num: int | None = None) -> Source:
    """`num` images of a data set, drawn without replacement by a fixed seed; None for all, in their order.

    Raises:
      InputError: more images than there are.
    """
    facts = dataset.facts
    if num is not None:
        check_at_least(1, num=num)
        if num > facts.count:
            raise InputError(f"{name} holds {facts.count} images, not {num}: ask for no more.")
    chosen = np.arange(facts.count) if num in (None, facts.count) else np.random.default_rng(0).permutation(facts.count)
    chosen = chosen[: num or facts.count]

    def pick(indices):
        images = [dataset.images[int(chosen[i])] for i in indices]
        for i, image in zip(indices, images, strict=True):
            if image.shape != facts.shape:
                raise InputError(
                    f"image {chosen[i]} of {name} is of shape {image.shape}, the first {facts.shape}: resize them to one size."
                )
        return np.stack(images)

    def read(first):
        for start in range(first, len(chosen), BATCH):
            yield pick(range(start, min(start + BATCH, len(chosen))))

    about = {"kind": "data set", "name": name, "num": len(chosen), "of": facts.count, "sha256": dataset.sha256}
    about["shape"] = [*facts.shape]
    return Source(about, len(chosen), facts.shape, read, pick, chosen)


def of_samples(
    draw: Callable[[int], Iterator[Batch]],
    num: int,
    shape: tuple[int, int, int],
    about: dict,
    chunks: Chunks,
) -> Source:
    """Images 0..num-1 that a run draws; those already in `chunks` are not drawn again.

    Args:
      draw: first index -> batches from there to the last.
      about: how they are drawn, seed and all.
    Raises:
      InputError: images that are not finite, on reading.
    """
    check_at_least(1, num=num)

    def read(first):
        stored, broken = chunks.rows(num), 0
        yield from chunks.read("images", first, stored)
        for batch in draw(stored):
            broken += int((~batch.finite).sum())
            if broken:  # all are counted, none is kept
                continue
            chunks.append(kept(batch))
            stored += len(batch.images)
            if stored > first:
                yield batch.images[max(first - stored, -len(batch.images)) :]
        if broken:
            raise InputError(
                f"{broken} of {num} samples are not finite: no figure is computed. Sample with sampler.clip=True, in more "
                "steps (--num_steps), or from an earlier checkpoint (--step)."
            )

    def pick(indices):
        images = np.concatenate(list(read(0)))
        return images[np.asarray(indices)]

    def known_afterwards():
        nfe = np.concatenate(list(chunks.read("nfe", 0, num))).mean()
        return {"nfe": int(nfe) if nfe == int(nfe) else round(float(nfe), 1)}

    about = {"kind": "run", **about, "num": num, "shape": [*shape]}
    return Source(about, num, shape, read, pick, known_afterwards=known_afterwards)


def kept(batch: Batch) -> dict[str, np.ndarray]:
    """What of a batch of samples is kept to be evaluated."""
    return {name: rows for name, rows in batch._asdict().items() if rows is not None and name != "finite"}


def file_digest(path: pathlib.Path) -> str:
    """16 hexadecimal digits of the SHA-256 of a file; of none, if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def params_digest(params: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of all parameters."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(params)):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()[:16]
