"""Prediction types by name: each is the mixture a_t x_0 + b_t eps that the network is trained to say."""

import jax.numpy as jnp

from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import Process, rate
from ddpm.errors import check_inside
from ddpm.shapes import PerTime, Time


def eps() -> Prediction:
    """The noise.

    Ho et al. 2020, Eq. 12.
    """
    return Prediction(lambda process, t: (_zero(process, t), _one(process, t)))


def x0() -> Prediction:
    """The clean image.

    Ho et al. 2020, section 3.2.
    """
    return Prediction(lambda process, t: (_one(process, t), _zero(process, t)))


def v() -> Prediction:
    """alpha_t eps - sigma_t x_0: right at both ends, and for a process that ends without signal.

    Salimans and Ho 2022 (Progressive distillation), Appendix D.
    """
    return Prediction(lambda process, t: (-process.sigma(t), process.alpha(t)))


def score() -> Prediction:
    """-eps / sigma_t, the gradient of log q(x_t | x_0).

    Song et al. 2021 (score SDE), Eq. 7.
    """
    return Prediction(lambda process, t: (_zero(process, t), -1 / process.sigma(t)))


def velocity() -> Prediction:
    """dx_t / dt = (d alpha / dt) x_0 + (d sigma / dt) eps, the slope of the line from data to noise in rectified flow.

    Lipman et al. 2023 (Flow matching), Eq. 23; Liu et al. 2023 (rectified flow), Eq. 1.
    """
    return Prediction(lambda process, t: (rate(process.alpha, _real(t)), rate(process.sigma, _real(t))))


def edm(sigma_data: float = 0.5) -> Prediction:
    """F of x0_hat = c_skip x + c_out F(c_in x, c_noise), for x = x_t / alpha_t, s = sigma_t / alpha_t, d = sigma_data.

    c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2), c_noise = log(s) / 4:
    the network's input and target have variance 1 at every s, and its errors are amplified as little as can be.

    Args:
      sigma_data: standard deviation of the data, positive.

    Karras et al. 2022 (EDM), Eq. 7 and Table 1.
    """
    check_inside(0, jnp.inf, usual="EDM uses 0.5", sigma_data=sigma_data)

    def root(process, t):
        return jnp.sqrt(process.sigma(t) ** 2 + (process.alpha(t) * sigma_data) ** 2)

    return Prediction(  # multiplied out by alpha: (1 - c_skip) / c_out and -c_skip s / c_out; c_in / alpha
        mixture=lambda process, t: (
            process.sigma(t) / (sigma_data * root(process, t)),
            -sigma_data * process.alpha(t) / root(process, t),
        ),
        input_scale=lambda process, t: 1 / root(process, t),
        condition=lambda process, t: -process.log_snr(t) / 8,
    )


def _one(process: Process, t: Time) -> PerTime:
    return jnp.ones_like(process.alpha(t))


def _zero(process: Process, t: Time) -> PerTime:
    return jnp.zeros_like(process.alpha(t))


def _real(t: Time) -> PerTime:
    return jnp.asarray(t, jnp.result_type(float))
