"""Batches: each image once an epoch, the same after a restart."""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import noise
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from ddpm import sharding
from ddpm.data.images import Dataset
from ddpm.data.pipeline import feed, grain_batches, mirrored, permuted, shuffled_indices
from ddpm.rng import per_index, stream


@functools.partial(jax.jit, static_argnums=1)
def permutations(keys, count):
    """Row per key: where each index of 0..count-1 goes."""
    return jax.vmap(jax.vmap(permuted, (None, 0, None)), (0, None, None))(
        keys, jnp.arange(count, dtype=jnp.uint32), count
    )


def epochs(seed, count):
    return per_index(stream(seed, "data"), jnp.arange(count))


@settings(deadline=None, max_examples=4)  # a second to compile each
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
@example(count=1, seed=0)
@example(count=1024, seed=0)  # a power of 4: none falls outside
@example(count=1025, seed=0)  # most do
def test_an_epoch_is_a_permutation(count, seed):
    for order in np.asarray(permutations(epochs(seed, 4), count)):
        np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_each_epoch_has_its_own_order():
    orders = np.asarray(permutations(epochs(0, 50), 1000))
    same_place = [(a == b).sum() for i, a in enumerate(orders) for b in orders[:i]]  # Poisson of mean 1
    assert max(same_place) < 10 and 0.7 < np.mean(same_place) < 1.3


def test_each_index_goes_everywhere_alike():
    for places in np.asarray(permutations(epochs(1, 20_000), 10)).T:
        assert stats.chisquare(np.bincount(places, minlength=10)).pvalue > 1e-4


def test_neighbours_of_an_epoch_are_strangers():
    order = np.asarray(permutations(epochs(0, 50), 1000)).astype(float)
    assert abs(np.corrcoef(order[:, :-1].ravel(), order[:, 1:].ravel())[0, 1]) < 0.02  # 1 / sqrt(50 000) = 0.004
    assert abs(np.corrcoef(order.ravel(), np.tile(np.arange(1000), 50))[0, 1]) < 0.02


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (5, 12)])
def test_batches_cover_each_epoch_once(count, batch_size):
    indices = jax.jit(lambda n: shuffled_indices(stream(0, "data"), n, batch_size, count))
    batches = 3 * count
    last_first = {n: np.asarray(indices(jnp.int32(n))) for n in reversed(range(batches))}
    run = np.concatenate([last_first[n] for n in range(batches)]).reshape(-1, count)
    np.testing.assert_array_equal(np.sort(run), np.tile(np.arange(count), (3 * batch_size, 1)))
    assert len(np.unique(run, axis=0)) > 1
    np.testing.assert_array_equal(indices(jnp.int32(2)), last_first[2])


def test_about_half_of_a_batch_is_mirrored_left_to_right_and_nothing_else():
    batch = noise(0, 400, 3, 4, 2)
    turned = []
    for i in range(10):
        after = np.asarray(mirrored(jnp.asarray(batch), jax.random.key(i)))
        turned.append((after != batch).any((1, 2, 3)))
        expected = np.where(turned[-1][:, None, None, None], np.flip(batch, 2), batch)
        np.testing.assert_array_equal(after, expected)
    turned = np.array(turned)
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(turned.size)
    assert stats.binomtest(int(turned.any(0).sum() - turned.all(0).sum()), 400, 1 - 2**-9).pvalue > 1e-3


COUNT = 20
NUMBERED = Dataset(noise(0, COUNT, 4, 4, 3))
BY_PIXELS = {image.tobytes(): i for i, image in enumerate(NUMBERED.images)}
MIRRORED_OR_NOT = BY_PIXELS | {image[:, ::-1].tobytes(): i for i, image in enumerate(NUMBERED.images)}


