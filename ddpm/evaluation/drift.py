"""Colours that drift: brightness and contrast of each channel against real images."""

import numpy as np

from ddpm.evaluation.moments import Moments
from ddpm.evaluation.points import check_same_dimension


def channel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image: sums [n, c] and sums of products [n, c, c] of its pixels' channels in [0, 1].

    Args:
      images: uint8 [n, height, width, c].
    """
    colours = images.reshape(len(images), -1, images.shape[-1]) / 255
    return colours.sum(axis=1), np.einsum("npc,npd->ncd", colours, colours)


def colours_of(sums: np.ndarray, products: np.ndarray, *, pixels: int) -> Moments:
    """Moments over all pixels of their channels, from `channel_sums` of images of so many pixels each."""
    n = len(sums) * pixels
    mean = sums.sum(axis=0) / n
    return Moments(n, mean, (products.sum(axis=0) - n * np.outer(mean, mean)) / (n - 1))


def colour_drift(generated: Moments, real: Moments) -> tuple[np.ndarray, np.ndarray]:
    """By channel: mean and standard deviation of the generated pixels minus those of the real ones, in [-1, 1].

    Raises:
      InputError: the two differ in channels.
    """
    check_same_dimension(len(generated.mean), len(real.mean))
    return generated.mean - real.mean, _spread(generated) - _spread(real)


def _spread(moments: Moments) -> np.ndarray:
    return np.sqrt(np.maximum(np.diag(moments.cov), 0))  # rounding takes that of a constant channel below
