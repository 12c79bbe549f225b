"""The forward process x_t = alpha_t x_0 + sigma_t eps, and its posterior."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ddpm.errors import InputError
from ddpm.shapes import Data, PerTime, Time, over

MAX_FINAL_ALPHA_BAR = 0.01  # Stable Diffusion's 0.0047 is the largest in common use


@dataclasses.dataclass(frozen=True, eq=False)
class VP:
    """The variance-preserving process of a table: alpha_t = sqrt(alpha_bar_t), sigma_t = sqrt(1 - alpha_bar_t).

    Args:
      alpha_bar: float64 table [T + 1], 1 at t = 0, strictly falling, near 0 at t = T (sampling starts from N(0, I)).
    Raises:
      InputError: a table that is not so.

    Ho et al. 2020, Eq. 4.
    """

    alpha_bar: np.ndarray

    def __post_init__(self):
        a = self.alpha_bar
        if a.ndim != 1 or len(a) < 3 or a[0] != 1:
            raise InputError(f"alpha_bar of shape {a.shape} is no table of T + 1 >= 3 values that starts with 1.")
        if not (np.diff(a) < 0).all() or a[-1] < 0:
            raise InputError("alpha_bar must fall strictly from 1 and stay >= 0; check the schedule's betas.")
        if a[-1] > MAX_FINAL_ALPHA_BAR:
            raise InputError(
                f"alpha_bar_T = {a[-1]:.4g} leaves signal in x_T, but sampling starts from pure noise: it must be at "
                f"most {MAX_FINAL_ALPHA_BAR}. Use more noise levels (T = {self.T}), larger betas, or the cosine schedule."
            )

    @property
    def T(self) -> int:
        """The number of noise levels; times are the integers 0..T, and 0 is data."""
        return len(self.alpha_bar) - 1

    def alpha(self, t: Time) -> PerTime:
        """The signal's amplitude sqrt(alpha_bar_t)."""
        return jnp.asarray(np.sqrt(self.alpha_bar))[t]

    def sigma(self, t: Time) -> PerTime:
        """The noise's amplitude sqrt(1 - alpha_bar_t)."""
        return jnp.asarray(np.sqrt(1 - self.alpha_bar))[t]

    def log_snr(self, t: Time) -> PerTime:
        """log(alpha_t^2 / sigma_t^2): falls in t, +inf at t = 0."""
        with np.errstate(divide="ignore"):
            return jnp.asarray(np.log(self.alpha_bar) - np.log1p(-self.alpha_bar))[t]


def diffuse(process: VP, x_0: Data, t: Time, eps: Data) -> Data:
    """A draw of q(x_t | x_0) from unit noise: x_t = alpha_t x_0 + sigma_t eps.

    Args:
      x_0: data [batch, *dims] in [-1, 1].
      t: times in 0..T, [batch] or one for all.
      eps: unit Gaussian noise, shaped as x_0.

    Ho et al. 2020, Eq. 4.
    """
    return over(process.alpha(t), x_0) * x_0 + over(process.sigma(t), x_0) * eps


def transition_variance(process: VP, s: Time, t: Time) -> PerTime:
    """The variance of q(x_t | x_s) for s < t; it is beta_t where s = t - 1.

    sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2 = sigma_t^2 (1 - SNR_t / SNR_s).

    Ho et al. 2020, Eq. 2, composed over the steps from s to t.
    """
    return process.sigma(t) ** 2 * -jnp.expm1(process.log_snr(t) - process.log_snr(s))


def posterior_variance(process: VP, s: Time, t: Time) -> PerTime:
    """The variance of q(x_s | x_t, x_0) for s < t: sigma_s^2 / sigma_t^2 times that of q(x_t | x_s).

    Ho et al. 2020, Eq. 7 (beta tilde).
    """
    return (process.sigma(s) / process.sigma(t)) ** 2 * transition_variance(process, s, t)


def posterior_mean(process: VP, x_0: Data, x_t: Data, s: Time, t: Time) -> Data:
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
