"""Ancestral sampling of DDPM."""

import jax.numpy as jnp

from ddpm.diffusion.process import Process, posterior_mean, posterior_variance, transition_variance
from ddpm.errors import unknown_name
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler

VARIANCES = {"beta": transition_variance, "posterior": posterior_variance}


def ancestral(process: Process, *, variance: str = "beta") -> Sampler:
    """x_s = mean of q(x_s | x_t, x0_hat) + sqrt(variance) z, without noise in the last step.

    Any pair of times s < t is a step, so any number of steps is the respaced process of improved DDPM.

    Args:
      variance: 'beta', that of q(x_t | x_s) (sigma_t^2 = beta_t; OpenAI's fixed_large; best for unit Gaussian
        data), or 'posterior', that of q(x_s | x_t, x_0) (fixed_small; best for data that are one point).
    Raises:
      InputError: another variance.

    Ho et al. 2020, Algorithm 2 and section 3.2.
    """
    if variance not in VARIANCES:
        raise unknown_name("variance", variance, VARIANCES)

    def step(denoise, x_t, t, s, keys):
        x0_hat, _ = denoise(x_t, t)
        noise_scale = jnp.where(s > 0, jnp.sqrt(VARIANCES[variance](process, s, t)), 0)
        return posterior_mean(process, x0_hat, x_t, s, t) + noise_scale * normal(keys, x_t.shape[1:])

    return Sampler(step, order=1, nfe=1)
