import numpy as np
import pytest

from ddpm.errors import InputError
from ddpm.evaluation.drift import channel_sums, colour_drift, colours_of
from ddpm.evaluation.sharpness import sharpness


def channel_moments(images):
    return colours_of(*channel_sums(images), pixels=images.shape[1] * images.shape[2])


def test_drift_of_a_tint_and_of_a_lost_contrast():
    real = np.zeros((2, 4, 4, 3), np.uint8)
    real[:, :2] = 200  # half 0, half 200: mean 100, deviation 100 sqrt(32 / 31)
    generated = real.copy()
    generated[..., 0] += 51  # red, by a fifth of the range
    generated[..., 2] = 100
    mean, spread = colour_drift(channel_moments(generated), channel_moments(real))
    np.testing.assert_allclose(mean, [0.2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(spread, [0, 0, -100 / 255 * np.sqrt(32 / 31)], atol=1e-12)


def test_moments_of_colours_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    moments, pixels = channel_moments(images), images.reshape(-1, 3) / 255
    assert moments.n == 6 * 5 * 4
    np.testing.assert_allclose(moments.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(pixels.T), rtol=1e-10)


def test_grey_and_coloured_images_do_not_compare():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="^1 and 3 features an image cannot be compared"):
        colour_drift(channel_moments(images[..., :1]), channel_moments(images))


def test_sharpness_of_a_ramp_a_parabola_and_a_chessboard():
    i, j = np.indices((9, 9))
    images = np.stack([10 * i + 3 * j, i**2 + j**2, 255 * ((i + j) % 2)])[..., None].astype(np.uint8)
    # Second differences: 0; 2 + 2; 4 neighbours of the other colour, so 4 pixel ranges.
    np.testing.assert_allclose(sharpness(images), [0, (4 / 255) ** 2, 16], atol=1e-12)


def test_sharpness_of_white_noise():
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    assert sharpness(images).mean() == pytest.approx(20 * (256**2 - 1) / 12 / 255**2, rel=0.02)


def test_images_without_an_inner_pixel_are_refused():
    with pytest.raises(InputError, match="^images of 2 x 5 have no inner pixel; take 3 x 3 or larger.$"):
        sharpness(np.zeros((1, 2, 5, 1), np.uint8))
