"""The probability-flow ODE on the unit circle, where it is one and the same for every process.

dx/dt = f x - g^2 / 2 score(x, t) = alpha' x0_hat + sigma' eps_hat.

Both sides say the same; the first is infinite where no signal is left, and both are stiff at t_min (sigma ~ sqrt(t)).
With u = x / sqrt(alpha^2 + sigma^2) and the angle phi = atan(sigma / alpha), u = cos(phi) x_0 + sin(phi) eps and
du / dphi = cos(phi) eps_hat - sin(phi) x0_hat, the v of Salimans and Ho 2022. It is integrated in
tau = log tan(phi / 2) = -asinh(alpha / sigma), where sin(phi) = 1 / cosh(tau) and cos(phi) = -tanh(tau): next to the data
tau is log(sigma), so that each decade of noise takes as many steps as the next, and without signal it is 0, where log SNR
is infinite. A table is smooth in tau too: between its times only the condition of the network has kinks.

Song et al. 2021 (score SDE), Eq. 13.
"""

from collections.abc import Callable

import jax.numpy as jnp

from ddpm.diffusion.model import Estimate
from ddpm.diffusion.process import Process
from ddpm.shapes import Data, PerTime, Time, over

FIRST_STEP = 0.01  # of tau, so a hundredth of sigma


def tau(process: Process, t: Time) -> PerTime:
    """-asinh(alpha_t / sigma_t), for real t."""
    return -jnp.arcsinh(jnp.exp(process.log_snr(t) / 2))


def scale(process: Process, t: Time) -> PerTime:
    """sqrt(alpha_t^2 + sigma_t^2), by which x_t is divided."""
    return jnp.hypot(process.alpha(t), process.sigma(t))


def rate(process: Process, denoise: Callable[[Data, Time], Estimate], at: PerTime, u: Data) -> Data:
    """du / dtau = sin(phi) (cos(phi) eps_hat - sin(phi) x0_hat), at a tau of the process, one for all or one per example."""
    t = process.time(2 * jnp.log(jnp.sinh(-at)))
    estimate = denoise(over(scale(process, t), u) * u, t)
    sin, cos = over(1 / jnp.cosh(at), u), over(-jnp.tanh(at), u)
    return sin * (cos * estimate.eps - sin * estimate.x0)
