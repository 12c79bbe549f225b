"""Noise schedules: tables of alpha_bar in float64, of length T + 1, with alpha_bar[0] = 1 (clean data)."""

import numpy as np

from ddpm.errors import InputError


def linear(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> np.ndarray:
    """alpha_bar of betas that grow linearly from beta_1 to beta_T.

    beta_t = beta_1 + (t - 1) / (T - 1) (beta_T - beta_1),  alpha_bar_t = prod_{i <= t} (1 - beta_i).

    Args:
      T: number of noise levels, at least 2.
      beta_1: variance added by the first step, in (0, 1).
      beta_T: variance added by the last step, in (0, 1).
    Raises:
      InputError: T < 2, or a beta outside (0, 1).

    Ho et al. 2020 (DDPM), section 4; alpha_bar is the line under Eq. 4.
    """
    _check_T(T)
    for name, beta in (("beta_1", beta_1), ("beta_T", beta_T)):
        if not 0 < beta < 1:
            raise InputError(f"{name} = {beta} is not in (0, 1); DDPM uses beta_1 = 1e-4, beta_T = 0.02.")
    return _alpha_bar(np.linspace(beta_1, beta_T, T, dtype=np.float64))


def cosine(T: int, s: float = 0.008, beta_max: float = 0.999) -> np.ndarray:
    """alpha_bar that falls as a squared cosine, its betas capped at beta_max.

    alpha_bar_t = f(t) / f(0),  f(t) = cos^2((t / T + s) / (1 + s) pi / 2),
    beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, beta_max).

    Args:
      T: number of noise levels, at least 2.
      s: offset that keeps beta_1 from being too small, at least 0.
      beta_max: cap that keeps the last steps from being singular, in (0, 1).
    Raises:
      InputError: T < 2, s < 0, or beta_max outside (0, 1).

    Nichol and Dhariwal 2021 (improved DDPM), Eq. 17.
    """
    _check_T(T)
    if s < 0:
        raise InputError(f"s = {s} is negative; improved DDPM uses s = 0.008.")
    if not 0 < beta_max < 1:
        raise InputError(f"beta_max = {beta_max} is not in (0, 1); improved DDPM uses 0.999.")
    f = np.cos((np.arange(T + 1, dtype=np.float64) / T + s) / (1 + s) * np.pi / 2) ** 2
    return _alpha_bar(np.minimum(1 - f[1:] / f[:-1], beta_max))


def _alpha_bar(beta: np.ndarray) -> np.ndarray:
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def _check_T(T: int) -> None:
    if T < 2:
        raise InputError(f"T = {T} noise levels are too few; a schedule needs T >= 2 (DDPM uses 1000).")
