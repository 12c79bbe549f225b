"""Exponential integrators: the probability-flow ODE in lambda = log(alpha / sigma), whose linear part is solved exactly.

With h = lambda_s - lambda_t, in x0_hat ('data') or in eps_hat ('noise') as a function m of lambda:

x_s = sigma_s / sigma_t x_t + alpha_s int_0^h e^-(h - tau) x0_hat(lambda_t + tau) dtau
x_s = alpha_s / alpha_t x_t - sigma_s int_0^h e^(h - tau) eps_hat(lambda_t + tau) dtau

and for m ~ m_0 + m_1 tau / h + m_2 (tau / h)^2 / 2 the integral is h (phi_1 m_0 + phi_2 m_1 + phi_3 m_2) at -h or at h.

Lu et al. 2022 (DPM-Solver), Eq. 3.4; Lu et al. 2022 (DPM-Solver++), Proposition 4.1; Hochbruck and Ostermann 2010.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm.diffusion.model import Estimate
from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.sampling.driver import Sampler, Step
from ddpm.shapes import Data, PerTime, Time

NO_SIGNAL = -40.0  # alpha / sigma = 4e-18
TERMS = 20  # of the series at |z| <= 1: 1 / 21! is below the last bit of float64


class Form(NamedTuple):
    """One of the two integrals.

    of: what of an estimate is integrated.
    keep: (process, t, s) -> factor of x_t.
    push: (process, s) -> factor of the integral.
    sign: of h in phi.
    """

    of: Callable[[Estimate], Data]
    keep: Callable[[Process, Time, Time], PerTime]
    push: Callable[[Process, Time], PerTime]
    sign: int


DATA = Form(lambda estimate: estimate.x0, lambda p, t, s: p.sigma(s) / p.sigma(t), lambda p, s: p.alpha(s), -1)
NOISE = Form(lambda estimate: estimate.eps, lambda p, t, s: p.alpha(s) / p.alpha(t), lambda p, s: -p.sigma(s), 1)


def lambda_(process: Process, t: Time) -> PerTime:
    """log(alpha_t / sigma_t), half the log SNR; without signal not -inf, from which nothing is at a finite ratio of distances."""
    return jnp.maximum(process.log_snr(t) / 2, NO_SIGNAL)


def phi(k: int, z: jax.Array) -> jax.Array:
    """phi_0 = e^z, phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z, at z = 0 1 / (k + 1)!; also at z = -inf.

    Hochbruck and Ostermann 2010, section 2.
    """
    near, far = jnp.where(jnp.abs(z) <= 1, z, 0), jnp.where(jnp.abs(z) <= 1, 1, z)
    series = jnp.polyval(jnp.array([1 / math.factorial(j + k) for j in reversed(range(TERMS))]), near)
    value = jnp.exp(far)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / far
    return jnp.where(jnp.abs(z) <= 1, series, value)


def weights(form: Form, h: PerTime) -> tuple[PerTime, PerTime, PerTime]:
    """(h phi_1, h phi_2, h phi_3) of z = sign h: of m_0, m_1 and m_2; in the data's form finite for h = inf, where s has no noise."""
    z = form.sign * h
    return form.sign * jnp.expm1(z), form.sign * (phi(1, z) - 1), form.sign * (phi(2, z) - 1 / 2)


def first_order(form: Form, process: Process, x_t: Data, m_0: Data, t: Time, s: Time) -> Data:
    """m is constant over the step: DPM-Solver-1 in either form, which is DDIM.

    Lu et al. 2022 (DPM-Solver), Eq. 3.7 and section 4.1.
    """
    h = lambda_(process, s) - lambda_(process, t)
    to_data = process.sigma(s) == 0
    factor = jnp.where(to_data, 0, weights(NOISE, h)[0])  # inf times 0 there
    if form is DATA:
        return form.keep(process, t, s) * x_t + form.push(process, s) * weights(form, h)[0] * m_0
    x0_hat = (x_t - process.sigma(t) * m_0) / process.alpha(t)
    return jnp.where(to_data, x0_hat, form.keep(process, t, s) * x_t + form.push(process, s) * factor * m_0)


