"""The variance of p_theta(x_s | x_t) by name."""

import jax.numpy as jnp

from ddpm.diffusion.process import Process, posterior_variance, transition_variance
from ddpm.errors import InputError, unknown_name
from ddpm.shapes import Data, PerTime, Time, over

VARIANCES = ("beta", "posterior", "learned")


def check(name: str) -> None:
    """Raises InputError for a name that is not in VARIANCES."""
    if name not in VARIANCES:
        raise unknown_name("variance", name, VARIANCES)


def check_learned(name: str, learned: bool) -> None:
    """Refuses a learned variance of a network that learns none.

    Raises:
      InputError: such a variance, or an unknown name.
    """
    check(name)
    if name == "learned" and not learned:
        raise InputError(
            "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss "
            "hybrid or vlb, whose networks have twice the channels."
        )


def log_variance(process: Process, name: str, s: Time, t: Time, fraction: Data | None = None) -> PerTime | Data:
    """Log variance of p_theta(x_s | x_t) for s < t.

    'beta':       that of q(x_t | x_s), the largest that is sensible: right for unit Gaussian data.
    'posterior':  that of q(x_s | x_t, x_0), the least: right for data that are one point.
    'learned':    fraction log(beta) + (1 - fraction) log(posterior).

    At s = 0 the posterior variance is zero: there that of the pair (t, 2t) is taken, for 'beta' too, and for the lower
    end of 'learned'; where t = T leaves no such pair, beta.

    Args:
      s, t: times in 0..T with s < t, [batch] or one for all.
      fraction: of a learned variance [batch, *dims], usually but not always in [0, 1].
    Returns:
      One for each time; [batch, *dims] if learned.
    Raises:
      InputError: an unknown name, or 'learned' without a fraction.

    Ho et al. 2020, section 3.2; Nichol and Dhariwal 2021, Eq. 15, with the clipping at s = 0 of their code.
    """
    check_learned(name, fraction is not None)
    log_posterior = jnp.log(_posterior(process, s, t))
    if name == "posterior":
        return log_posterior
    log_beta = jnp.log(transition_variance(process, s, t))
    if name == "beta":
        return jnp.where(posterior_variance(process, s, t) > 0, log_beta, log_posterior)
    return fraction * over(log_beta, fraction) + (1 - fraction) * over(log_posterior, fraction)


def _posterior(process, s, t):
    """The posterior variance, of the pair (t, 2t) where it is zero, and beta where 2t is no later time."""
    later = jnp.minimum(2 * jnp.asarray(t), process.T)
    moved = (posterior_variance(process, s, t) == 0) & (later > t)
    s, t = jnp.where(moved, t, s), jnp.where(moved, later, t)
    variance = posterior_variance(process, s, t)
    return jnp.where(variance > 0, variance, transition_variance(process, s, t))


def optimal_variance(process: Process, s: Time, t: Time, eps_power: PerTime) -> PerTime:
    """The variance that makes p_theta(x_s | x_t) right for the data: posterior variance + c^2 sigma_t^2 / alpha_t^2 (1 - eps_power).

    c is the posterior mean's factor of x_0, and the rest the mean variance of x_0 given x_t: at most 1 for data in [-1, 1],
    which bounds what a network that is no exact model says where next to no signal is left.

    Args:
      eps_power: the mean of E[eps | x_t]^2 over the data and their dimensions, in [0, 1].

    Bao et al. 2022 (Analytic-DPM), Theorem 1, and 2 for the bounds.
    """
    c = process.alpha(s) * transition_variance(process, s, t) / process.sigma(t) ** 2
    of_x_0 = jnp.minimum(jnp.exp(-process.log_snr(t)) * (1 - jnp.clip(eps_power, 0, 1)), 1)
    return posterior_variance(process, s, t) + c**2 * of_x_0
