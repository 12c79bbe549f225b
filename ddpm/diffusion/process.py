"""The forward process x_t = alpha_t x_0 + sigma_t eps: all that follows from alpha and sigma, for any process."""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddpm.shapes import Data, PerTime, Time, over

BISECTIONS = 60


class Process(abc.ABC):
    """alpha_t, sigma_t and log SNR for times t in [0, T]. One of processes/ is a few lines more.

    T: the time of pure noise.
    t_min: the least time that training and sampling see; at smaller ones there is next to no noise to predict.
    discrete: times are the integers 1..T.
    prior_scale: standard deviation of the noise that sampling starts from.
    """

    T: float
    t_min: float
    discrete: bool = False
    prior_scale: float = 1.0

    @abc.abstractmethod
    def alpha(self, t: Time) -> PerTime:
        """The signal's amplitude."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> PerTime:
        """The noise's amplitude."""

    @abc.abstractmethod
    def log_snr(self, t: Time) -> PerTime:
        """log(alpha_t^2 / sigma_t^2): falls in t."""

    def fraction(self, t: Time) -> PerTime:
        """How far the noise has come, from 0 to 1: t / T."""
        return jnp.asarray(t) / self.T

    def seen(self, t: Time) -> PerTime:
        """The time as networks see it: 1000 times the fraction."""
        return 1000 * self.fraction(t)

    def time(self, log_snr: PerTime) -> PerTime:
        """The real t in [t_min, T] of a log SNR, by bisection."""

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            later = self.log_snr(middle) > log_snr
            return jnp.where(later, middle, low), jnp.where(later, high, middle)

        log_snr = jnp.asarray(log_snr)
        bounds = jnp.full_like(log_snr, self.t_min), jnp.full_like(log_snr, self.T)
        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, bounds)
        return (low + high) / 2


class Noiseless(Process):
    """A process that has no noise at t = 0, where it is x_0; VE and learned ones keep some, and samples are to be data.

    The last step of a solver is then to x0_hat, as score SDE's denoising step.

    Song et al. 2021 (score SDE), their code's `denoise`.
    """

    def __init__(self, process: Process):
        self._process = process
        self.T, self.t_min, self.discrete = process.T, process.t_min, process.discrete
        self.prior_scale = process.prior_scale

    def alpha(self, t: Time) -> PerTime:
        return jnp.where(jnp.asarray(t) > 0, self._process.alpha(t), 1)

    def sigma(self, t: Time) -> PerTime:
        return jnp.where(jnp.asarray(t) > 0, self._process.sigma(t), 0)

    def log_snr(self, t: Time) -> PerTime:
        return jnp.where(jnp.asarray(t) > 0, self._process.log_snr(t), jnp.inf)


def rate(function: Callable[[Time], PerTime], t: PerTime) -> PerTime:
    """The derivative of alpha, sigma or log_snr at real times."""
    t = jnp.asarray(t)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


def drift(process: Process, t: PerTime) -> PerTime:
    """f in dx = f(t) x dt + g(t) dw: d log(alpha_t) / dt.

    Kingma et al. 2021 (VDM), Eq. 21; Song et al. 2021 (score SDE), Eq. 29 to 33 are its cases.
    """
    return rate(process.alpha, t) / process.alpha(t)


def diffusion_squared(process: Process, t: PerTime) -> PerTime:
    """g^2 in dx = f(t) x dt + g(t) dw: d sigma_t^2 / dt - 2 f sigma_t^2 = -sigma_t^2 d log_snr / dt.

    Kingma et al. 2021 (VDM), Eq. 21.
    """
    return -(process.sigma(t) ** 2) * rate(process.log_snr, t)


def diffuse(process: Process, x_0: Data, t: Time, eps: Data) -> Data:
    """A draw of q(x_t | x_0) from unit noise: x_t = alpha_t x_0 + sigma_t eps.

    Args:
      x_0: data [batch, *dims] in [-1, 1].
      t: times in 0..T, [batch] or one for all.
      eps: unit Gaussian noise, shaped as x_0.

    Ho et al. 2020, Eq. 4.
    """
    return over(process.alpha(t), x_0) * x_0 + over(process.sigma(t), x_0) * eps


def transition_variance(process: Process, s: Time, t: Time) -> PerTime:
    """The variance of q(x_t | x_s) for s < t; it is beta_t where s = t - 1.

    sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2 = sigma_t^2 (1 - SNR_t / SNR_s).

    Ho et al. 2020, Eq. 2, composed over the steps from s to t.
    """
    return process.sigma(t) ** 2 * -jnp.expm1(process.log_snr(t) - process.log_snr(s))


def posterior_variance(process: Process, s: Time, t: Time) -> PerTime:
    """The variance of q(x_s | x_t, x_0) for s < t: sigma_s^2 / sigma_t^2 times that of q(x_t | x_s).

    Ho et al. 2020, Eq. 7 (beta tilde).
    """
    return (process.sigma(s) / process.sigma(t)) ** 2 * transition_variance(process, s, t)


def posterior_mean(process: Process, x_0: Data, x_t: Data, s: Time, t: Time) -> Data:
    """The mean of q(x_s | x_t, x_0) for s < t.

    alpha_s beta_{t|s} / sigma_t^2 x_0  +  (alpha_t / alpha_s) sigma_s^2 / sigma_t^2 x_t.

    Args:
      x_0, x_t: data and noised data [batch, *dims].
      s, t: times in 0..T with s < t, [batch] or one for all.

    Ho et al. 2020, Eq. 7 (mu tilde), for any pair of times.
    """
    variance_t = process.sigma(t) ** 2
    of_x_0 = process.alpha(s) * transition_variance(process, s, t) / variance_t
    of_x_t = process.alpha(t) / process.alpha(s) * process.sigma(s) ** 2 / variance_t
    return over(of_x_0, x_0) * x_0 + over(of_x_t, x_t) * x_t
