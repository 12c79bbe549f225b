"""Loss weights by name: what the squared error of the network's output is multiplied with.

Papers state them for errors of eps or x_0; of the output ||output - target||^2 these are, with det of prediction.py,
||eps_hat - eps||^2 = (alpha_t / det)^2 ||output - target||^2,  ||x0_hat - x_0||^2 = (sigma_t / det)^2 ||output - target||^2.

Nothing is divided by alpha_t or SNR, so that weights are finite where no signal is left and det is not 0.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddpm.diffusion import predictions
from ddpm.diffusion.prediction import Prediction, determinant
from ddpm.diffusion.process import Process, transition_variance
from ddpm.errors import check_inside
from ddpm.shapes import PerTime, Time

Weight = Callable[[Process, Prediction, Time], PerTime]


def simple() -> Weight:
    """1 for the error of eps: L_simple, whatever the network predicts.

    Ho et al. 2020, Eq. 14.
    """
    return _eps_error


def output() -> Weight:
    """1 for the error of what the network predicts, as is usual with v and in flow matching.

    Salimans and Ho 2022 (Progressive distillation), section 4; Lipman et al. 2023 (Flow matching), Eq. 23.
    """
    return lambda process, prediction, t: jnp.ones_like(process.alpha(t))


def vlb() -> Weight:
    """The bound's: the mean over uniform t of weight times error per dimension is its diffusion part in bits/dim.

    For the error of eps, levels:   T beta_t^2 / (2 sigma_t^2 (1 - beta_t) (1 - alpha_bar_t)) / ln 2,  sigma_t^2 = beta_t;
    for the error of eps, real t:   -(T - t_min) / 2 d log_snr / dt / ln 2.

    Ho et al. 2020, Eq. 12; Kingma et al. 2021 (VDM), Eq. 17.
    """

    def weight(process, prediction, t):
        if process.discrete:  # alpha_t^2 / (1 - beta_t) = alpha_{t-1}^2
            det = determinant(process, prediction, t)
            beta = transition_variance(process, t - 1, t)
            return process.T / (2 * math.log(2)) * beta * (process.alpha(t - 1) / (process.sigma(t) * det)) ** 2
        # -d log_snr / dt = 2 (alpha d sigma / dt - sigma d alpha / dt) / (alpha sigma): velocity's determinant.
        rise = determinant(process, predictions.velocity(), t) / process.sigma(t)
        det = determinant(process, prediction, t)
        return (process.T - process.t_min) / math.log(2) * rise * process.alpha(t) / det**2

    return weight


def min_snr(gamma: float | int = 5.0) -> Weight:
    """min(SNR_t, gamma) / SNR_t for the error of eps: the x_0 error's weight SNR_t, cut at gamma.

    Args:
      gamma: positive.
    Raises:
      InputError: gamma out of range.

    Hang et al. 2023 (Min-SNR), section 3.4.
    """
    check_inside(0, math.inf, usual="Min-SNR uses 5", gamma=gamma)
    return lambda process, prediction, t: jnp.minimum(_snr(process, t), gamma) * _x0_error(process, prediction, t)


def p2(gamma: float | int = 1.0, k: float | int = 1.0) -> Weight:
    """1 / (k + SNR_t)^gamma for the error of eps: less for times with next to no noise.

    Args:
      gamma, k: positive.
    Raises:
      InputError: an option out of range.

    Choi et al. 2022 (P2), Eq. 8.
    """
    check_inside(0, math.inf, usual="P2 uses gamma = 0.5 or 1 and k = 1", gamma=gamma, k=k)
    return lambda process, prediction, t: _eps_error(process, prediction, t) / (k + _snr(process, t)) ** gamma


def edm(sigma_data: float | int = 0.5) -> Weight:
    """(s^2 + d^2) / (s d)^2 for the error of x_0, with s = sigma_t / alpha_t, d = sigma_data: 1 for the edm prediction.

    Args:
      sigma_data: standard deviation of the data, positive.
    Raises:
      InputError: sigma_data out of range.

    Karras et al. 2022 (EDM), Table 1.
    """
    check_inside(0, math.inf, usual="EDM uses 0.5", sigma_data=sigma_data)

    def weight(process, prediction, t):  # multiplied out by alpha^2 / sigma^2
        variance = process.sigma(t) ** 2 + (process.alpha(t) * sigma_data) ** 2
        return variance / (sigma_data * determinant(process, prediction, t)) ** 2

    return weight


def sigmoid(bias: float | int = 2.0) -> Weight:
    """The bound's times sigmoid(bias - log_snr): less for fine detail, which nobody sees.

    Args:
      bias: the log SNR at which half of the bound's weight is left.
    Raises:
      InputError: bias out of range.

    Kingma and Gao 2023, section 4; Hoogeboom et al. 2024 (Simpler diffusion), section 3.1.
    """
    check_inside(-math.inf, math.inf, usual="Kingma and Gao use 2, Simpler diffusion -3 to -1", bias=bias)
    bound = vlb()
    return lambda process, prediction, t: bound(process, prediction, t) * jax.nn.sigmoid(bias - process.log_snr(t))


def _snr(process: Process, t: Time) -> PerTime:
    return jnp.exp(process.log_snr(t))


def _eps_error(process: Process, prediction: Prediction, t: Time) -> PerTime:
    return (process.alpha(t) / determinant(process, prediction, t)) ** 2


def _x0_error(process: Process, prediction: Prediction, t: Time) -> PerTime:
    return (process.sigma(t) / determinant(process, prediction, t)) ** 2
