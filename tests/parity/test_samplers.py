"""Samplers against diffusers' schedulers: paths of an exact denoiser from the same x_T with the same noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from oracles import mixture_eps
from processes import eps_model

from ddpm.rng import normal
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.ddim import ddim
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.grids import trailing

from .reference import PROCESSES, hand_noise, make_scheduler

pytestmark = pytest.mark.usefixtures("x64")
# Means beyond 1: clipping changes the paths.
MIXTURE = np.array([[1.2, -0.9, 0.3], [-0.5, 0.7, -1.4], [0.1, 0.2, 0.9]]), np.array([0.04, 0.25, 0.01]), np.ones(3) / 3
SHAPE = (3,)
DDIM_STEPS = (1, 10, 50)  # divisors of T: diffusers' DDIM steps to t - T // num_steps, not to the next of its timesteps
DDPM_STEPS = (7, 50, 1000)


@functools.partial(jax.jit, static_argnums=0)
def exact_eps(schedule, x_t, t):
    alpha_bar = jnp.asarray(PROCESSES[schedule].alpha_bar)[t[0]]
    return mixture_eps(*MIXTURE, jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar), x_t)


@functools.cache  # one compilation for all numbers of steps
def our_step(algorithm, schedule, clip, **options):
    denoise = denoiser(eps_model(PROCESSES[schedule], functools.partial(exact_eps, schedule)), clip=clip)
    sampler = algorithm(PROCESSES[schedule], **options)
    return jax.jit(lambda *args: sampler.step(denoise, *args).x)


def assert_same_path(monkeypatch, schedule, step, scheduler, num_steps, *, atol=1e-10, **options):
    """Holds every x_s of ours to the scheduler's, each path on its own from x_T."""
    scheduler.set_timesteps(num_steps)
    times = trailing(PROCESSES[schedule], num_steps)
    np.testing.assert_array_equal(times[:-1] - 1, scheduler.timesteps)
    keys = jax.random.split(jax.random.key(0), (num_steps + 1, 4))
    noise = np.array(jax.vmap(lambda keys: normal(keys, SHAPE))(keys))
    ours, theirs = [jnp.asarray(noise[0])], [torch.from_numpy(noise[0])]
    for t, s, index, keys_s, z in zip(times[:-1], times[1:], scheduler.timesteps, keys[1:], noise[1:], strict=True):
        ours.append(step(ours[-1], jnp.asarray(t), jnp.asarray(s), keys_s))
        # diffusers' DDPM leaves the noise out of the last step only where that starts at our t = 1.
        hand_noise(monkeypatch, scheduler, torch.from_numpy(z if s > 0 or t == 1 else 0 * z))
        eps = exact_eps(schedule, jnp.asarray(theirs[-1].numpy()), jnp.full(len(z), t))
        theirs.append(scheduler.step(torch.from_numpy(np.array(eps)), index, theirs[-1], **options).prev_sample)
    np.testing.assert_allclose(np.stack(ours), torch.stack(theirs), rtol=0, atol=atol)


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", DDIM_STEPS)
def test_ddim_is_that_of_diffusers(monkeypatch, schedule, clip, eta, num_steps):
    step = our_step(ddim, schedule, clip, eta=eta)
    scheduler = make_scheduler(DDIMScheduler, schedule, clip=clip)
    assert_same_path(monkeypatch, schedule, step, scheduler, num_steps, eta=eta, use_clipped_model_output=True)


@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("variance", "name"), [("beta", "fixed_large"), ("posterior", "fixed_small")])
@pytest.mark.parametrize("num_steps", DDPM_STEPS)
def test_ancestral_is_ddpm_of_diffusers(monkeypatch, schedule, clip, variance, name, num_steps):
    step = our_step(ancestral, schedule, clip, variance=variance)
    scheduler = make_scheduler(DDPMScheduler, schedule, clip=clip, variance_type=name)
    assert_same_path(monkeypatch, schedule, step, scheduler, num_steps)


@pytest.mark.parametrize("num_steps", [10, 50])
@pytest.mark.parametrize(
    ("algorithm", "options", "kind"), [(ancestral, {"variance": "posterior"}, DDPMScheduler), (ddim, {}, DDIMScheduler)]
)
def test_sampler_agrees_with_diffusers_as_shipped(monkeypatch, algorithm, options, kind, num_steps):
    step = our_step(algorithm, "linear", False, **options)
    scheduler = make_scheduler(kind, "linear", exact=False)
    assert_same_path(monkeypatch, "linear", step, scheduler, num_steps, atol=1e-5)
