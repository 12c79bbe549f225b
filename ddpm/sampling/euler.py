"""Euler's method of EDM and k-diffusion, deterministic or with churn."""

from ddpm.diffusion.process import Process
from ddpm.sampling.churn import ChurnSettings, churned, count
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import NOISE, first_order
from ddpm.shapes import Data, Time


def euler(
    process: Process,
    *,
    s_churn: float | int = 0,
    s_min: float | int = 0,
    s_max: float | int = float("inf"),
    s_noise: float | int = 1,
) -> Sampler:
    """Euler's step in sigma_edm = sigma / alpha, of x / alpha; without churn it is DDIM.

    Args:
      s_churn, s_min, s_max, s_noise: as of churn.py.
    Raises:
      InputError: one of them out of range.

    Karras et al. 2022 (EDM), Algorithm 2 without lines 7 and 8.
    """
    churn = ChurnSettings(s_churn, s_min, s_max, s_noise)

    def step(denoise, x_t, t, s, keys, num_steps):
        x_t, t = churned(churn, process, x_t, t, keys, num_steps)
        return Step(euler_step(process, x_t, denoise(x_t, t).eps, t, s), carry=num_steps)

    return Sampler(step, 1, count, deterministic=s_churn == 0)


def euler_step(process: Process, x_t: Data, d: Data, t: Time, s: Time) -> Data:
    """x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) d.

    Karras et al. 2022 (EDM), Algorithm 1, line 5.
    """
    return first_order(NOISE, process, x_t, d, t, s)
