"""Ancestral sampling of DDPM."""

import jax.numpy as jnp

from ddpm.diffusion.process import Process, posterior_mean
from ddpm.diffusion.variance import check, log_variance
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler


def ancestral(process: Process, *, variance: str = "beta") -> Sampler:
    """x_s = mean of q(x_s | x_t, x0_hat) + sqrt(variance) z, without noise in the last step.

    Any pair of times s < t is a step, so any number of steps is the respaced process of improved DDPM.

    Args:
      variance: 'beta', that of q(x_t | x_s) (sigma_t^2 = beta_t; OpenAI's fixed_large; best for unit Gaussian
        data), 'posterior', that of q(x_s | x_t, x_0) (fixed_small; best for data that are one point), or 'learned',
        what the network says between the two (learned_range).
    Raises:
      InputError: another variance. step: 'learned' with a network that learns none.

    Ho et al. 2020, Algorithm 2 and section 3.2; Nichol and Dhariwal 2021, Eq. 15.
    """
    check(variance)

    def step(denoise, x_t, t, s, keys):
        estimate = denoise(x_t, t)
        log_var = log_variance(process, variance, s, t, estimate.fraction)
        noise_scale = jnp.where(s > 0, jnp.exp(log_var / 2), 0)
        return posterior_mean(process, estimate.x0, x_t, s, t) + noise_scale * normal(keys, x_t.shape[1:])

    return Sampler(step, order=1, nfe=1)
