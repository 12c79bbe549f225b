"""DPM-Solver, in eps_hat."""

from ddpm.diffusion.process import Process
from ddpm.sampling.driver import Sampler
from ddpm.sampling.exponential import NOISE, singlestep


def dpm_solver(process: Process, *, order: int = 2) -> Sampler:
    """DPM-Solver-1, -2 and -3: as many network evaluations a step as its order; order 1 is DDIM.

    Args:
      order: 1, 2 or 3.
    Raises:
      InputError: another order, or a process without signal at T.

    Lu et al. 2022 (DPM-Solver), Algorithms 1 and 2.
    """
    return singlestep(process, NOISE, order)
