"""Likelihoods by the names a command takes: bits per dimension of images under a model, each image by itself."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.data.pixels import to_images
from ddpm.diffusion.continuous_bound import check_noise, reconstruction_bpd
from ddpm.diffusion.likelihood import bits_per_dim, dequantise, ends, ode_log_likelihood
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import diffuse
from ddpm.diffusion.variational import prior_bpd, term_bpd
from ddpm.errors import check_at_least
from ddpm.rng import fold_in_all, normal, uniforms
from ddpm.shapes import Data, Keys, Pixels

MIN_LOG_SNR = -20.0  # where a process has none at T: what is left out is e^-20 of a bit
Rows = dict[str, Float[Array, "batch *more"]]


def vlb_bpd(
    model: Model, pixels: Pixels, keys: Keys, *, variance: str, levels: int = 1000, log_snr_max: float = 13.3
) -> Rows:
    """The variational bound: prior + data term + the terms between; 'terms' by their 'times' [batch, levels].

    Of a table L_T + L_0 + sum over t of L_{t-1}: all terms, or where `levels` are fewer, as many that are drawn evenly for
    each image. In continuous time the bound of infinitely many steps, (max - min) / 2 times the mean of ||eps - eps_hat||^2
    over log SNR, by `levels` values of it that are drawn evenly for each image.

    Args:
      keys: one per image.
      variance: of p_theta, a name of variance.py; of tables.
      levels: network evaluations an image, at least 1.
      log_snr_max: where the data term looks in continuous time, if the process gets there: beyond, no bit is to be told.
    Raises:
      InputError: levels < 1, or a learned variance of a model that learns none.

    Ho et al. 2020, Eq. 5; Kingma et al. 2021 (VDM), Eq. 11 and 15.
    """
    check_at_least(1, levels=levels)
    x_0, process = to_images(pixels), model.process
    eps_0 = normal(fold_in_all(keys, 0), x_0.shape[1:])
    if process.discrete:
        inner = process.T - 1
        num = min(levels, inner)
        data = term_bpd(model, variance, x_0, eps_0, 0, 1)

        def term(u, eps):
            t = 2 + jnp.minimum(jnp.floor(u * inner), inner - 1).astype(jnp.int32)
            return inner * term_bpd(model, variance, x_0, eps, t - 1, t), t.astype(u.dtype)
    else:
        first, last = (process.log_snr(t) for t in ends(process))
        first, last, num = jnp.minimum(first, log_snr_max), jnp.maximum(last, MIN_LOG_SNR), levels
        data = reconstruction_bpd(process, x_0, eps_0, process.time(first))

        def term(u, eps):
            t = process.time(first + u * (last - first))
            error = (eps - model(diffuse(process, x_0, t, eps), t).eps) ** 2
            return (first - last) / (2 * math.log(2)) * error.mean(axis=tuple(range(1, error.ndim))), t

    def one(_, i):
        # Of all terms, the middle of each stratum is its level.
        u = 0.5 if process.discrete and num == inner else uniforms(fold_in_all(keys, 2 * i + 1), 0, 1, stratified=False)
        u = jnp.broadcast_to((i + u) / num, x_0.shape[:1]).astype(x_0.dtype)
        return None, term(u, normal(fold_in_all(keys, 2 * i + 2), x_0.shape[1:]))

    _, (terms, times) = jax.lax.scan(one, None, jnp.arange(num))
    prior = prior_bpd(process, x_0)
    parts = {"vlb_prior_bpd": prior, "vlb_data_bpd": data, "terms": terms.T, "times": times.T}
    return {"vlb_bpd": prior + data + terms.mean(0)} | parts


def ode_bpd(
    model: Model, pixels: Pixels, keys: Keys, *, trace: str = "rademacher", rtol: float = 1e-4, atol: float = 1e-4
) -> Rows:
    """The exact likelihood of the deterministic sampler, by the probability-flow ODE, of images dequantised uniformly.

    Args:
      keys: one per image, for dequantisation and trace.
      trace, rtol, atol: as for `ode_log_likelihood`.
    Raises:
      InputError: an unknown trace, or a process without any noise at t_min.

    Song et al. 2021 (score SDE), Eq. 39 and appendix D.2.
    """
    check_noise(model.process)
    x_0: Data = dequantise(pixels, fold_in_all(keys, 0))
    log_p, nfe = ode_log_likelihood(model, x_0, keys=fold_in_all(keys, 1), trace=trace, rtol=rtol, atol=atol)
    nfe = jnp.broadcast_to(nfe, log_p.shape).astype(log_p.dtype)
    return {"ode_bpd": bits_per_dim(log_p, math.prod(x_0.shape[1:])), "ode_nfe": nfe}


ode_bpd.told = {"dequantisation": "uniform", "solver": "Tsit5"}
