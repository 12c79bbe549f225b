"""Heun's method of EDM, deterministic or with churn."""

import jax
import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.sampling.churn import ChurnSettings, churned, count
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import NOISE, check_form, first_order


def heun(
    process: Process,
    *,
    s_churn: float | int = 0,
    s_min: float | int = 0,
    s_max: float | int = float("inf"),
    s_noise: float | int = 1,
) -> Sampler:
    """Euler's step in sigma_edm = sigma / alpha, then the mean of the slopes at its two ends. The step to no noise is Euler's.

    d_t = eps_hat(x_t, t),  x' = x_t + (sigma_edm_s - sigma_edm_t) d_t,  x_s = x_t + (sigma_edm_s - sigma_edm_t) (d_t + d_s) / 2

    for x / alpha in place of x, d_s = eps_hat(x', s). With s_churn > 0 each step first adds noise, see churn.py.

    Args:
      s_churn, s_min, s_max, s_noise: as of churn.py.
    Raises:
      InputError: one of them out of range, or a process without signal at T.

    Karras et al. 2022 (EDM), Algorithms 1 and 2.
    """
    churn = ChurnSettings(s_churn, s_min, s_max, s_noise)
    check_form(process, NOISE)

    def euler_step(x_t, d, t, s):
        return first_order(NOISE, process, x_t, d, t, s)

    def step(denoise, x_t, t, s, keys, num_steps):
        x_t, t = churned(churn, process, x_t, t, keys, num_steps)
        d_t = denoise(x_t, t).eps
        x_s = euler_step(x_t, d_t, t, s)
        noisy = process.sigma(s) > 0
        x_s = jax.lax.cond(
            noisy,
            lambda: euler_step(x_t, (d_t + denoise(x_s, s).eps) / 2, t, s),
            lambda: x_s,
        )
        return Step(x_s, jnp.where(noisy, 2, 1), num_steps)

    return Sampler(step, 2 if s_churn == 0 else 1, count, deterministic=s_churn == 0)
