"""Every sampler there is: found, not listed; and processes and denoisers for them."""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
from oracles import affine_moments, gaussian_eps
from processes import eps_model

from ddpm import names, sampling
from ddpm.diffusion import schedules
from ddpm.diffusion.continuous import linear
from ddpm.diffusion.processes import VP, ContinuousVP
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling.denoise import denoiser

SAMPLERS = names.public(sampling)
KEY = per_index(stream(0, "x"), jnp.arange(1))


@functools.cache
def table(T=1000, schedule="cosine"):
    return VP(getattr(schedules, schedule)(T))


@functools.cache
def vp_sde():
    return ContinuousVP(functools.partial(linear, beta_min=0.1, beta_max=20.0), t_min=1e-3)


def process_of(name, schedule="cosine"):
    """A table, or for those that follow an SDE the VP SDE."""
    try:
        SAMPLERS[name](table(schedule=schedule))
    except InputError:
        return vp_sde()
    return table(schedule=schedule)


def gaussian_denoiser(process, mean, variance):
    """The exact one of data N(mean, variance I)."""

    def predict(x_t, t):
        a, s = process.alpha(t)[:, None], process.sigma(t)[:, None]
        return gaussian_eps(mean, variance, a, s, x_t)

    return denoiser(eps_model(process, predict), clip=False)


def moments_of_a_run(make, process, times, mean, variance, monkeypatch, start=None):
    """Mean and variance at the end of a run, by affine_moments through every step from N(0, 1) or `start`."""
    sampler = make(process)
    denoise, noise = gaussian_denoiser(process, mean, variance), [0.0]
    for module in (sys.modules[sampler.step.__module__], sys.modules["ddpm.sampling.churn"]):
        if hasattr(module, "normal"):
            monkeypatch.setattr(module, "normal", lambda keys, shape: jnp.full((1, *shape), noise[0]))
    m, v = start or (0.0, process.prior_scale**2)
    carry = sampler.start(jnp.ones((1, 1)), jnp.asarray(len(times) - 1))
    kind = jnp.int32 if process.discrete else jnp.float64

    @jax.jit
    def step(x, z, t, s):
        noise[0] = z
        return sampler.step(denoise, jnp.full((1, 1), x), t, s, KEY, carry).x[0, 0]

    for t, s in itertools.pairwise(times):
        pair = jnp.asarray(t, kind), jnp.asarray(s, kind)
        m, v = affine_moments(lambda x, z, pair=pair: float(step(x, z, *pair)), m, v)
    return m, v
