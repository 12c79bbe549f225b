"""From a data set to training batches. A batch is a pure function of (seed, number of the batch)."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8, UInt32

from ddpm.condition import NOTHING, Condition
from ddpm.data.decoded import in_memory, stacked
from ddpm.data.images import Dataset
from ddpm.rng import per_index, stream
from ddpm.shapes import Images, Key, Pixels
from ddpm.sharding import place


class Examples(NamedTuple):
    """Some images, or latents, and what a model is told of each."""

    pixels: Pixels | Images | np.ndarray
    condition: Condition = NOTHING


class Feed(NamedTuple):
    """Batches for a training loop.

    start: batch number -> iterator of what the compiled step is given.
    given: shapes, dtypes and shardings of that.
    draw: (given, batch number) -> Examples; called inside the compiled step.
    resident: whether the step is given the whole data set each time, so that several steps fit one dispatch.
    """

    start: Callable[[int], Iterator[Examples]]
    given: Examples
    draw: Callable[[Examples, jax.Array], Examples]
    resident: bool


def feed(
    dataset: Dataset,
    *,
    seed: int,
    batch_size: int,
    flip: bool,
    resident_bytes: int,
    conditions: Condition = NOTHING,
    split: jax.sharding.Sharding,
    replicated: jax.sharding.Sharding,
) -> Feed:
    """Batches without end, each epoch in a new order; batch n is the same in every run of the same seed.

    Args:
      batch_size: images a batch, over all devices.
      flip: mirror each image left to right with probability 1/2.
      resident_bytes: a set of at most so many bytes lives on the devices; a larger one streams through grain.
      conditions: what a model is told of the images, row i of image i: arrays, or sequences that read a row when asked.
    """
    if dataset.nbytes <= resident_bytes:
        examples = place(Examples(in_memory(dataset), jax.tree.map(stacked, conditions)), replicated)
        count, placement = len(dataset.images), replicated
        order_key = stream(seed, "data")

        def start(n):
            while True:
                yield examples

        def draw(given, n):
            chosen = shuffled_indices(order_key, n, batch_size, count)
            return jax.tree.map(lambda rows: rows[chosen], given)
    else:
        count, placement = batch_size, split

        def start(n):
            for batch in grain_batches(dataset, seed, batch_size, n, conditions):
                yield place(batch, split)

        def draw(given, n):
            return given

    flip_key = stream(seed, "flip")

    def draw_and_flip(given, n):
        batch = jax.lax.with_sharding_constraint(draw(given, n), split)
        return batch._replace(pixels=mirrored(batch.pixels, jax.random.fold_in(flip_key, n))) if flip else batch

    def described(row):
        return jax.ShapeDtypeStruct((count, *np.shape(row)), np.asarray(row).dtype, sharding=placement)

    given = jax.tree.map(lambda rows: described(rows[0]), Examples(dataset.images, conditions))
    return Feed(start, given, draw_and_flip, dataset.nbytes <= resident_bytes)


def shuffled_indices(key: Key, n: Int[Array, ""], batch_size: int, count: int) -> UInt32[Array, "batch_size"]:
    """Which images batch n holds, when each epoch is a fresh permutation of all `count` and batches may span epochs."""
    position = n.astype(jnp.uint32) * batch_size + jnp.arange(batch_size, dtype=jnp.uint32)
    return jax.vmap(permuted, in_axes=(0, 0, None))(per_index(key, position // count), position % count, count)


def permuted(key: Key, i: UInt32[Array, ""], count: int) -> UInt32[Array, ""]:
    """Where a pseudo-random permutation of 0..count-1 sends i, at a cost that does not grow with `count`.

    A Feistel network permutes the next larger power of 4; what falls outside is sent on until it is inside.

    Luby and Rackoff 1988; Black and Rogaway 2002, section 4 (cycle walking).
    """
    bits = math.ceil(math.log2(max(count, 2)) / 2)  # of half a word
    mask = jnp.uint32(2**bits - 1)

    def network(x):
        left, right = x >> bits, x & mask
        for turn in range(6):
            round_key = jax.random.fold_in(jax.random.fold_in(key, turn), right)
            left, right = right, left ^ (jax.random.bits(round_key, dtype=jnp.uint32) & mask)
        return left << bits | right

    return jax.lax.while_loop(lambda x: x >= count, network, network(i))


class _Source:
    """Examples one by one, as grain reads them."""

    def __init__(self, dataset: Dataset, conditions: Condition):
        self._rows = Examples(dataset.images, conditions)

    def __len__(self) -> int:
        return len(self._rows.pixels)

    def __getitem__(self, i: int) -> Examples:
        return jax.tree.map(lambda rows: np.asarray(rows[i]), self._rows)


def grain_batches(
    dataset: Dataset, seed: int, batch_size: int, n: int, conditions: Condition = NOTHING
) -> Iterator[Examples]:
    """Batches n, n + 1, ... read by grain's threads; its shuffle is random access, so there is no state to save."""
    import grain  # a second

    # Seeds count modulo 2^32, as in jax.random.key; grain would refuse negative ones.
    batches = (
        grain.MapDataset.source(_Source(dataset, conditions)).seed(seed % 2**32).shuffle().repeat().batch(batch_size)
    )
    ahead = grain.ReadOptions(num_threads=16, prefetch_buffer_size=16)  # in batches; grain's 500 would fill the memory
    return iter(batches[n:].to_iter_dataset(ahead))


def mirrored(batch: Pixels, key: Key) -> UInt8[Array, "batch height width channels"]:
    """Each image mirrored left to right with probability 1/2."""
    coins = jax.vmap(jax.random.bernoulli)(per_index(key, jnp.arange(len(batch))))
    return jnp.where(coins[:, None, None, None], batch[:, :, ::-1], batch)