class OneByOne(Sequence):
    """The same images, read when asked."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        self.read += 1
        return NUMBERED.images[i]


def make_feed(dataset=NUMBERED, *, seed=0, batch_size=8, flip=False, resident=True):
    mesh = sharding.data_mesh()
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)
    options = dict(batch_size=batch_size, flip=flip, split=split, replicated=replicated)
    return feed(dataset, seed=seed, resident_bytes=dataset.nbytes if resident else dataset.nbytes - 1, **options)


def draw(made, first, count):
    """Batches first, first + 1, ... as a training loop draws them."""
    given, compiled = made.start(first), jax.jit(made.draw)
    return [compiled(next(given), jnp.int32(n)).pixels for n in range(first, first + count)]


def numbers(batches, known=BY_PIXELS):
    """Which images batches hold."""
    return [known[np.asarray(image).tobytes()] for batch in batches for image in batch]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [8, 32])  # neither divides an epoch, one is larger
def test_a_feed_gives_each_image_once_an_epoch(resident, batch_size):
    made = make_feed(Dataset(OneByOne()), batch_size=batch_size, resident=resident)
    assert made.resident == resident
    run = np.array(numbers(draw(made, 0, 10))).reshape(-1, COUNT)
    np.testing.assert_array_equal(np.sort(run), np.tile(np.arange(COUNT), (len(run), 1)))
    assert len(np.unique(run, axis=0)) == len(run)


def test_streaming_reads_a_few_batches_ahead():
    images = OneByOne()
    batches = grain_batches(Dataset(images), 0, 8, 0)
    for _ in range(3):
        next(batches)
    time.sleep(0.5)
    assert images.read <= 1 + 8 * 40


@pytest.mark.parametrize("resident", [True, False])
def test_a_feed_goes_on_where_it_stopped(resident):
    """Batch n is a function of the seed and n."""
    whole = draw(make_feed(flip=True, resident=resident), 0, 9)
    for first in (1, 5):
        again = draw(make_feed(flip=True, resident=resident), first, 9 - first)
        np.testing.assert_array_equal(np.stack(again), np.stack(whole[first:]))
    other = draw(make_feed(seed=1, flip=True, resident=resident), 0, 9)
    assert numbers(other, MIRRORED_OR_NOT) != numbers(whole, MIRRORED_OR_NOT)


def test_a_negative_seed_streams_too():
    batches = [next(grain_batches(NUMBERED, seed, 8, 0)).pixels for seed in (-1, 2**32 - 1, 0)]
    assert numbers(batches[:1]) == numbers(batches[1:2]) != numbers(batches[2:])


def turned_by(**options):
    """Which of 80 images a feed mirrors, where each is an image of the set or its mirror image."""
    plain, flipped = (np.concatenate(draw(make_feed(flip=flip, **options), 0, 10)) for flip in (False, True))
    numbers([plain])  # raises if one is not an image of the set
    turned = (plain != flipped).any((1, 2, 3))
    np.testing.assert_array_equal(flipped, np.where(turned[:, None, None, None], np.flip(plain, 2), plain))
    return turned


@pytest.mark.parametrize("resident", [True, False])
def test_a_feed_mirrors_half_of_the_images_if_told(resident):
    assert 20 < turned_by(resident=resident).sum() < 60


def test_another_seed_mirrors_others():
    assert (turned_by(seed=0, resident=False) != turned_by(seed=1, resident=False)).any()


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_split_over_all_devices(resident):
    made = make_feed(resident=resident, flip=True)
    given = next(made.start(0))
    assert {shard.data.shape[0] for shard in given.pixels.addressable_shards} == {COUNT if resident else 1}
    (batch,) = draw(made, 0, 1)
    assert batch.dtype == np.uint8 and batch.shape == (8, 4, 4, 3)
    shards = sorted(batch.addressable_shards, key=lambda shard: shard.index[0].start)
    assert len({shard.device for shard in shards}) == jax.device_count() == 8
    assert [shard.data.shape for shard in shards] == [(1, 4, 4, 3)] * 8
    np.testing.assert_array_equal(np.concatenate([np.asarray(shard.data) for shard in shards]), batch)
