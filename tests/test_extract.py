"""Sources of images, their features, and what is kept on disk of both."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import mistake, noise

from ddpm import sharding
from ddpm.data.images import Dataset
from ddpm.evaluation import extract as extraction
from ddpm.evaluation import sources
from ddpm.evaluation.chunks import Chunks
from ddpm.evaluation.extract import extract
from ddpm.evaluation.features.classifier import classifier
from ddpm.evaluation.features.pixels import pixels
from ddpm.evaluation.sources import of_dataset, of_samples
from ddpm.sampling.batched import Batch

IMAGES = noise(0, 150, 8, 8, 1)


@pytest.fixture(autouse=True)
def no_cache_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_chunks_grow_and_are_found_again(tmp_path):
    for directory in (tmp_path / "rows", None):
        chunks = Chunks(directory)
        for first, last in itertools.pairwise([0, 3, 5, 9]):
            chunks.append({"a": np.arange(first, last), "b": np.arange(first, last)[:, None] * 2})
        assert chunks.rows(100) == 9 and chunks.rows(4) == 4
        np.testing.assert_array_equal(np.concatenate(list(chunks.read("b", 2, 8))), np.arange(2, 8)[:, None] * 2)
    again = Chunks(tmp_path / "rows")
    assert again.rows(100) == 9
    np.testing.assert_array_equal(np.concatenate(list(again.read("a", 0, 9))), np.arange(9))


def test_chunks_that_may_not_be_read_are_not_taken_for_broken_ones(tmp_path, monkeypatch):
    Chunks(tmp_path).append({"x": np.zeros((3, 1))})

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(type(tmp_path), "read_bytes", refused)
        Chunks(tmp_path)
    assert Chunks(tmp_path).rows(10) == 3


@pytest.mark.parametrize("place", [None, 0, 30, 70, 200, -30, -5])
def test_a_broken_chunk_is_dropped_with_what_follows(tmp_path, place):
    chunks = Chunks(tmp_path)
    for first, last in itertools.pairwise([0, 3, 5, 9]):
        chunks.append({"a": np.arange(first, last)})
    broken = tmp_path / "000000003-000000005.npz"
    content = bytearray(broken.read_bytes())
    if place is None:
        del content[50:]
    else:
        content[place] ^= 255
    broken.write_bytes(content)
    again = Chunks(tmp_path)
    assert again.rows(100) == 3
    again.append({"a": np.arange(3, 6)})
    np.testing.assert_array_equal(np.concatenate(list(again.read("a", 0, 6))), np.arange(6))
    assert Chunks(tmp_path).rows(100) == 6


class Drawn:
    """Stands for a sampler: image i is filled with i."""

    def __init__(self, batch=4, broken=()):
        self.batch, self.broken, self.drawn = batch, broken, []

    def __call__(self, first, num):
        for start in range(first, num, self.batch):
            indices = np.arange(start, min(start + self.batch, num))
            self.drawn.extend(indices)
            yield Batch(
                np.broadcast_to(indices[:, None, None, None], (len(indices), 8, 8, 1)).astype(np.uint8),
                np.array([i not in self.broken for i in indices]),
                np.array([7] * len(indices)),
            )


def samples(sampler, directory, num=10):
    return of_samples(lambda first: sampler(first, num), num, (8, 8, 1), {"name": "x"}, Chunks(directory))


def test_no_sample_is_drawn_twice(tmp_path):
    sampler = Drawn()
    for _ in range(2):
        assert [i for batch in samples(sampler, tmp_path, 10).read(0) for i in batch[:, 0, 0, 0]] == list(range(10))
    assert sampler.drawn == list(range(10))
    more = samples(sampler, tmp_path, 14)
    assert [i for batch in more.read(9) for i in batch[:, 0, 0, 0]] == [9, 10, 11, 12, 13]
    assert sampler.drawn == list(range(14))
    np.testing.assert_array_equal(more.pick([13, 2])[:, 0, 0, 0], [13, 2])
    assert more.known_afterwards() == {"nfe": 7}


def test_an_interrupted_sampling_goes_on_where_it_stopped(tmp_path):
    sampler = Drawn()
    next(samples(sampler, tmp_path).read(0))
    assert sampler.drawn == [0, 1, 2, 3]
    assert [i for batch in samples(sampler, tmp_path).read(0) for i in batch[:, 0, 0, 0]] == list(range(10))
    assert sampler.drawn == list(range(10))


def test_samples_that_are_not_finite_are_counted_and_refused(tmp_path):
    for _ in range(2):  # those before are kept, and count
        assert mistake(lambda: list(samples(Drawn(broken=(5, 6, 9)), tmp_path).read(0))) == (
            "3 of 10 samples are not finite: no figure is computed. Sample with sampler.clip=True, in more steps "
            "(--num_steps), or from an earlier checkpoint (--step)."
        )
    assert Chunks(tmp_path).rows(10) == 4


def test_a_reference_is_a_fixed_draw_and_known_by_its_pixels():
    data = Dataset(IMAGES)
    some = of_dataset(data, "noise", 40)
    chosen = np.concatenate(list(some.read(0)))
    assert len({image.tobytes() for image in chosen}) == 40
    np.testing.assert_array_equal(chosen, np.concatenate(list(of_dataset(Dataset(IMAGES), "noise", 40).read(0))))
    np.testing.assert_array_equal(some.pick([3, 39]), chosen[[3, 39]])
    assert some.key != of_dataset(data, "noise", 41).key != of_dataset(Dataset(IMAGES[::-1]), "noise", 41).key
    np.testing.assert_array_equal(np.concatenate(list(of_dataset(data, "noise").read(0))), IMAGES)
    assert mistake(of_dataset, data, "noise", 151) == "noise holds 150 images, not 151: ask for no more."


def test_features_depend_on_no_batch_and_no_number_of_devices(monkeypatch):
    network = classifier(dataset=Dataset(IMAGES, ("a", "b"), np.arange(150) % 2), steps=2)
    source = of_dataset(Dataset(IMAGES), "noise")
    found = [extract(source, network, ["pool", "logits"], batch_size=size, cache=None) for size in (8, 64)]
    one = sharding.data_mesh(jax.devices()[:1])
    monkeypatch.setattr(extraction.sharding, "data_mesh", lambda: one)
    found.append(extract(source, network, ["pool", "logits"], batch_size=50, cache=None))
    for other in found[1:]:
        assert other.about == found[0].about
        for tap in ("pool", "logits"):
            np.testing.assert_allclose(found[0].features[tap], other.features[tap], atol=1e-5)
        np.testing.assert_allclose(found[0].moments("pool").cov, other.moments("pool").cov, atol=1e-5)
        np.testing.assert_allclose(found[0].pixels("").colours.cov, other.pixels("").colours.cov, rtol=1e-12)
    assert found[0].features["pool"].shape == (150, 128) and found[0].features["logits"].shape == (150, 2)


def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK", 64)
    read = []
    source = of_dataset(Dataset(IMAGES), "noise")

    def stops(first):
        for batch in source.read(first):
            read.append(len(batch))
            yield batch
            if len(read) == 2:
                raise KeyboardInterrupt

    halting = sources.Source(source.about, source.num, source.shape, stops, source.pick)
    with pytest.raises(KeyboardInterrupt):
        extract(halting, pixels(), ["pool"], batch_size=64, cache=tmp_path)
    again = extract(halting, pixels(), ["pool"], batch_size=64, cache=tmp_path)
    assert read == [64, 64, 22]
    np.testing.assert_allclose(again.features["pool"], IMAGES.reshape(150, -1) / 255, atol=1e-7)
    extract(halting, pixels(), ["pool"], batch_size=64, cache=tmp_path)
    assert read == [64, 64, 22]


def test_features_without_their_samples_are_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK", 4)
    part = samples(Drawn(), tmp_path / "samples").read

    def stops(first):
        yield next(part(first))
        raise KeyboardInterrupt

    whole = samples(Drawn(), None)
    halting = sources.Source(whole.about, whole.num, whole.shape, stops, whole.pick)
    with pytest.raises(KeyboardInterrupt):
        extract(halting, pixels(), ["pool"], batch_size=8, cache=tmp_path)
    for first in (3, 4, 10):
        assert [i for batch in samples(Drawn(), None).read(first) for i in batch[:, 0, 0, 0]] == list(range(first, 10))
    found = extract(whole, pixels(), ["pool"], batch_size=8, cache=tmp_path)  # whose samples are drawn anew
    np.testing.assert_allclose(found.features["pool"][:, 0] * 255, range(10), atol=1e-5)


def test_what_is_known_of_the_pixels():
    found = extract(of_dataset(Dataset(IMAGES), "noise"), pixels(), ["pool"], batch_size=64, cache=None)
    x = IMAGES / 255
    assert found.pixels("").colours.mean == pytest.approx(x.mean()) and found.pixels("").colours.n == x.size
    assert found.pixels("").colours.cov[0, 0] == pytest.approx(x.var(ddof=1))
    assert found.pixels("").sharpness == pytest.approx(20 * x.var(), rel=0.05)  # of white noise


def test_a_tap_the_network_has_not_is_named():
    assert mistake(extract, of_dataset(Dataset(IMAGES), "x"), pixels(), ["spatial"], batch_size=8, cache=None) == (
        "feature network pixels has no 'spatial', only pool."
    )


def test_a_classifier_is_kept_and_known_by_its_weights():
    data = Dataset(IMAGES, ("a", "b"), np.arange(150) % 2)
    first, again = (classifier(dataset=data, steps=2) for _ in range(2))
    assert first.sha256 == again.sha256 != classifier(dataset=data, steps=3).sha256
    assert "2 classes" in first.rule
    for shape in ((150, 8, 8, 1), (150, 8, 6, 3)):
        turned = classifier(dataset=Dataset(noise(1, *shape)), steps=2)
        assert "quarter turns" in turned.rule
        assert turned.apply(turned.params, jnp.asarray(noise(2, 5, *shape[1:])))["logits"].shape == (5, 4)


@pytest.mark.slow
def test_the_classifier_learns_the_digits(optimised):
    from ddpm.data.digits import digits

    network, test = classifier(dataset=digits()), digits(split="test")
    found = network.apply(network.params, jnp.asarray(test.images))["logits"].argmax(axis=-1)
    assert (found == test.labels).mean() > 0.95
