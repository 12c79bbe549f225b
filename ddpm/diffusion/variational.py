"""The variational bound on -log p(x_0), term by term, in bits per dimension.

-log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) + sum over pairs s < t, s > 0, of E KL(q(x_s | x_t, x_0) || p(x_s | x_t))
               - E log p(x_0 | x_t) for the pair with s = 0.

Ho et al. 2020, Eq. 5.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.gaussian import discretised_log_likelihood, kl
from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.process import Process, diffuse, posterior_mean
from ddpm.diffusion.variance import check_learned as _check_learned
from ddpm.diffusion.variance import log_variance
from ddpm.errors import InputError
from ddpm.shapes import Data, PerExample, Time, over


def prior_bpd(process: Process, x_0: Data) -> PerExample:
    """KL(q(x_T | x_0) || N(0, prior_scale^2 I)): what is paid for the signal left at t = T.

    Args:
      x_0: data [batch, *dims] in [-1, 1].

    Ho et al. 2020, Eq. 5 (L_T).
    """
    log_variance_T = jnp.full_like(x_0, 2 * jnp.log(process.sigma(process.T)))
    prior = jnp.full_like(x_0, 2 * math.log(process.prior_scale))
    return _bits(kl(over(process.alpha(process.T), x_0) * x_0, log_variance_T, jnp.zeros_like(x_0), prior))


def term_bpd(
    model: Model,
    variance: str,
    x_0: Data,
    eps: Data,
    s: Time,
    t: Time,
    *,
    tanh: bool = False,
    stop_mean: bool = False,
) -> PerExample:
    """The term of the pair s < t, at the x_t that x_0 and eps make.

    KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)) where s > 0, -log p_theta(x_0 | x_t) where s = 0.

    Args:
      variance: a name of variance.py.
      x_0: data [batch, *dims], of 256 levels in [-1, 1].
      eps: unit Gaussian noise, shaped as x_0.
      s, t: times in 0..T with s < t, [batch] or one for all.
      tanh: OpenAI's approximation of log p_theta(x_0 | x_t).
      stop_mean: no gradient through p_theta's mean, so that the term trains the variance alone.
    Raises:
      InputError: a learned variance of a model that learns none; data outside [-1, 1].

    Ho et al. 2020, Eq. 5 (L_{t-1}, L_0); Nichol and Dhariwal 2021, section 3.1 (stop_mean).
    """
    check_data(x_0)
    x_t = diffuse(model.process, x_0, t, eps)
    return term_of_estimate(model.process, variance, model(x_t, t), x_0, x_t, s, t, tanh=tanh, stop_mean=stop_mean)


def term_of_estimate(
    process: Process,
    variance: str,
    estimate: Estimate,
    x_0: Data,
    x_t: Data,
    s: Time,
    t: Time,
    *,
    tanh: bool = False,
    stop_mean: bool = False,
) -> PerExample:
    """The same for what a model took x_t for."""
    mean = posterior_mean(process, estimate.x0, x_t, s, t)
    mean = jax.lax.stop_gradient(mean) if stop_mean else mean
    log_variances = log_variance(process, "posterior", s, t), log_variance(process, variance, s, t, estimate.fraction)
    true, ours = (jnp.broadcast_to(over(v, x_0), x_0.shape) for v in log_variances)
    divergence = kl(posterior_mean(process, x_0, x_t, s, t), true, mean, ours)
    of_data = -discretised_log_likelihood(x_0, mean, ours, tanh=tanh)
    return _bits(jnp.where(over(jnp.asarray(s) == 0, x_0), of_data, divergence))


def check_data(x_0: Data) -> None:
    """Refuses data that are not where the levels are; of traced ones, nothing is known.

    Raises:
      InputError: data outside [-1, 1].
    """
    if isinstance(x_0, jax.core.Tracer):
        return
    low, high = np.asarray(x_0).min(), np.asarray(x_0).max()
    if not -1 <= low <= high <= 1:
        raise InputError(
            f"data reach from {low:.4g} to {high:.4g}, but the 256 levels are in [-1, 1]: "
            "scale bytes by to_images of ddpm/data/pixels.py."
        )


def check_learned(model: Model, variance: str) -> None:
    """Refuses a learned variance of a model that learns none.

    Raises:
      InputError: such a variance, or an unknown name.
    """
    _check_learned(variance, model.learned_variance)


def _bits(nats: Data) -> PerExample:
    return jnp.mean(nats, axis=tuple(range(1, nats.ndim))) / math.log(2)
