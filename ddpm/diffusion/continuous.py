"""Noise schedules as functions: log SNR of u = t / T in (0, 1], falling in u. Those of tables are in schedules.py.

Where the formula gives alpha_bar, log SNR = log alpha_bar - log(1 - alpha_bar), with each logarithm exact near its own end.
Schedules that would end with no signal at all keep END of it, so that log SNR stays finite.
"""

import math

import jax
import jax.numpy as jnp

from ddpm.errors import InputError, check_inside

END = 1e-9  # alpha_bar at u = 1: improved DDPM's table ends with 2.4e-9


def linear(u: jax.Array, beta_min: float = 0.1, beta_max: float = 20.0) -> jax.Array:
    """beta grows linearly in u: the VP SDE, and the limit of DDPM's table for T -> infinity (its betas times T).

    log alpha_bar_u = -(beta_min u + (beta_max - beta_min) u^2 / 2).

    Song et al. 2021 (score SDE), Eq. 33.
    """
    check_inside(0, math.inf, usual="score SDE uses 0.1 and 20", beta_min=beta_min, beta_max=beta_max)
    return _of_log_alpha_bar(-(beta_min * u + (beta_max - beta_min) * u**2 / 2))


def quadratic(u: jax.Array, beta_min: float = 0.1, beta_max: float = 20.0) -> jax.Array:
    """sqrt(beta) grows linearly in u, from a = sqrt(beta_min) to b = sqrt(beta_max).

    log alpha_bar_u = -((a + (b - a) u)^3 - a^3) / (3 (b - a)), expanded so that nothing cancels.

    Ho et al. 2020, its code ("quad"); latent diffusion ("scaled linear").
    """
    check_inside(0, math.inf, usual="score SDE uses 0.1 and 20", beta_min=beta_min, beta_max=beta_max)
    a, slope = beta_min**0.5, beta_max**0.5 - beta_min**0.5
    return _of_log_alpha_bar(-(a**2 * u + a * slope * u**2 + slope**2 * u**3 / 3))


def cosine(u: jax.Array, s: float = 0.008) -> jax.Array:
    """alpha_bar_u = cos^2(a_u) / cos^2(a_0),  a_u = (u + s) / (1 + s) pi / 2.

    1 - alpha_bar_u = sin(a_u - a_0) sin(a_u + a_0) / cos^2(a_0),  cos(a_u) = sin((1 - u) / (1 + s) pi / 2).

    Nichol and Dhariwal 2021, Eq. 17; with s = 0 it is -2 log tan(pi u / 2).
    """
    if not 0 <= s < 1:
        raise InputError(f"s = {s} is not in [0, 1); improved DDPM uses s = 0.008.")
    a_0 = s / (1 + s) * jnp.pi / 2
    rise = u / (1 + s) * jnp.pi / 2
    fall = (1 - u) / (1 + s) * jnp.pi / 2
    return _of_ratio(jnp.sin(fall) ** 2, jnp.sin(rise) * jnp.sin(rise + 2 * a_0))


def sigmoid(u: jax.Array, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> jax.Array:
    """alpha_bar_u = (S(end) - S(x_u)) / (S(end) - S(start)),  S(x) = sigmoid(x / tau),  x_u = start + u (end - start).

    S(x) - S(y) = sinh((x - y) / 2 tau) / (2 cosh(x / 2 tau) cosh(y / 2 tau)).

    Jabri et al. 2023; Chen 2023 (On the importance of noise scheduling), Eq. 2.
    """
    check_inside(-math.inf, end, usual="it must be below end: -3 and 3 are Jabri et al.'s", start=start)
    check_inside(0, math.inf, usual="Jabri et al. use 0.9 to 1.1", tau=tau)
    a, b = start / (2 * tau), end / (2 * tau)
    x = a + u * (b - a)
    return _of_ratio(jnp.sinh(b - x) / jnp.cosh(b), jnp.sinh(x - a) / jnp.cosh(a))


def sqrt(u: jax.Array, s: float = 1e-4) -> jax.Array:
    """alpha_bar_u = (1 - r_u) / (1 - r_0),  r_u = sqrt(s + (1 - s) u).

    Li et al. 2022 (Diffusion-LM), Appendix A, scaled to begin with all signal and to end with none.
    """
    check_inside(0, 1, usual="Diffusion-LM uses 1e-4", s=s)
    r, r_0 = jnp.sqrt(s + (1 - s) * u), s**0.5
    return _of_ratio((1 - u) / (1 + r), u / (r + r_0))


def _of_log_alpha_bar(log_alpha_bar: jax.Array) -> jax.Array:
    return log_alpha_bar - jnp.log(-jnp.expm1(log_alpha_bar))


def _of_ratio(signal: jax.Array, noise: jax.Array) -> jax.Array:
    """log SNR where alpha_bar : 1 - alpha_bar = signal : noise, with END of the signal kept."""
    return jnp.log(signal + END * noise) - jnp.log((1 - END) * noise)
