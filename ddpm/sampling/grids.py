"""Where in time the steps of a sampler lie: num_steps + 1 times from T, the noise, down to 0 or t_min, the data.

With `final` 'zero' the last step leads to t = 0, without noise; with 'sigma_min' to t_min, the least noise the model knows.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.process import Process
from ddpm.errors import InputError, check_at_least, check_inside, unknown_name

FINALS = ("zero", "sigma_min")
LOG_SNR_MIN = -10.2  # a little less than that of the linear schedule at T
ROUNDING = 1e-5


def trailing(process: Process, num_steps: int, *, final: str = "zero") -> np.ndarray:
    """Evenly spaced: t_i = T (1 - i / num_steps), rounded where times are integers; with 'sigma_min' evenly down to t_min.

    Raises:
      InputError: num_steps < 1, or more steps than there are noise levels.

    Lin et al. 2024 (Common diffusion noise schedules and sample steps are flawed), section 3.3.
    """
    _check(process, num_steps, final)
    return _whole(process, np.linspace(process.T, _end(process, final), num_steps + 1))


def leading(process: Process, num_steps: int, *, final: str = "zero") -> np.ndarray:
    """Multiples of a stride from the data up, t_i = t_min + (num_steps - 1 - i) stride: with 'zero' T itself is left out.

    The stride is T // num_steps of levels, as in the code of DDIM and improved DDPM, else (T - t_min) / num_steps.

    Raises:
      InputError: as for trailing.

    Song et al. 2021 (DDIM), Appendix D.2 (linear).
    """
    _check(process, num_steps, final)
    room = process.T - (process.t_min if final != "zero" or not process.discrete else 0)
    stride = room // num_steps if process.discrete else room / num_steps
    times = process.t_min + stride * np.arange(_inner(num_steps, final))[::-1]
    return _ended(process, final, times)


def linspace(process: Process, num_steps: int, *, final: str = "zero") -> np.ndarray:
    """Evenly spaced from T to t_min, both included, then the last step.

    Raises:
      InputError: as for trailing.

    Lin et al. 2024, Table 2.
    """
    _check(process, num_steps, final)
    return _ended(process, final, np.linspace(process.T, process.t_min, _inner(num_steps, final)))


def quadratic(process: Process, num_steps: int, *, final: str = "zero") -> np.ndarray:
    """Squares of evenly spaced numbers, shorter steps at low noise: sqrt(t_i) falls evenly from sqrt(T) to sqrt(t_min), then the last step.

    Raises:
      InputError: as for trailing.

    Song et al. 2021 (DDIM), Appendix D.2 (quadratic), from T rather than from 0.8 T.
    """
    _check(process, num_steps, final)
    times = np.linspace(process.T**0.5, process.t_min**0.5, _inner(num_steps, final)) ** 2
    times[-1], times[0] = process.t_min, process.T  # which squares of roots may miss
    return _ended(process, final, times)


def log_snr(
    process: Process, num_steps: int, *, final: str = "zero", log_snr_min: float | int = LOG_SNR_MIN
) -> np.ndarray:
    """Evenly spaced in log SNR from T to t_min, then the last step.

    Args:
      log_snr_min: where the grid starts, if there is less at T: the cosine schedule has e^-20 there, and steps through it
        are wasted. diffusers' lambda_min_clipped is half of this.
    Raises:
      InputError: num_steps < 1 or more than there are levels.

    Lu et al. 2022 (DPM-Solver), section 3.4.
    """
    first, last = _log_snrs(process, num_steps, final, log_snr_min)
    return _times(process, final, np.linspace(first, last, _inner(num_steps, final)))


def karras(
    process: Process,
    num_steps: int,
    *,
    final: str = "zero",
    rho: float | int = 7,
    log_snr_min: float | int = LOG_SNR_MIN,
) -> np.ndarray:
    """sigma / alpha = (s_max^(1 / rho) + i / (num_steps - 1) (s_min^(1 / rho) - s_max^(1 / rho)))^rho, then the last step.

    Args:
      rho: how much shorter steps are at low noise; positive.
      log_snr_min: as for log_snr.
    Raises:
      InputError: as for log_snr.

    Karras et al. 2022 (EDM), Eq. 5.
    """
    check_inside(0, np.inf, usual="EDM uses 7", rho=rho)
    first, last = _log_snrs(process, num_steps, final, log_snr_min)
    sigmas = np.linspace(np.exp(-first / 2 / rho), np.exp(-last / 2 / rho), _inner(num_steps, final)) ** rho
    return _times(process, final, -2 * np.log(sigmas))


def explicit(process: Process, num_steps: int, *, final: str = "zero", times: Sequence = ()) -> np.ndarray:
    """A list of times.

    Args:
      times: num_steps + 1 of them, falling, from at most T to the last that `final` names.
    Raises:
      InputError: they are not so.
    """
    _check(process, num_steps, final)
    try:
        found = np.asarray(times, np.float64)
    except ValueError as error:
        raise InputError(f"grid.explicit.times = {times!r:.80} are no numbers: give them as (1000, 500, 0).") from error
    if found.ndim != 1:
        raise InputError(f"grid.explicit.times = {times!r:.80} are no list of numbers: give them as (1000, 500, 0).")
    end = _end(process, final)
    if len(found) != num_steps + 1:
        raise InputError(
            f"{len(found)} times are {max(len(found) - 1, 0)} steps, not num_steps = {num_steps}: name all of them, first "
            "and last, in grid.explicit.times."
        )
    if not (np.diff(found) < 0).all():
        i = int(np.argmax(np.diff(found) >= 0))
        raise InputError(
            f"grid.explicit.times rise from {found[i]:g} to {found[i + 1]:g}: sampling goes from noise to data, so they must fall."
        )
    if found[0] > process.T or found[-1] != end or (final == "zero" and found[-2] < process.t_min):
        raise InputError(
            f"grid.explicit.times go from {found[0]:g} to {found[-1]:g}: they must start at T = {process.T:g} or below, and "
            f"end with {end:g}, after times of at least {process.t_min:g}."
        )
    whole = process.discrete and (found == np.round(found)).all()
    return found.astype(np.int32) if whole else found


def _check(process: Process, num_steps: int, final: str) -> None:
    if final not in FINALS:
        raise unknown_name("grid.final", final, FINALS)
    if not process.discrete:
        check_at_least(1, num_steps=num_steps)
        return
    most = process.T - (final != "zero")
    if not 1 <= num_steps <= most:
        raise InputError(
            f"num_steps = {num_steps} is not in 1..{most}: a process of T = {process.T} levels has no more steps."
        )


def _end(process: Process, final: str) -> float | int:
    return 0 if final == "zero" else process.t_min


def _inner(num_steps: int, final: str) -> int:
    """Times from the first to t_min."""
    return num_steps if final == "zero" else num_steps + 1


def _ended(process: Process, final: str, times: np.ndarray) -> np.ndarray:
    """With the last step to 0, if it goes there."""
    return _whole(process, np.concatenate([times, [0] * (final == "zero")]))


def _whole(process: Process, times: np.ndarray) -> np.ndarray:
    """Rounded where times are integers, and each at least one more than the next."""
    if not process.discrete:
        return times
    place = np.arange(len(times))
    rising = np.maximum.accumulate(np.round(times[::-1]).astype(np.int32) - place) + place
    return np.minimum(rising, process.T - place[::-1])[::-1].astype(np.int32)


def _log_snrs(process: Process, num_steps: int, final: str, log_snr_min: float | int) -> tuple[float, float]:
    _check(process, num_steps, final)
    first, last = max(float(process.log_snr(process.T)), log_snr_min), float(process.log_snr(process.t_min))
    if not np.isfinite([first, last]).all():
        raise InputError(f"log SNR runs from {first:g} to {last:g}: no grid of it is finite. Use the grid trailing.")
    return first, last


def _times(process: Process, final: str, log_snrs: np.ndarray) -> np.ndarray:
    inner = np.asarray(process.time(jnp.asarray(log_snrs[1:-1], jnp.result_type(float))), np.float64)
    whole = log_snrs[0] <= process.log_snr(process.T) + ROUNDING
    first = process.T if whole else float(process.time(jnp.asarray(log_snrs[0])))
    last = [process.t_min] * (len(log_snrs) > 1)
    return np.concatenate([[first], inner, last, [0.0] * (final == "zero")])
