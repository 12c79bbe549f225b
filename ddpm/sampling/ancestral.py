"""Ancestral sampling of DDPM."""

from collections.abc import Callable

import jax.numpy as jnp

from ddpm.diffusion.process import Process, posterior_mean
from ddpm.diffusion.variance import VARIANCES, log_variance, optimal_variance
from ddpm.errors import InputError, unknown_name
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler, Step
from ddpm.shapes import PerTime, Time


def ancestral(
    process: Process, *, variance: str = "beta", eps_power: Callable[[Time], PerTime] | None = None
) -> Sampler:
    """x_s = mean of q(x_s | x_t, x0_hat) + sqrt(variance) z, without noise in the last step.

    Any pair of times s < t is a step, so any number of steps is the respaced process of improved DDPM.

    Args:
      variance: 'beta', that of q(x_t | x_s) (sigma_t^2 = beta_t; OpenAI's fixed_large; best for unit Gaussian
        data), 'posterior', that of q(x_s | x_t, x_0) (fixed_small; best for data that are one point), 'learned',
        what the network says between the two (learned_range), or 'optimal', of Analytic-DPM.
      eps_power: of 'optimal', t -> the mean of eps_hat(x_t, t)^2 over the data and their dimensions.
    Raises:
      InputError: another variance, or 'optimal' without eps_power. step: 'learned' with a network that learns none.

    Ho et al. 2020, Algorithm 2 and section 3.2; Nichol and Dhariwal 2021, Eq. 15; Bao et al. 2022 (Analytic-DPM), Theorem 1.
    """
    if variance not in (*VARIANCES, "optimal"):
        raise unknown_name("variance", variance, (*VARIANCES, "optimal"))
    if variance == "optimal" and eps_power is None:
        raise InputError("variance 'optimal' needs eps_power, the mean square of what the network says at each time.")

    def step(denoise, x_t, t, s, keys, carry=()):
        estimate = denoise(x_t, t)
        if variance == "optimal":
            scale = jnp.sqrt(optimal_variance(process, s, t, eps_power(t)))
        else:
            scale = jnp.exp(log_variance(process, variance, s, t, estimate.fraction) / 2)
        noise = jnp.where(s > 0, scale, 0) * normal(keys, x_t.shape[1:])
        return Step(posterior_mean(process, estimate.x0, x_t, s, t) + noise)

    return Sampler(step, 1)
