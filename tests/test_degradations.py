"""What a model that restores images is told: means brought back to size, noise on them, rectangles that are unknown."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from ddpm.degradation import block_means, rectangle
from ddpm.degradations import inpainting, super_resolution
from ddpm.errors import InputError
from ddpm.rng import per_index, stream


def keys_of(count):
    return per_index(stream(0, "degradations"), jnp.arange(count))


def some_images(*shape):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape), jnp.float32)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_block_means_are_those_of_a_loop(kind):
    x = np.asarray(some_images(2, 6, 9, 3))
    means = block_means(kind(x), 3)
    assert means.shape == (2, 2, 3, 3)
    for i, row, column, channel in np.ndindex(*means.shape):
        block = [x[i, 3 * row + a, 3 * column + b, channel] for a in range(3) for b in range(3)]
        np.testing.assert_allclose(means[i, row, column, channel], sum(block) / 9, atol=1e-6)


def test_means_are_brought_back_to_size_as_another_library_does_it():
    low = np.asarray(some_images(3, 4, 5, 1))
    told = super_resolution(factor=2).given(low, None, 0.0, keys_of(3))
    assert told.image.shape == (3, 8, 10, 1) and told.noise.tolist() == [0, 0, 0]
    for image, small in zip(told.image, low, strict=True):
        wanted = Image.fromarray(small[..., 0]).resize((10, 8), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(image[..., 0], np.asarray(wanted), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_images_without_detail_lose_none(factor):
    side, made = 8 * factor, super_resolution(factor)
    across, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    images = np.stack([np.full_like(across, 0.3), across, down / 2 - across / 4])[..., None].astype(np.float32)
    told = made.of(jnp.asarray(images), keys_of(3))
    np.testing.assert_allclose(told.image[0], images[0], atol=1e-6)
    inner = slice(2 * factor, -2 * factor)  # of which all four neighbours are in the image
    np.testing.assert_allclose(told.image[:, inner, inner], images[:, inner, inner], atol=1e-5)
    assert told.image.dtype == told.noise.dtype == np.float32 and made.size((side, side)) == (8, 8)
    assert not made.needs_known


def test_each_image_has_noise_of_a_level_of_its_own():
    n, made = 1500, super_resolution(factor=2, noise=0.8)
    told = made.of(jnp.ones((n, 8, 8, 1)), keys_of(n))
    assert scipy.stats.kstest(told.noise, scipy.stats.uniform(0, 0.8).cdf).pvalue > 1e-3
    pixels, s = np.asarray(told.image, np.float64).reshape(n, -1), np.asarray(told.noise, np.float64)
    unit = (pixels - np.sqrt(1 - s**2)[:, None])[s > 1e-3] / s[s > 1e-3, None]
    assert abs(unit.mean()) < 4 / np.sqrt(unit.size) and abs(unit.var() - 1) < 4 * np.sqrt(2 / unit.size)
    assert scipy.stats.kstest(unit[:, :8].ravel(), "norm").pvalue > 1e-3
    # Noise of neighbours, and the noise and its level, have nothing to do with each other.
    for a, b in ((unit[:-1], unit[1:]), (unit[:, :-1], unit[:, 1:]), (unit.mean(1), s[s > 1e-3])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)
    alone = made.of(jnp.ones((1, 8, 8, 1)), keys_of(n)[7:8])
    np.testing.assert_allclose(alone.image[0], told.image[7], atol=1e-6)


def test_given_images_have_the_noise_that_is_said():
    made, low = super_resolution(factor=2, noise=0.5), some_images(500, 4, 4, 1)
    plain, noisy = (made.given(low, None, s, keys_of(500)) for s in (0, 0.3))
    assert plain.noise.tolist() == [0] * 500 and set(noisy.noise.tolist()) == {float(np.float32(0.3))}
    assert plain.noise.dtype == noisy.noise.dtype == np.float32
    noise = np.asarray(noisy.image, np.float64) - np.sqrt(1 - 0.09) * np.asarray(plain.image)
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size)
    assert abs(noise.var() / 0.09 - 1) < 4 * np.sqrt(2 / noise.size)


def test_unknown_pixels_are_0_and_a_channel_says_which():
    x_0, made = some_images(50, 8, 6, 3), inpainting()
    of, known = made.of(x_0, keys_of(50)), np.arange(48).reshape(8, 6) % 5 > 1
    given = made.given(x_0, np.broadcast_to(known, (50, 8, 6)), 0.0, keys_of(50))
    np.testing.assert_array_equal(given.image[..., 3] == 1, np.broadcast_to(known, (50, 8, 6)))
    for told in (of, given):
        says = np.asarray(told.image[..., 3])
        assert told.image.shape == (50, 8, 6, 4) and set(says.ravel()) == {-1.0, 1.0} and told.noise is None
        np.testing.assert_array_equal(told.image[..., :3], np.where(says[..., None] == 1, x_0, 0))
    assert made.needs_known and made.size((8, 6)) == (8, 6)
    assert len({image.tobytes() for image in np.asarray(of.image[..., 3])}) > 30


def test_a_rectangle_has_sides_and_a_place_that_are_uniform_and_lies_inside():
    n, size = 6000, (8, 12)
    inside = np.asarray(jax.jit(jax.vmap(lambda key: rectangle(key, size)))(keys_of(n)))
    sides = []
    for axis, side in ((1, 8), (2, 12)):
        along = inside.any(axis=3 - axis)
        lengths, first = along.sum(1), along.argmax(1)
        place = np.arange(side)
        np.testing.assert_array_equal(along, (place >= first[:, None]) & (place < (first + lengths)[:, None]))
        # A side uniform in [side / 4, side], rounded: both ends have half the share.
        shares = np.full(side - side // 4 + 1, 1.0)
        shares[[0, -1]] = 0.5
        counts = np.bincount(lengths, minlength=side + 1)
        assert counts[: side // 4].sum() == 0
        assert scipy.stats.chisquare(counts[side // 4 :], shares / shares.sum() * n).pvalue > 1e-3
        for length in (side // 4, side // 2):
            places = np.bincount(first[lengths == length], minlength=side - length + 1)
            assert len(places) == side - length + 1 and scipy.stats.chisquare(places).pvalue > 1e-3
        sides.append(lengths / side)
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    np.testing.assert_array_equal(inside, rows[:, :, None] & columns[:, None, :])
    assert abs(np.corrcoef(*sides)[0, 1]) < 4 / np.sqrt(n)
    known = 1 - inside.mean(axis=(1, 2))
    assert abs(known.mean() - (1 - 0.625**2)) < 4 * known.std() / np.sqrt(n)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: super_resolution(1), "condition.image.super_resolution.factor = 1 must be at least 2."),
        (
            lambda: super_resolution(noise=1.0),
            "condition.image.super_resolution.noise = 1.0 is not in [0, 1); cascades use up to 0.5.",
        ),
        (
            lambda: super_resolution(noise=-0.1),
            "condition.image.super_resolution.noise = -0.1 is not in [0, 1); cascades use up to 0.5.",
        ),
        (
            lambda: super_resolution(3).of(jnp.zeros((1, 6, 8, 1)), keys_of(1)),
            "images of 6 x 8 are not divided by factor 3: take another factor.",
        ),
        (
            lambda: super_resolution(2, 0.5).given(jnp.zeros((1, 4, 4, 1)), None, 0.6, keys_of(1)),
            "sampler.given_noise = 0.6 is not in [0, 0.5], the noise that the model was trained with.",
        ),
        (
            lambda: super_resolution(2).given(jnp.zeros((1, 4, 4, 1)), None, 0.1, keys_of(1)),
            "sampler.given_noise = 0.1 must be 0: the model was trained without condition.image.super_resolution.noise.",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make()