def singlestep(process: Process, form: Form, order: int) -> Sampler:
    """DPM-Solver-1, 2 or 3: intermediate evaluations at lambda_t + h / 2, or at h / 3 and 2 h / 3. The step to no noise is first order.

    Lu et al. 2022 (DPM-Solver), Algorithms 1 and 2; Lu et al. 2022 (DPM-Solver++), Algorithm 1.
    """
    check_order(order)
    check_form(process, form)

    def higher(denoise, x_t, m_0, t, s):
        start, h = lambda_(process, t), lambda_(process, s) - lambda_(process, t)
        keep, push = form.keep, form.push(process, s)

        def at(r):
            return process.time(2 * (start + r * h)).astype(jnp.result_type(float))

        if order == 2:
            middle = at(1 / 2)
            m_1 = form.of(denoise(first_order(form, process, x_t, m_0, t, middle), middle)) - m_0
            return keep(process, t, s) * x_t + push * weights(form, h)[0] * (m_0 + m_1)
        third, two_thirds = at(1 / 3), at(2 / 3)
        slope = 3 * (form.of(denoise(first_order(form, process, x_t, m_0, t, third), third)) - m_0)
        w = weights(form, 2 / 3 * h)
        u = keep(process, t, two_thirds) * x_t + form.push(process, two_thirds) * (w[0] * m_0 + w[1] * 2 / 3 * slope)
        slope = 3 / 2 * (form.of(denoise(u, two_thirds)) - m_0)
        w = weights(form, h)
        return keep(process, t, s) * x_t + push * (w[0] * m_0 + w[1] * slope)

    def step(denoise, x_t, t, s, keys, carry=()):
        m_0 = form.of(denoise(x_t, t))
        if order == 1:
            return Step(first_order(form, process, x_t, m_0, t, s))
        to_data = process.sigma(s) == 0
        x_s = jax.lax.cond(
            to_data,
            lambda: first_order(form, process, x_t, m_0, t, s),
            lambda: higher(denoise, x_t, m_0, t, s),
        )
        return Step(x_s, jnp.where(to_data, 1, order))

    return Sampler(step, order, deterministic=True)


class History(NamedTuple):
    """What a multistep method remembers, of the last step first.

    m: what the network said [order - 1, batch, *dims].
    lambdas: half the log SNR it said that at [order - 1].
    done, left: steps taken and to be taken.
    """

    m: jax.Array
    lambdas: jax.Array
    done: jax.Array
    left: jax.Array


def remember(order: int, x_T: Data, num_steps: jax.Array) -> History:
    """Nothing yet. The lambdas are never used, but differ so that nothing is divided by zero."""
    past = max(order - 1, 1)
    m = jnp.zeros((past, *x_T.shape), x_T.dtype)
    return History(m, -1e3 * jnp.arange(1.0, past + 1), jnp.asarray(0), jnp.asarray(num_steps))


def recall(history: History, m_0: Data, at: PerTime) -> History:
    """The history with the newest evaluation in front."""
    return History(
        jnp.concatenate([m_0[None], history.m[:-1]]),
        jnp.concatenate([jnp.reshape(at, 1), history.lambdas[:-1]]),
        history.done + 1,
        history.left - 1,
    )


def derivatives(history: History, m_0: Data, at: PerTime, h: PerTime) -> tuple[Data, Data, Data]:
    """h m' by two evaluations, and h m' and h^2 m'' by three, of the polynomial through them and m_0 at lambda_t."""
    r_0 = (at - history.lambdas[0]) / h
    d_0 = (m_0 - history.m[0]) / r_0
    if len(history.m) == 1:
        return d_0, d_0, jnp.zeros_like(d_0)
    r_1 = (history.lambdas[0] - history.lambdas[1]) / h
    d_1 = (history.m[0] - history.m[1]) / r_1
    second = (d_0 - d_1) / (r_0 + r_1)
    return d_0, d_0 + r_0 * second, 2 * second


def order_now(order: int, done: jax.Array, left: jax.Array, to_data: jax.Array) -> jax.Array:
    """The order of this step: min(order, done + 1), falling to 1 over the last steps of a run of fewer than 15, and at once where s has no noise.

    As diffusers' lower_order_final, which keeps coarse last steps from overshooting.
    """
    last = jnp.where(done + left < 15, left, order)
    now = jnp.minimum(jnp.minimum(order, done + 1), last)
    return jnp.where(to_data, 1, now)


def check_order(order: int) -> None:
    """Raises InputError for an order that is not 1, 2 or 3."""
    if order not in (1, 2, 3):
        raise InputError(f"order = {order} is none of 1, 2 and 3.")


def check_form(process: Process, form: Form) -> None:
    """Refuses the noise's form for a process without signal at T, whose x_T / alpha_T is nothing."""
    alpha_T = process.alpha(process.T)
    if form is NOISE and not isinstance(alpha_T, jax.core.Tracer) and not alpha_T > 0:
        raise InputError(
            "alpha_T = 0, and this sampler divides by it. Use dpm_solver_pp, unipc or ddim, which are in x0_hat."
        )
