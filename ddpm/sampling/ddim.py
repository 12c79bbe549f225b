"""DDIM."""

import jax.numpy as jnp

from ddpm.diffusion.process import Process, posterior_variance
from ddpm.errors import InputError
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler, Step


def ddim(process: Process, *, eta: float | int = 0) -> Sampler:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - v) eps_hat + sqrt(v) z, with v = eta^2 times the posterior variance.

    Args:
      eta: stochasticity in [0, 1]: 0 is deterministic, 1 is ancestral sampling with the posterior variance.
    Raises:
      InputError: eta outside [0, 1].

    Song et al. 2021 (DDIM), Eq. 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta = {eta} is not in [0, 1]: 0 is deterministic DDIM, 1 is ancestral sampling.")

    def step(denoise, x_t, t, s, keys, carry=()):
        x0_hat, eps_hat, _ = denoise(x_t, t)
        v = eta**2 * posterior_variance(process, s, t)
        x_s = process.alpha(s) * x0_hat + jnp.sqrt(jnp.maximum(process.sigma(s) ** 2 - v, 0)) * eps_hat
        return Step(x_s + jnp.sqrt(v) * normal(keys, x_t.shape[1:]) if eta else x_s)

    return Sampler(step, 1, deterministic=eta == 0)
