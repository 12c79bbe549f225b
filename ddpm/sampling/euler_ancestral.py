"""The ancestral Euler sampler of k-diffusion."""

from ddpm.diffusion.process import Process
from ddpm.sampling.ddim import ddim
from ddpm.sampling.driver import Sampler


def euler_ancestral(process: Process, *, eta: float | int = 1) -> Sampler:
    """DDIM with eta: Euler's step to sigma_down, then noise of sigma_up.

    In sigma_edm = sigma / alpha, sigma_up^2 = eta^2 sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2 is the posterior variance
    over alpha_s^2, and sigma_down^2 = sigma_s^2 - sigma_up^2: DDIM's Eq. 12 and 16, and with eta = 1 ancestral sampling.

    Args:
      eta: in [0, 1].
    Raises:
      InputError: eta outside [0, 1].

    Crowson 2022 (k-diffusion), sample_euler_ancestral.
    """
    return ddim(process, eta=eta)
