"""Colours that drift: brightness and contrast of each channel against real images."""

import numpy as np

from ddpm.evaluation.moments import Moments
from ddpm.evaluation.points import check_same_dimension


def channel_moments(images: np.ndarray) -> Moments:
    """Moments of all pixels' colours, in [0, 1], of uint8 images [n, height, width, channels]; batches add up."""
    return Moments.of(images.reshape(-1, images.shape[-1]) / 255)


def colour_drift(generated: Moments, real: Moments) -> tuple[np.ndarray, np.ndarray]:
    """By channel: mean and standard deviation of the generated pixels minus those of the real ones, in [-1, 1].

    Raises:
      InputError: the two differ in channels.
    """
    check_same_dimension(len(generated.mean), len(real.mean))
    return generated.mean - real.mean, _spread(generated) - _spread(real)


def _spread(moments: Moments) -> np.ndarray:
    return np.sqrt(np.diag(moments.cov))
