"""The peak signal-to-noise ratio."""

import jax.numpy as jnp

from ddpm.shapes import Images, PerExample

ROUNDING = 4 / 255**2 / 12  # mean squared error of rounding to a level, of images in [-1, 1]


def psnr(x: Images, x_hat: Images) -> PerExample:
    """10 log10(4 / mean (x - x_hat)^2) of each image in [-1, 1], in decibels; 4 is the square of the range.

    x_hat is clipped. No error counts as less than that of rounding, so that a blank image is not infinitely good.
    """
    error = jnp.mean((x - jnp.clip(x_hat, -1, 1)) ** 2, axis=(1, 2, 3))
    return 10 * jnp.log10(4 / jnp.maximum(error, ROUNDING))
