"""DEIS, in eps_hat."""

import functools

import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import (
    NOISE,
    check_form,
    check_order,
    derivatives,
    first_order,
    lambda_,
    order_now,
    recall,
    remember,
    weights,
)


def deis(process: Process, *, order: int = 3) -> Sampler:
    """The exponential Adams-Bashforth method: eps_hat is the polynomial in lambda through its last `order` values.

    x_s = alpha_s / alpha_t x_t - sigma_s (h phi_1 eps_hat + h phi_2 D_1 + h phi_3 D_2), phi at h.

    It is the log-rho DEIS of diffusers: rho = sigma / alpha, so that log rho = -lambda.

    Args:
      order: 1, 2 or 3; as many evaluations are remembered. 1 is DDIM.
    Raises:
      InputError: another order, or a process without signal at T.

    Zhang and Chen 2023 (DEIS), the Adams-Bashforth variants.
    """
    check_order(order)
    check_form(process, NOISE)

    def step(denoise, x_t, t, s, keys, history):
        eps_hat = denoise(x_t, t).eps
        to_data = process.sigma(s) == 0
        at = lambda_(process, t)
        h = jnp.where(to_data, 1, lambda_(process, s) - at)
        now = order_now(order, history.done, history.left, to_data)
        d_1, d_1_of_3, d_2 = derivatives(history, eps_hat, at, h)
        w = weights(NOISE, h)
        higher = {2: w[1] * d_1, 3: w[1] * d_1_of_3 + w[2] * d_2}
        x_s = first_order(NOISE, process, x_t, eps_hat, t, s)
        x_s -= process.sigma(s) * sum(jnp.where(now == k, higher[k], 0) for k in range(2, order + 1))
        return Step(x_s, carry=recall(history, eps_hat, at))

    return Sampler(step, order, functools.partial(remember, order), deterministic=True)
