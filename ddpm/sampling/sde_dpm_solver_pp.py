"""SDE-DPM-Solver++."""

import functools

import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.rng import normal
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import derivatives, lambda_, order_now, recall, remember


def sde_dpm_solver_pp(process: Process, *, order: int = 2) -> Sampler:
    """The reverse SDE solved as DPM-Solver++ solves the ODE, in x0_hat; 1 is ancestral sampling with the posterior variance.

    x_s = sigma_s / sigma_t e^-h x_t + alpha_s (1 - e^-2h) (D_0 + D_1 / 2) + sigma_s sqrt(1 - e^-2h) z

    Args:
      order: 1 or 2 (2M), of one network evaluation a step. The noise is exact; the order is that of the ODE's part.
    Raises:
      InputError: another order.

    Lu et al. 2022 (DPM-Solver++), the solvers of diffusion SDEs.
    """
    if order not in (1, 2):
        raise InputError(f"order = {order} is neither 1 nor 2: the SDE has no method of a higher one here.")

    def step(denoise, x_t, t, s, keys, history):
        x0_hat = denoise(x_t, t).x0
        at, h = lambda_(process, t), lambda_(process, s) - lambda_(process, t)
        now = order_now(order, history.done, history.left, process.sigma(s) == 0)
        d_1, _, _ = derivatives(history, x0_hat, at, h)
        change = -jnp.expm1(-2 * h)
        mean = process.sigma(s) / process.sigma(t) * jnp.exp(-h) * x_t
        mean += process.alpha(s) * change * (x0_hat + jnp.where(now == 2, d_1 / 2, 0))
        noise = process.sigma(s) * jnp.sqrt(change) * normal(keys, x_t.shape[1:])
        return Step(mean + noise, carry=recall(history, x0_hat, at))

    return Sampler(step, 1, functools.partial(remember, order))
