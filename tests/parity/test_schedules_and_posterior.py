"""Schedules, forward process and posterior against diffusers' DDPMScheduler."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion.process import diffuse, posterior_mean, posterior_variance, transition_variance
from ddpm.diffusion.schedules import cosine, linear, quadratic

from .reference import NAMES, PROCESSES, hand_noise, make_scheduler

S, T = np.array([(0, 1), (1, 2), (499, 500), (999, 1000), (0, 100), (100, 400), (1, 1000), (0, 1000)]).T
SHAPE = (len(T), 4, 6, 3)


@pytest.fixture
def data():
    return np.random.default_rng(0).standard_normal((2, *SHAPE))


def respaced(scheduler, s, t):
    """The scheduler with the one step from t to s; without a further timestep s is 0."""
    scheduler.set_timesteps(timesteps=[t - 1, s - 1] if s else [t - 1])
    return scheduler


# The tolerances are the rounding of diffusers' cumulative product in float32.
@pytest.mark.parametrize(
    ("table", "config", "rtol"),
    [
        (linear(1000), {}, 1e-6),
        # Ours are told for 1000 levels and scaled to T, as in improved DDPM.
        (linear(250, 1e-3, 0.05), {"beta_start": 4e-3, "beta_end": 0.2}, 2e-6),
        (
            quadratic(1000, 0.00085, 0.012),
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
            2e-6,
        ),
        (cosine(1000), {"beta_schedule": NAMES["cosine"]}, 2e-5),
        (cosine(50), {"beta_schedule": NAMES["cosine"]}, 2e-5),
    ],
    ids=["linear-1000", "linear-250", "quadratic", "cosine-1000", "cosine-50"],
)
def test_schedule_is_the_table_of_diffusers(table, config, rtol):
    scheduler = DDPMScheduler(num_train_timesteps=len(table) - 1, **config)
    np.testing.assert_allclose(table[1:], scheduler.alphas_cumprod, rtol=rtol)


@pytest.mark.parametrize("schedule", PROCESSES)
def test_diffuse_is_add_noise(x64, schedule, data):
    x_0, eps = data
    theirs = make_scheduler(DDPMScheduler, schedule).add_noise(*map(torch.from_numpy, (x_0, eps, T - 1)))
    ours = diffuse(PROCESSES[schedule], *map(jnp.asarray, (x_0, T, eps)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


# diffusers clamps the variance of the step to clean data, ours is 0 there, at 1e-20.
@pytest.mark.parametrize("schedule", PROCESSES)
@pytest.mark.parametrize(
    ("variance", "name"), [(transition_variance, "fixed_large"), (posterior_variance, "fixed_small")]
)
def test_variance_is_that_of_diffusers(x64, schedule, variance, name):
    scheduler = make_scheduler(DDPMScheduler, schedule, variance_type=name)
    theirs = [respaced(scheduler, s, t)._get_variance(t - 1).item() for s, t in zip(S, T, strict=True)]
    np.testing.assert_allclose(
        variance(PROCESSES[schedule], jnp.asarray(S), jnp.asarray(T)), theirs, rtol=1e-10, atol=1e-19
    )


@pytest.mark.parametrize("schedule", PROCESSES)
def test_posterior_mean_is_a_noiseless_step_of_diffusers(x64, schedule, data, monkeypatch):
    x_0, x_t = data
    scheduler = make_scheduler(DDPMScheduler, schedule, prediction_type="sample")
    hand_noise(monkeypatch, scheduler, torch.zeros(()))
    theirs = [
        respaced(scheduler, s, t).step(torch.from_numpy(x_0[[i]]), t - 1, torch.from_numpy(x_t[[i]])).prev_sample
        for i, (s, t) in enumerate(zip(S, T, strict=True))
    ]
    ours = posterior_mean(PROCESSES[schedule], *map(jnp.asarray, (x_0, x_t, S, T)))
    np.testing.assert_allclose(ours, torch.cat(theirs), rtol=0, atol=1e-10)
