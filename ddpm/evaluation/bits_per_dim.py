"""Likelihoods of a data set: batch by batch over all devices, kept on disk, summed up with a standard error."""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ddpm import names, sharding
from ddpm.condition import Condition
from ddpm.diffusion.model import Model
from ddpm.errors import InputError
from ddpm.evaluation import likelihoods
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.sources import Source, digest
from ddpm.rng import per_index, stream


def is_likelihood(metric: str) -> bool:
    """Whether a metric is of images under the model, not of samples."""
    return metric in names.public(likelihoods)


def rows_of(
    likelihood: Callable[..., dict[str, jax.Array]],
    options: dict,
    model: Callable[..., Model],
    params: Any,
    source: Source,
    *,
    seed: int,
    batch_size: int,
    conditions: Condition | None = None,
    about: dict,
    cache: pathlib.Path | None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, np.ndarray]:
    """What a likelihood says of each image of a source, row by row; what is in the cache is not computed again.

    Args:
      likelihood: one of likelihoods.py.
      options: of it.
      model: (params, condition) -> Model.
      conditions: what the model is told of the images, row i of image i; None for nothing.
      about: what names the model in the cache, as JSON.
    Raises:
      InputError: an option out of range, or images whose likelihood is not finite.
    """
    name, mesh = likelihood.__name__, sharding.data_mesh()
    size = -(-batch_size // mesh.size) * mesh.size
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)

    @functools.partial(jax.jit, in_shardings=(replicated, split, split, split), out_shardings=replicated)
    def compute(params, pixels, indices, condition):
        keys = per_index(stream(seed, name), indices)
        return likelihood(model(params, condition), pixels, keys, **options)

    key = digest({"model": about, "likelihood": name, "options": options, "seed": seed, "source": source.key})
    chunks = Chunks(cache / key if cache else None)
    done = chunks.rows(source.num)
    for images in _batches(source, done, size):
        padded = np.concatenate([images, np.repeat(images[:1], size - len(images), axis=0)])
        indices = np.arange(done, done + size, dtype=np.uint32)
        told = jax.tree.map(lambda known, at=indices: known[at.clip(max=source.num - 1)], conditions)
        rows = jax.device_get(compute(params, *jax.device_put((padded, indices, told), split)))
        chunks.append({key: np.asarray(values)[: len(images)] for key, values in rows.items()})
        done += len(images)
        mean = np.concatenate(list(chunks.read(name, 0, done))).mean()
        progress(f"{done}/{source.num} images: {name} {mean:.4f}")
    arrays = {key: np.concatenate(list(chunks.read(key, 0, source.num))) for key in chunks.names()}
    bad = int((~np.isfinite(arrays[name])).sum())
    if bad:
        raise InputError(
            f"{name} of {bad} of {source.num} images is not finite: no figure is computed. Look at an earlier checkpoint (--step)"
            + (", or loosen the tolerance (evaluation.ode_bpd.rtol and atol)." if name == "ode_bpd" else ".")
        )
    return arrays


def figures(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over images, in float64, with standard errors of those in bits."""
    found = {}
    for name, values in arrays.items():
        if values.ndim == 1:
            values = values.astype(np.float64)
            found[name] = float(values.mean())
            if name.endswith("_bpd") and len(values) > 1:
                found[f"{name}_stderr"] = float(values.std(ddof=1) / math.sqrt(len(values)))
    return found


def _batches(source: Source, first: int, size: int):
    pending = np.zeros((0, *source.shape), np.uint8)
    for images in source.read(first):
        pending = np.concatenate([pending, images])
        while len(pending) >= size:
            yield pending[:size]
            pending = pending[size:]
    if len(pending):
        yield pending
