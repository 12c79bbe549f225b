"""UniPC."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm.diffusion.process import Process
from ddpm.errors import unknown_name
from ddpm.sampling.driver import Sampler, Step
from ddpm.sampling.exponential import DATA, check_order, lambda_, order_now, phi, weights
from ddpm.shapes import Data, PerTime

VARIANTS = {"bh1": lambda h: -h, "bh2": lambda h: jnp.expm1(-h)}


class Carry(NamedTuple):
    """What the next step corrects and predicts with.

    u: x / sigma where the last step started, corrected.
    m, lambdas: x0_hat and half the log SNR of the last evaluations, newest first [order, ...].
    order: of the last step.
    done, left: steps taken and to be taken.
    """

    u: Data
    m: jax.Array
    lambdas: jax.Array
    order: jax.Array
    done: jax.Array
    left: jax.Array


def unipc(process: Process, *, order: int = 2, variant: str = "bh2") -> Sampler:
    """A predictor whose every step is corrected by the evaluation that the next step needs anyway: one a step.

    x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) m_0 - alpha_s B(h) sum_k a_k D_k / r_k

    D_k = m_k - m_0 are the differences of x0_hat to that at t, r_k how far off in units of h; the corrector has one more, at
    s, with r = 1. The a_k make it right for polynomials: sum_k r_k^(n - 1) a_k = -n! h phi_{n+1}(-h) / B(h), n = 1, 2, ...

    Args:
      order: 1, 2 or 3, of the predictor; with the corrector it converges with one more.
      variant: 'bh1', B = -h, or 'bh2', B = e^-h - 1.
    Raises:
      InputError: another order or variant.

    Zhao et al. 2023 (UniPC), Theorem 3.1 (corrector) and Corollary 3.2 (predictor), with a single a of 1/2 as in their code.
    """
    check_order(order)
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)

    def start(x_T, num_steps):
        m, lambdas = jnp.zeros((order, *x_T.shape), x_T.dtype), -1e3 * jnp.arange(1.0, order + 1)
        return Carry(x_T, m, lambdas, jnp.asarray(1), jnp.asarray(0), jnp.asarray(num_steps))

    def update(u, m, lambdas, now, s, corrector=None):
        """x_s of u = x_t / sigma_t by a step of order `now`; m and lambdas start at t."""
        h = lambda_(process, s) - lambdas[0]
        change = jnp.zeros_like(u)
        for k in range(1, order + 1):
            nodes = [(lambdas[i] - lambdas[0]) / h for i in range(1, k)]
            values = list(m[1:k])
            if corrector is not None:
                nodes, values = [*nodes, jnp.ones_like(h)], [*values, corrector]
            a = _weights(variant, h, nodes, exact=k > (1 if corrector is not None else 2))
            terms = sum((a[i] / nodes[i] * (values[i] - m[0]) for i in range(len(nodes))), jnp.zeros_like(u))
            change = jnp.where(now == k, terms, change)
        change = jnp.where(process.sigma(s) > 0, VARIANTS[variant](h) * change, 0)
        return process.sigma(s) * u + process.alpha(s) * (weights(DATA, h)[0] * m[0] - change)

    def step(denoise, x_t, t, s, keys, carry):
        m_t, lambda_t = denoise(x_t, t).x0, lambda_(process, t)
        corrected = update(carry.u, carry.m, carry.lambdas, carry.order, t, corrector=m_t)
        x_t = jnp.where(carry.done > 0, corrected, x_t)
        u = x_t / process.sigma(t)
        m = jnp.concatenate([m_t[None], carry.m[:-1]])
        lambdas = jnp.concatenate([jnp.reshape(lambda_t, 1), carry.lambdas[:-1]])
        now = order_now(order, carry.done, carry.left, process.sigma(s) == 0)
        x_s = update(u, m, lambdas, now, s)
        return Step(x_s, carry=Carry(u, m, lambdas, now, carry.done + 1, carry.left - 1))

    return Sampler(step, order + 1, start, deterministic=True)


def _weights(variant: str, h: PerTime, nodes: list, exact: bool) -> list:
    """The a_k; without `exact` all 1 / 2, which is right to the order that is needed."""
    if not exact:
        return [0.5] * len(nodes)
    factorial, right = 1.0, []
    for n in range(1, len(nodes) + 1):
        factorial *= n
        right.append(-h * phi(n + 1, -h) * factorial / VARIANTS[variant](h))
    rows = jnp.stack([jnp.stack(nodes) ** n for n in range(len(nodes))])
    return list(jnp.linalg.solve(rows, jnp.stack(right)))
