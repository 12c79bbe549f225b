"""Euler's method of EDM and k-diffusion, deterministic or with churn."""

from ddpm.diffusion.process import Process
from ddpm.sampling.churn import ChurnSettings, churned, count
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import NOISE, check_form


def euler(
    process: Process,
    *,
    s_churn: float | int = 0,
    s_min: float | int = 0,
    s_max: float | int = float("inf"),
    s_noise: float | int = 1,
) -> Sampler:
    """Euler's step in sigma_edm = sigma / alpha, of x / alpha; without churn it is DDIM.

    x_s / alpha_s = x_t / alpha_t + (sigma_edm_s - sigma_edm_t) eps_hat = x0_hat + sigma_edm_s eps_hat

    Args:
      s_churn, s_min, s_max, s_noise: as of churn.py.
    Raises:
      InputError: one of them out of range.

    Karras et al. 2022 (EDM), Algorithm 2 without lines 7 and 8.
    """
    churn = ChurnSettings(s_churn, s_min, s_max, s_noise)
    if s_churn:
        check_form(process, NOISE)

    def step(denoise, x_t, t, s, keys, num_steps):
        x_t, t = churned(churn, process, x_t, t, keys, num_steps)
        x0_hat, eps_hat, _ = denoise(x_t, t)
        return Step(process.alpha(s) * x0_hat + process.sigma(s) * eps_hat, carry=num_steps)

    return Sampler(step, 1, count, deterministic=s_churn == 0)
