"""What a network is asked for, as a mixture of x_0 and eps: from its output to (x0_hat, eps_hat) by one 2 x 2 system.

x_t    = alpha_t x_0 + sigma_t eps
target = a_t x_0 + b_t eps              with a, b of the prediction type (predictions.py)

x_0 = (b x_t - sigma target) / det,  eps = (alpha target - a x_t) / det,  det = alpha b - sigma a.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.shapes import Data, PerTime, Time, over

MIN_DET = 1e-6  # float32 resolves 1e-7


class Prediction(NamedTuple):
    """A prediction type.

    mixture: (process, t) -> (a_t, b_t): the network's target is a x_0 + b eps.
    input_scale: (process, t) -> what x_t is multiplied with before the network sees it; EDM's c_in.
    condition: (process, t) -> the time as the network sees it; EDM's c_noise.
    """

    mixture: Callable[[Process, Time], tuple[PerTime, PerTime]]
    input_scale: Callable[[Process, Time], PerTime] | None = None
    condition: Callable[[Process, Time], PerTime] = lambda process, t: process.seen(t)


def target(process: Process, prediction: Prediction, x_0: Data, eps: Data, t: Time) -> Data:
    """What the network should say: a_t x_0 + b_t eps."""
    a, b = prediction.mixture(process, t)
    return over(a, x_0) * x_0 + over(b, x_0) * eps


def x0_and_eps(process: Process, prediction: Prediction, output: Data, x_t: Data, t: Time) -> tuple[Data, Data]:
    """(x0_hat, eps_hat) of what the network says of x_t."""
    a, b = (over(c, x_t) for c in prediction.mixture(process, t))
    det = over(determinant(process, prediction, t), x_t)
    alpha, sigma = over(process.alpha(t), x_t), over(process.sigma(t), x_t)
    return (b * x_t - sigma * output) / det, (alpha * output - a * x_t) / det


def determinant(process: Process, prediction: Prediction, t: Time) -> PerTime:
    """alpha b - sigma a: errors of x0_hat are sigma / |det|, of eps_hat alpha / |det| times those of the output."""
    a, b = prediction.mixture(process, t)
    return process.alpha(t) * b - process.sigma(t) * a


def check(process: Process, prediction: Prediction, name: str) -> None:
    """Refuses a prediction type that says nothing of x_0 where sampling starts.

    Raises:
      InputError: such a type, such as eps for a process without signal at t = T.
    """
    T = process.T
    determined = abs(float(determinant(process, prediction, T))) >= MIN_DET * max(1.0, float(process.sigma(T)))
    if not (determined and jnp.isfinite(prediction.condition(process, T))):
        raise InputError(
            f"prediction '{name}' is impossible where alpha_T = {float(process.alpha(T)):.2g}: it leaves x_0 "
            "undetermined there. Use v or x0 (or velocity with RectifiedFlow), or a process that keeps some signal."
        )


def eps_from_x0(process: Process, x_0: Data, x_t: Data, t: Time) -> Data:
    """The noise that x_t holds if its clean image is x_0: (x_t - alpha_t x_0) / sigma_t, for t > 0.

    Ho et al. 2020, Eq. 4 solved for eps.
    """
    return (x_t - over(process.alpha(t), x_t) * x_0) / over(process.sigma(t), x_t)
