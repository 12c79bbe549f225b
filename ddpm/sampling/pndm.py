"""PNDM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import NOISE, check_form, first_order

ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class Carry(NamedTuple):
    """eps_hat of the last three steps, newest first, and the number of steps taken."""

    eps: jax.Array
    done: jax.Array


def pndm(process: Process, *, runge_kutta: bool = True) -> Sampler:
    """DDIM's step with the eps_hat of a linear multistep method: (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24.

    Args:
      runge_kutta: start with three pseudo Runge-Kutta steps of four evaluations (PNDM, num_steps + 9 in all where there are more than 3), or with the
        lower orders, the first step repeated with the mean of both ends (PLMS, num_steps + 1).
    Raises:
      InputError: a process without signal at T.

    The coefficients are those of even steps in t: use the grid trailing, leading or linspace. It is of second order, as
    its steps are those of DDIM.
    Liu et al. 2022 (PNDM), Eq. 9, 12 and 13.
    """
    check_form(process, NOISE)

    def transfer(x, eps, t, s):
        return first_order(NOISE, process, x, eps, t, s)

    def runge_kutta_eps(denoise, x, e_1, t, s):
        middle = _between(process, t, s)
        e_2 = denoise(transfer(x, e_1, t, middle), middle).eps
        e_3 = denoise(transfer(x, e_2, t, middle), middle).eps
        e_4 = denoise(transfer(x, e_3, t, s), s).eps
        return (e_1 + 2 * e_2 + 2 * e_3 + e_4) / 6

    def step(denoise, x_t, t, s, keys, carry):
        eps_hat = denoise(x_t, t).eps
        known = jnp.concatenate([eps_hat[None], carry.eps])
        row = jnp.asarray(ADAMS_BASHFORTH)[jnp.minimum(carry.done, 3)]
        multistep = jnp.tensordot(row.astype(known.dtype), known, axes=1)
        warm = (carry.done < (3 if runge_kutta else 1)) & (process.sigma(s) > 0)
        mean = jax.lax.cond(
            warm,
            lambda: (
                runge_kutta_eps(denoise, x_t, eps_hat, t, s)
                if runge_kutta
                else (eps_hat + denoise(transfer(x_t, eps_hat, t, s), s).eps) / 2
            ),
            lambda: multistep,
        )
        nfe = jnp.where(warm, 4 if runge_kutta else 2, 1)
        return Step(transfer(x_t, mean, t, s), nfe, Carry(known[:-1], carry.done + 1))

    def start(x_T, num_steps):
        return Carry(jnp.zeros((3, *x_T.shape), x_T.dtype), jnp.asarray(0))

    return Sampler(step, 2, start, deterministic=True)


def _between(process: Process, t: jax.Array, s: jax.Array) -> jax.Array:
    """The middle of t and s; of a table whose steps are even that is one of its times."""
    return (jnp.asarray(t, jnp.result_type(float)) + s) / 2
