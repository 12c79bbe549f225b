"""Schedules made of schedules: without signal at the end, or moved along log SNR for larger images."""

import math
from collections.abc import Callable

import jax
import numpy as np

from ddpm.errors import check_inside


def zero_terminal_snr(alpha_bar: np.ndarray) -> np.ndarray:
    """The table with its roots moved and stretched so that no signal is left at T; t = 1 keeps its own.

    sqrt(alpha_bar_t)  ->  (sqrt(alpha_bar_t) - sqrt(alpha_bar_T)) sqrt(alpha_bar_1) / (sqrt(alpha_bar_1) - sqrt(alpha_bar_T)).

    Args:
      alpha_bar: table [T + 1] of schedules.py.

    Such a process needs a network that is asked for v, x0 or velocity. Functions of continuous.py all but end so.
    Lin et al. 2024 (Common diffusion noise schedules and sample steps are flawed), Algorithm 1.
    """
    root = np.sqrt(alpha_bar[1:])
    return np.concatenate([alpha_bar[:1], ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2])


def shifted(alpha_bar: np.ndarray, ratio: float | int) -> np.ndarray:
    """The table with log SNR + 2 log(ratio): an image `ratio` times as wide is as noisy, pixel means taken, as before.

    alpha_bar_t  ->  ratio^2 alpha_bar_t / (ratio^2 alpha_bar_t + 1 - alpha_bar_t).

    Args:
      alpha_bar: table [T + 1] of schedules.py.
      ratio: the resolution that the schedule was made for, by that of the data; positive, below 1 for more noise.
    Raises:
      InputError: ratio is not positive.

    Hoogeboom et al. 2023 (simple diffusion), section 3.1.
    """
    _check(ratio)
    return ratio**2 * alpha_bar / (ratio**2 * alpha_bar + (1 - alpha_bar))


def shifted_function(
    function: Callable[[jax.Array], jax.Array], ratio: float | int
) -> Callable[[jax.Array], jax.Array]:
    """The same for a schedule of continuous.py: t -> function(t) + 2 log(ratio)."""
    _check(ratio)
    return lambda u: function(u) + 2 * math.log(ratio)


def _check(ratio):
    check_inside(0, math.inf, usual="it is the schedule's resolution by the data's, such as 64 / 256", ratio=ratio)
