"""The Euler-Maruyama method for the reverse SDE."""

import jax.numpy as jnp

from ddpm.diffusion.process import Process, diffusion_squared, drift
from ddpm.errors import InputError
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import NOISE, check_form


def euler_maruyama(process: Process) -> Sampler:
    """x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) z, without noise in the step to t = 0.

    Raises:
      InputError: a process of levels, which has no drift, or one without signal at T, whose drift is infinite.

    Song et al. 2021 (score SDE), Eq. 6.
    """
    check_sde(process, "euler_maruyama")
    check_form(process, NOISE)

    def step(denoise, x_t, t, s, keys, carry=()):
        score = -denoise(x_t, t).eps / process.sigma(t)
        f, g_squared = drift(process, t), diffusion_squared(process, t)
        x_s = x_t - (f * x_t - g_squared * score) * (t - s)
        noise = jnp.sqrt(g_squared * (t - s)) * normal(keys, x_t.shape[1:])
        return Step(x_s + jnp.where(s > 0, noise, 0))

    return Sampler(step, 1)


def check_sde(process: Process, name: str) -> None:
    """Raises InputError for a process of levels."""
    if process.discrete:
        raise InputError(
            f"{name} follows an SDE in real time, and this process has levels only: use ancestral or ddim, or "
            "train with the process ContinuousVP, SubVP or VE."
        )
