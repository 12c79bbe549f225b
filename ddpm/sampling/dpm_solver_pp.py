"""DPM-Solver++, in x0_hat."""

import functools

import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.errors import unknown_name
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import (
    DATA,
    check_order,
    derivatives,
    first_order,
    lambda_,
    order_now,
    recall,
    remember,
    singlestep,
    weights,
)

THIRD_ORDERS = {"consistent": 1.0, "paper": 0.5}


def dpm_solver_pp(
    process: Process, *, order: int = 2, multistep: bool = True, third_order: str = "consistent"
) -> Sampler:
    """DPM-Solver++ 1, 2M and 3M of one network evaluation a step, or 2S and 3S of as many as the order.

    2M: x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) (D_0 + D_1 / 2)
    3M: x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D_0 + alpha_s ((e^-h - 1) / h + 1) D_1
              - alpha_s ((e^-h - 1 + h) / h^2 - 1/2) D_2

    The published 3M is of second order. Its coefficient of D_2 is h phi_3(-h), which integrates D_2 (tau / h)^2 / 2, so D_2
    must be h^2 m''. Of the polynomial through the last three evaluations, at 0, -r_0 and -(r_0 + r_1) in units of h, with
    the slopes D1_0 and D1_1 between them, that is h^2 m'' = 2 (D1_0 - D1_1) / (r_0 + r_1); the paper's D_2, and that of
    all code we know, is half of it. 'consistent' has the 2 and is of third order.

    Args:
      order: 1, 2 or 3.
      multistep: remember earlier evaluations, instead of making more between t and s.
      third_order: 'consistent', or 'paper' as published.
    Raises:
      InputError: another order or third_order.

    Lu et al. 2022 (DPM-Solver++), Algorithms 1 (2S) and 2 (2M), Proposition 4.1; their code for 3M.
    """
    check_order(order)
    if third_order not in THIRD_ORDERS:
        raise unknown_name("third_order", third_order, THIRD_ORDERS)
    if not multistep or order == 1:
        return singlestep(process, DATA, order)

    def step(denoise, x_t, t, s, keys, history):
        x0_hat = denoise(x_t, t).x0
        at, h = lambda_(process, t), lambda_(process, s) - lambda_(process, t)
        now = order_now(order, history.done, history.left, process.sigma(s) == 0)
        d_1, d_1_of_3, d_2 = derivatives(history, x0_hat, at, h)
        w = weights(DATA, h)
        higher = {
            2: w[0] / 2 * d_1,
            3: w[1] * d_1_of_3 + w[2] * THIRD_ORDERS[third_order] * d_2,
        }
        x_s = first_order(DATA, process, x_t, x0_hat, t, s)
        x_s += process.alpha(s) * sum(jnp.where(now == k, higher[k], 0) for k in range(2, order + 1))
        return Step(x_s, carry=recall(history, x0_hat, at))

    third = third_order == "consistent"
    return Sampler(step, order if order < 3 or third else 2, functools.partial(remember, order), deterministic=True)
