"""How the times of training examples are distributed, by name: each makes a `Timesteps` for a process."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int, Real

from ddpm.diffusion.process import Process
from ddpm.diffusion.timestep import Timesteps
from ddpm.errors import InputError, check_at_least, check_inside
from ddpm.shapes import PerExample, PerTime


def uniform(process: Process) -> Timesteps:
    """t uniform: in {1, ..., T} where times are discrete, in [t_min, T] elsewhere.

    t = 1 + floor(u T),  t = t_min + u (T - t_min).

    Ho et al. 2020, Algorithm 1, line 3; Song et al. 2021 (score SDE), Eq. 7.
    """
    if process.discrete:
        return _unweighted(lambda u: jnp.minimum(1 + jnp.floor(u * process.T), process.T).astype(jnp.int32))
    return _unweighted(lambda u: _inside(process, process.t_min + u * (process.T - process.t_min)))


def log_normal(process: Process, mean: float | int = -1.2, std: float | int = 1.2) -> Timesteps:
    """log(sigma_t / alpha_t) ~ N(mean, std^2), cut to the process's range; the nearest level where times are discrete.

    log_snr = -2 (mean + std Phi^-1(u)).

    Args:
      mean: of the logarithm, for data in [-1, 1].
      std: its standard deviation, positive.
    Raises:
      InputError: std out of range.

    Karras et al. 2022 (EDM), Table 1.
    """
    check_inside(0, math.inf, usual="EDM uses 1.2", std=std)
    return _unweighted(lambda u: _inside(process, process.time(-2 * (mean + std * ndtri(u)))), is_uniform=False)


def logit_normal(process: Process, mean: float | int = 0.0, std: float | int = 1.0) -> Timesteps:
    """t / T is the sigmoid of N(mean, std^2): more of the middle; the nearest level where times are discrete.

    t = T sigmoid(mean + std Phi^-1(u)).

    Args:
      mean: below 0 for more of the data's end, above 0 for more of the noise's.
      std: positive; smaller ones stay nearer to the middle.
    Raises:
      InputError: std out of range.

    Esser et al. 2024 (Stable Diffusion 3), Eq. 19.
    """
    check_inside(0, math.inf, usual="Stable Diffusion 3 uses 1", std=std)
    return _unweighted(lambda u: _inside(process, process.T * jax.nn.sigmoid(mean + std * ndtri(u))), is_uniform=False)


class _Losses(NamedTuple):
    """The last losses of each t, row t - 1, in a ring; how many each t has had."""

    losses: Float[Array, "T history"]
    counts: Int[Array, "T"]


def loss_second_moment(process: Process, history: int = 10, uniform_share: float = 1e-3) -> Timesteps:
    """Importance sampling of uniform t, with the probability that makes the loss vary least: for L_vlb.

    p_t = (1 - share) r_t / sum_i r_i + share / T,  r_t = sqrt(E[L_t^2]) over the last losses at t,  weight 1 / (T p_t);
    uniform until each t has had `history` losses.

    Args:
      history: how many losses are remembered of each t, at least 1.
      uniform_share: of draws that are uniform, so that no t is forgotten, in (0, 1).
    Raises:
      InputError: times of the process are not discrete, or a value out of range.

    Nichol and Dhariwal 2021, Eq. 18; history and share are those of their code.
    """
    if not process.discrete:
        raise InputError(
            f"loss_second_moment remembers the losses of each noise level, but {type(process).__name__} has no levels. "
            "Use uniform, or a process of a table (VP)."
        )
    check_at_least(1, history=history)
    check_inside(0, 1, usual="improved DDPM uses 0.001", uniform_share=uniform_share)
    T = process.T

    def draw(past: _Losses, u: PerExample) -> tuple[Int[Array, "batch"], PerExample]:
        root = jnp.sqrt(jnp.mean(past.losses.astype(u.dtype) ** 2, axis=1))
        known = (past.counts >= history).all() & (root.sum() > 0)
        p = jnp.where(known, (1 - uniform_share) * root / root.sum() + uniform_share / T, 1 / T)
        row = jnp.minimum(jnp.searchsorted(jnp.cumsum(p), u, side="right"), T - 1)
        return (1 + row).astype(jnp.int32), 1 / (T * p[row])

    def update(past: _Losses, t: Int[Array, "batch"], losses: PerExample) -> _Losses:
        def remember(i, past):
            row = t[i] - 1
            slot = past.counts[row] % history
            return _Losses(
                past.losses.at[row, slot].set(losses[i].astype(past.losses.dtype)), past.counts.at[row].add(1)
            )

        return jax.lax.fori_loop(0, len(t), remember, past)

    return Timesteps(draw, _Losses(jnp.zeros((T, history), jnp.float32), jnp.zeros(T, jnp.int32)), update)


def _unweighted(time: Callable[[PerExample], Real[Array, "batch"]], *, is_uniform: bool = True) -> Timesteps:
    return Timesteps(lambda history, u: (time(u), jnp.ones_like(u)), is_uniform=is_uniform)


def _inside(process: Process, t: PerTime) -> Real[Array, "batch"]:
    t = jnp.clip(t, process.t_min, process.T)
    return jnp.round(t).astype(jnp.int32) if process.discrete else t
