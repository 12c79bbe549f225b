"""Where in time the steps of a sampler lie: num_steps + 1 times from T, the noise, down to 0, the data."""

import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.process import Process
from ddpm.errors import InputError, check_at_least, check_inside


def uniform(process: Process, num_steps: int) -> np.ndarray:
    """Evenly spaced ("trailing"): t_i = T (1 - i / num_steps), rounded where times are integers.

    Raises:
      InputError: num_steps < 1, or more steps than there are noise levels.

    Lin et al. 2024 (Common diffusion noise schedules and sample steps are flawed), section 3.3.
    """
    if not process.discrete:
        check_at_least(1, num_steps=num_steps)
        return np.linspace(process.T, 0, num_steps + 1)
    if not 1 <= num_steps <= process.T:
        raise InputError(
            f"num_steps = {num_steps} is not in 1..{process.T}: a process of T = {process.T} levels has no more steps."
        )
    return np.round(np.linspace(process.T, 0, num_steps + 1)).astype(np.int32)


def log_snr(process: Process, num_steps: int) -> np.ndarray:
    """Evenly spaced in log SNR from T to t_min, then 0: the last step says what is data.

    Raises:
      InputError: num_steps < 1, or no signal at t = T.

    Lu et al. 2022 (DPM-Solver), section 3.4.
    """
    first, last = _ends(process, num_steps)
    return _times(process, np.linspace(first, last, num_steps))


def karras(process: Process, num_steps: int, rho: float | int = 7) -> np.ndarray:
    """sigma / alpha = (s_max^(1 / rho) + i / (num_steps - 1) (s_min^(1 / rho) - s_max^(1 / rho)))^rho, then 0.

    Args:
      rho: how much shorter steps are at low noise; positive.
    Raises:
      InputError: as for log_snr.

    Karras et al. 2022 (EDM), Eq. 5.
    """
    check_inside(0, np.inf, usual="EDM uses 7", rho=rho)
    first, last = _ends(process, num_steps)
    sigmas = np.linspace(np.exp(-first / 2 / rho), np.exp(-last / 2 / rho), num_steps) ** rho
    return _times(process, -2 * np.log(sigmas))


def _ends(process: Process, num_steps: int) -> tuple[float, float]:
    check_at_least(1, num_steps=num_steps)
    first, last = float(process.log_snr(process.T)), float(process.log_snr(process.t_min))
    if not np.isfinite([first, last]).all():
        raise InputError(f"log SNR runs from {first:g} to {last:g}: no grid of it is finite. Use the uniform grid.")
    return first, last


def _times(process: Process, log_snrs: np.ndarray) -> np.ndarray:
    inner = np.asarray(process.time(jnp.asarray(log_snrs[1:-1], jnp.result_type(float))), np.float64)
    return np.concatenate([[process.T], inner, [process.t_min] * (len(log_snrs) > 1), [0.0]])
