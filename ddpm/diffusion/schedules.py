"""Noise schedules as tables of alpha_bar in float64, of length T + 1, with alpha_bar[0] = 1 (clean data).

Those that are functions of a real time are in continuous.py.
"""

import math
from collections.abc import Callable

import numpy as np

from ddpm.errors import InputError, check_inside


def linear(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> np.ndarray:
    """alpha_bar of betas that grow linearly, told for T = 1000 and scaled by 1000 / T for others.

    beta_t = (1000 / T) (beta_1 + (t - 1) / (T - 1) (beta_T - beta_1)),  alpha_bar_t = prod_{i <= t} (1 - beta_i).

    Args:
      T: number of noise levels, at least 2, and more than 1000 beta_T.
      beta_1, beta_T: variance added by the first and the last of 1000 steps, in (0, 1).
    Raises:
      InputError: T too small, or a beta outside (0, 1).

    Ho et al. 2020 (DDPM), section 4; alpha_bar is the line under Eq. 4. Nichol and Dhariwal 2021, their code (the scale).
    """
    return _of_betas(np.linspace(beta_1, beta_T, _levels(T)), beta_1, beta_T)


def quadratic(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> np.ndarray:
    """The same with sqrt(beta) growing linearly: less noise at first.

    Ho et al. 2020, their code ("quad"); latent diffusion calls it scaled linear, with 0.00085 and 0.012.
    """
    return _of_betas(np.linspace(math.sqrt(max(beta_1, 0)), math.sqrt(max(beta_T, 0)), _levels(T)) ** 2, beta_1, beta_T)


def cosine(T: int, s: float = 0.008, beta_max: float = 0.999) -> np.ndarray:
    """alpha_bar that falls as a squared cosine, its betas capped at beta_max.

    alpha_bar_t = f(t) / f(0),  f(t) = cos^2((t / T + s) / (1 + s) pi / 2),
    beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, beta_max).

    Args:
      T: number of noise levels, at least 2.
      s: offset that keeps beta_1 from being too small, in [0, 1).
      beta_max: cap that keeps the last steps from being singular, in (0, 1).
    Raises:
      InputError: T < 2, or another value out of range.

    Nichol and Dhariwal 2021 (improved DDPM), Eq. 17.
    """
    if not 0 <= s < 1:
        raise InputError(f"s = {s} is not in [0, 1); improved DDPM uses s = 0.008.")
    return _of_function(lambda u: np.cos((u + s) / (1 + s) * np.pi / 2) ** 2, T, beta_max)


def sigmoid(T: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0, beta_max: float = 0.999) -> np.ndarray:
    """alpha_bar that falls as a sigmoid, its betas capped at beta_max: more time at the ends than the cosine.

    alpha_bar_t = (S(end) - S(x)) / (S(end) - S(start)),  S(x) = sigmoid(x / tau),  x = start + (t / T) (end - start).

    Args:
      T: number of noise levels, at least 2.
      start, end: the part of the sigmoid that is used, start < end.
      tau: its temperature, positive.
      beta_max: as for the cosine.
    Raises:
      InputError: a value out of range.

    Jabri et al. 2023, section 3; Chen 2023 (On the importance of noise scheduling), section 2.2.
    """
    check_inside(-math.inf, end, usual="it must be below end: -3 and 3 are Jabri et al.'s", start=start)
    check_inside(0, math.inf, usual="Jabri et al. use 0.9 to 1.1", tau=tau)
    S = lambda x: 1 / (1 + np.exp(-x / tau))  # noqa: E731
    return _of_function(lambda u: S(end) - S(start + u * (end - start)), T, beta_max)


def sqrt(T: int, s: float = 1e-4, beta_max: float = 0.999) -> np.ndarray:
    """alpha_bar_t = f(t) / f(0),  f(t) = 1 - sqrt(t / T + s): noise comes fast at first. Betas are capped at beta_max.

    Args:
      T: number of noise levels, at least 2.
      s: offset, in (0, 1).
      beta_max: as for the cosine.
    Raises:
      InputError: a value out of range.

    Li et al. 2022 (Diffusion-LM), section 4.2 and Appendix A.
    """
    check_inside(0, 1, usual="Diffusion-LM uses 1e-4", s=s)
    return _of_function(lambda u: 1 - np.sqrt(u + s), T, beta_max)


def _of_betas(betas: np.ndarray, beta_1: float, beta_T: float) -> np.ndarray:
    check_inside(0, 1, usual="DDPM uses beta_1 = 1e-4, beta_T = 0.02", beta_1=beta_1, beta_T=beta_T)
    scaled = betas * 1000 / len(betas)
    if scaled.max() >= 1:
        raise InputError(
            f"T = {len(betas)} levels make the largest beta {scaled.max():.3g}, not below 1: use more than "
            f"{1000 * betas.max():.0f} levels, smaller betas, or the cosine schedule."
        )
    return np.concatenate([[1.0], np.cumprod(1 - scaled)])


def _of_function(f: Callable[[np.ndarray], np.ndarray], T: int, beta_max: float) -> np.ndarray:
    check_inside(0, 1, usual="improved DDPM uses 0.999", beta_max=beta_max)
    f = f(np.arange(_levels(T) + 1) / T)
    return np.concatenate([[1.0], np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], beta_max))])


def _levels(T: int) -> int:
    if T < 2:
        raise InputError(f"T = {T} noise levels are too few; a schedule needs T >= 2 (DDPM uses 1000).")
    return T
