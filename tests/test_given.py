"""Images to restore, from a file, from the data or from another run: given to trained runs."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from conftest import run

import ddpm
from ddpm import build, datasets, objective
from ddpm.config import to_json
from ddpm.data.digits import digits
from ddpm.data.images import Dataset
from ddpm.errors import InputError
from ddpm.samplers import asked
from ddpm.sampling.batched import BatchedSampler
from ddpm.training.checkpoint import Checkpoints
from ddpm.training.state import init_state
from experiments import digits as experiment

SHORT = dict(sampler="ddim", num_steps=3)
KNOWN = dict(known=dict(name="inpainting"))


def small_digits():
    """4 x 4, each pixel the mean of four."""
    real = digits()
    return real.images.reshape(-1, 4, 2, 4, 2, 1).mean(axis=(2, 4)).astype(np.uint8), real.labels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where runs are, and files of what is given to them."""
    place, random = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    some, known = digits(split="test").images[:5], random.random((5, 8, 8)) < 0.5
    small, labels = small_digits()
    np.savez(place / "masked.npz", some, known=known)
    np.savez(place / "one_mask.npz", some, known=known[:1])
    np.savez(place / "of_numbers.npz", some, known=known.astype(float))
    np.savez(place / "other_mask.npz", some, known=known[:, :4])
    np.savez(place / "whole.npz", some)
    np.savez(place / "small.npz", small[:5])
    np.savez(place / "small_digits.npz", arr_0=small[:96], arr_1=labels[:96])
    return place


CHANGES = {  # runs, by what sets them apart
    "plain": {"condition.labels": True},
    "hole": {"condition.image.name": "inpainting"},
    "fine": {
        "condition.labels": True,
        "condition.image.name": "super_resolution",
        "condition.image.super_resolution.factor": 2,
        "condition.image.super_resolution.noise": 0.5,
    },
    "coarse": {"condition.labels": True, "data.name": "npz"},
}


@pytest.fixture(scope="module")
def opened(place):
    """name -> a run, made when it is first asked for; it is not trained, but heeds all that it is told."""

    @functools.cache
    def of(name):
        config = experiment.get_config()
        config.model.unet.update(channels=8, channel_mult=(1,), attention_resolutions=())
        config.sampler.update(num_steps=5, batch_size=8)
        config.data.npz.path = str(place / "small_digits.npz")
        config.update_from_flattened_dict(CHANGES[name])
        facts, tx = datasets.dataset(config).facts, build.gradient_transformation(config)
        made = objective.diffusion(config, facts.shape, len(facts.classes))
        params = jax.tree.map(lambda p: p + 0.05, jax.jit(made.init)(objective.init_key(config)))
        checkpoints = Checkpoints(place / name, keep=1, keep_every=0)
        record = {"config": to_json(config), "facts": dataclasses.asdict(facts)}
        checkpoints.save(2, init_state(params, tx), record)
        checkpoints.finish()
        checkpoints.close()
        return ddpm.load(place / name)

    return of


def wanted(run, images=None, **choice):
    """What a run is asked for."""
    config = build.with_sampler(run.config, **choice)
    images = images or (lambda: datasets.dataset(run.config))
    return asked(config, run._diffusion, run.facts.shape, len(run.facts.classes), images)


def masked(place):
    with np.load(place / "masked.npz") as file:
        return file["arr_0"], file["known"]


@pytest.mark.slow
def test_the_command_keeps_known_pixels_and_draws_the_others(opened, place):
    notebook = opened("plain").sample(8, given=f"{place}/masked.npz", **KNOWN, **SHORT)
    flags = ("--known=inpainting", f"--given={place}/masked.npz", "--sampler=ddim", "--num_steps=3", "--num=8")
    code, _, err = run("--mode=sample", f"--workdir={place}/plain", *flags, f"--out={place}/drawn.npz")
    assert code == 0, err
    with np.load(place / "drawn.npz") as file:
        drawn = file["arr_0"]
    some, known = (rows[np.arange(8) % 5] for rows in masked(place))
    for images in (drawn, notebook):
        np.testing.assert_array_equal(images[known], some[known])
        assert (images[~known] != some[~known]).mean() > 0.5
    assert np.abs(drawn.astype(int) - notebook).mean() < 0.1  # one device there, eight here


def test_one_mask_may_serve_all_and_steps_may_be_taken_again(opened, place):
    plain, (some, known) = opened("plain"), masked(place)
    often = dict(known=dict(name="inpainting", resamples=3), given=f"{place}/one_mask.npz", **SHORT)
    images = plain.sample(5, **often)
    np.testing.assert_array_equal(images[:, known[0]], some[:, known[0]])
    assert next(plain.sampler(**often).batches(plain.params, 1, seed=0)).nfe.tolist() == [9]
    assert plain.sampler(**often)._compiled is plain.sampler(**often | {"given": f"{place}/masked.npz"})._compiled


def test_means_of_blocks_are_kept(opened, place):
    told = dict(known=dict(name="super_resolution"), given=f"{place}/small.npz", **SHORT)
    fine = opened("plain")
    fine.config.known.super_resolution.factor = 2
    images = fine.sample(5, **told).astype(float)
    fine.config.known.super_resolution.factor = 4
    blocks = images.reshape(5, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(5, 4, 4, 4)
    inside = ((blocks > 0) & (blocks < 255)).all(axis=-1)  # where no byte was clipped
    assert inside.mean() > 0.05
    with np.load(place / "small.npz") as file:
        np.testing.assert_allclose(blocks.mean(-1)[inside], file["arr_0"][..., 0][inside], atol=0.5)


def test_a_run_trained_to_fill_holes_keeps_the_rest(opened, place):
    hole, (some, known) = opened("hole"), masked(place)
    images = hole.sample(5, given=f"{place}/masked.npz", **SHORT)
    np.testing.assert_array_equal(images[known], some[known])
    assert (images[~known] != some[~known]).mean() > 0.5
    of_data = wanted(hole).given(0, np.arange(8))
    images, kept = hole.sample(8, **SHORT), np.asarray(of_data.pixels)
    pixels = np.round((np.asarray(of_data.image) + 1) * 127.5)
    np.testing.assert_array_equal(images[kept], pixels[kept])
    assert 0.1 < kept.mean() < 0.95 and (images[~kept] != pixels[~kept]).mean() > 0.5


@pytest.mark.parametrize("name", ["hole", "fine"])
def test_what_is_asked_for_does_not_depend_on_the_batch(opened, name):
    restoring = opened(name)
    images = restoring.sample(9, **SHORT)
    (last,) = restoring.sampler(**SHORT).batches(restoring.params, 9, seed=0, first=8)
    np.testing.assert_array_equal(last.images, images[8:])
    larger = restoring.sample(9, batch_size=16, **SHORT)
    assert np.abs(images.astype(int) - larger).mean() < 0.1


def test_a_run_trained_for_larger_images_heeds_the_smaller_and_their_noise(opened, place):
    fine = opened("fine")
    images = fine.sample(6, labels=1, given=f"{place}/small.npz", **SHORT)
    assert images.shape == (6, 8, 8, 1) and (images != fine.sample(6, labels=1, seed=0, **SHORT)).any()
    compiled = len(fine._samplers)
    fine.config.sampler.given_noise = 0.4
    rows = wanted(fine, given=f"{place}/small.npz").rows(0, np.arange(3))
    noisy = fine.sample(6, labels=1, given=f"{place}/small.npz", **SHORT)
    fine.config.sampler.given_noise = 0.0
    np.testing.assert_allclose(rows.noise, 0.4, rtol=1e-6)
    assert rows.image.shape == (3, 8, 8, 1) and (noisy != images).any() and len(fine._samplers) == compiled


def test_a_run_that_draws_for_another_is_asked_for_the_same_with_other_noise(opened, place, monkeypatch):
    coarse, fine = opened("coarse"), opened("fine")
    told, seen, batches = dict(given=str(coarse.workdir), **SHORT), [], BatchedSampler.batches

    def watched(self, *args, **options):
        for batch in batches(self, *args, **options):
            seen.append((batch.images.shape[1], batch.labels.tolist()))
            yield batch

    monkeypatch.setattr(BatchedSampler, "batches", watched)
    images = fine.sample(8, **told)
    assert len(seen) == 2  # once for both halves of the batch
    by_size = dict(seen)
    assert by_size[4] == by_size[8] and len(set(by_size[8])) > 1
    fine.sample(8, labels=(3, 7), **told)
    assert dict(seen)[4] == dict(seen)[8] == [3, 7] * 4
    (last,) = fine.sampler(**told).batches(fine.params, 8, seed=0, first=7)
    assert np.abs(last.images.astype(int) - images[7:]).max() <= 1
    plain = opened("plain")
    plain.config.known.super_resolution.factor = 2
    given = wanted(plain, known=dict(name="super_resolution"), **told).given
    plain.config.known.super_resolution.factor = 4
    small = [np.asarray(given(0, indices).image)[:, ::2, ::2] for indices in (np.arange(8), np.arange(5, 6))]
    np.testing.assert_allclose(small[1][0], small[0][5], atol=1e-2)
    # Of the same key, the noise of a small image would be the beginning of that of a large one.
    assert (np.round((small[0] + 1) * 127.5) != coarse.sample(8)).mean() > 0.5


def test_images_of_the_data_come_each_once_before_one_comes_again(opened):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    given = wanted(opened("hole"), lambda: Dataset(pixels)).given
    images = np.round((np.asarray(given(3, np.arange(40, dtype=np.uint32)).image) + 1) * 127.5).astype(np.uint8)
    assert sorted(map(np.ndarray.tobytes, images[:20])) == sorted(map(np.ndarray.tobytes, pixels))
    np.testing.assert_array_equal(images[:20], images[20:])
    other = np.asarray(given(4, np.arange(20, dtype=np.uint32)).image)
    assert (np.round((other + 1) * 127.5) != images[:20]).any()


def test_encoding_heeds_no_image_that_is_to_be_kept(opened, place):
    plain, (some, _) = opened("plain"), masked(place)
    x_T = plain.encode(some, num_steps=3)
    np.testing.assert_array_equal(plain.encode(some, num_steps=3, given=f"{place}/masked.npz", **KNOWN), x_T)
    back = plain.decode(x_T, num_steps=3, given=f"{place}/masked.npz", **KNOWN)
    np.testing.assert_array_equal(back, plain.decode(x_T, num_steps=3))


@pytest.mark.parametrize("name", ["hole", "fine"])
def test_encoding_by_a_model_that_is_told_images_needs_them(opened, place, name):
    some, _ = masked(place)
    with pytest.raises(InputError) as caught:
        opened(name).encode(some, num_steps=3)
    assert str(caught.value) == (
        "this model knows no image of which it is told nothing: give images, as sampler.given."
    )
    file = str(place / {"hole": "masked.npz", "fine": "small.npz"}[name])
    assert np.isfinite(opened(name).encode(some, num_steps=3, given=file)).all()


REFUSED = {
    "plain": [
        (
            dict(given="{}/other_mask.npz", **KNOWN),
            "array 'known' of {}/other_mask.npz is bool of shape (5, 4, 8); it must say which pixels are known, bool [5 or 1, 8, 8].",
        ),
        (
            dict(given="{}/of_numbers.npz", **KNOWN),
            "array 'known' of {}/of_numbers.npz is float64 of shape (5, 8, 8); it must say which pixels are known, bool [5 or 1, 8, 8].",
        ),
        (
            dict(given="{}/whole.npz", **KNOWN),
            "{}/whole.npz has no array 'known', which says which pixels are known: bool [5 or 1, 8, 8].",
        ),
        (
            dict(given="{}/small.npz", **KNOWN),
            "{}/small.npz holds images of shape (4, 4, 1); those that are given here must be (8, 8, 1) (height, width, channels).",
        ),
        (
            dict(given="{}/whole.npz"),
            "sampler.given = '{}/whole.npz' does nothing: the model is told no image. Say what is known of it with "
            "known.name='inpainting', 'colourisation' or 'super_resolution'.",
        ),
        (
            dict(given="{}/none.npz", **KNOWN),
            "sampler.given = '{}/none.npz' is no file: give an .npz of images, or the workdir of a run.",
        ),
        (
            dict(given="{}/plain", **KNOWN),
            "sampler.given = '{}/plain' is a run, which does not say what pixels are known: give an .npz.",
        ),
        (
            dict(known=dict(name="colourisation")),
            "known.name = 'colourisation' leaves nothing to draw: images of one channel are grey.",
        ),
        (
            dict(known=dict(name="inpainting", resamples=0)),
            "known.resamples = 0 must be at least 1; RePaint uses 10.",
        ),
        (
            dict(known=dict(name="inpaint")),
            "unknown kind of knowledge 'inpaint'. Did you mean 'inpainting'? Known: colourisation, inpainting, super_resolution.",
        ),
        (
            dict(prompts="a seven"),
            "prompts such as 'a seven' are for a model that is told texts: train one with condition.text.name, "
            "or ask this one for --labels if it is told classes.",
        ),
    ],
    "fine": [
        (
            dict(**KNOWN),
            "the model was trained for condition.image.name = 'super_resolution': set known.name to ''.",
        ),
        (
            dict(given="{}/plain"),
            "{}/plain draws images of shape (8, 8, 1); the images that are given here must be (4, 4, 1).",
        ),
        (
            dict(given="{}/whole.npz"),
            "{}/whole.npz holds images of shape (8, 8, 1); those that are given here must be (4, 4, 1) (height, width, channels).",
        ),
    ],
}


@pytest.mark.parametrize(("name", "index"), [(name, i) for name in REFUSED for i in range(len(REFUSED[name]))])
def test_what_cannot_be_given_is_refused(opened, place, name, index):
    choice, message = REFUSED[name][index]
    opened("plain")  # a run that others are told of
    choice = {key: value.format(place) if key == "given" else value for key, value in choice.items()}
    with pytest.raises(InputError, match=f"^{re.escape(message.format(place))}$"):
        opened(name).sampler(**choice)


def test_a_factor_must_divide_the_image(opened):
    plain = opened("plain")
    plain.config.known.super_resolution.factor = 3
    with pytest.raises(InputError, match=r"^images of 8 x 8 are not divided by factor 3: take another factor.$"):
        plain.sampler(known=dict(name="super_resolution"))
    plain.config.known.super_resolution.factor = 4
