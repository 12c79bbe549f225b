"""The bound and the learned variance of improved DDPM's code, derived anew in NumPy; where diffusers agrees, against it too.

Their index of a time is ours minus 1; index 0 is the step to clean data.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion import predictions
from ddpm.diffusion.gaussian import discretised_log_likelihood
from ddpm.diffusion.losses import hybrid, vlb
from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.process import posterior_mean
from ddpm.diffusion.variance import log_variance
from ddpm.diffusion.variational import prior_bpd, term_bpd
from ddpm.rng import normal
from ddpm.sampling.ancestral import ancestral

from .reference import PROCESSES, hand_noise, make_scheduler

pytestmark = pytest.mark.usefixtures("x64")
TIMES = np.array([1, 2, 3, 10, 500, 999, 1000])
ONE = lambda process, prediction, t: jnp.ones_like(process.alpha(t))  # noqa: E731


@functools.cache
class OpenAI:
    """Their tables by index, and what they make of them; arrays are [batch, dims]."""

    def __init__(self, schedule):
        self.bar = PROCESSES[schedule].alpha_bar[1:]
        self.bar_before = np.append(1.0, self.bar[:-1])
        self.betas = 1 - self.bar / self.bar_before
        self.posterior = self.betas * (1 - self.bar_before) / (1 - self.bar)
        self.log_small = np.log(np.append(self.posterior[1], self.posterior[1:]))
        self.log_large = np.log(np.append(self.posterior[1], self.betas[1:]))

    def log_variance(self, name, i, fraction):
        return {
            "posterior": self.log_small[i] + 0 * fraction,
            "beta": self.log_large[i] + 0 * fraction,
            "learned": fraction * np.log(self.betas[i]) + (1 - fraction) * self.log_small[i],
        }[name]

    def mean(self, x_0, x_t, i):
        of_x_0 = self.betas[i] * np.sqrt(self.bar_before[i]) / (1 - self.bar[i])
        of_x_t = (1 - self.bar_before[i]) * np.sqrt(1 - self.betas[i]) / (1 - self.bar[i])
        return of_x_0 * x_0 + of_x_t * x_t

    def x_t(self, x_0, eps, i):
        return np.sqrt(self.bar[i]) * x_0 + np.sqrt(1 - self.bar[i]) * eps

    def x0_hat(self, x_t, eps_hat, i):
        return np.sqrt(1 / self.bar[i]) * x_t - np.sqrt(1 / self.bar[i] - 1) * eps_hat

    def vb_terms_bpd(self, name, x_0, eps, eps_hat, fraction, i):
        x_t = self.x_t(x_0, eps, i)
        mean, log_var = self.mean(self.x0_hat(x_t, eps_hat, i), x_t, i), self.log_variance(name, i, fraction)
        kl = normal_kl(self.mean(x_0, x_t, i), self.log_small[i], mean, log_var)
        return np.where(i == 0, -tanh_log_likelihood(x_0, mean, log_var), kl).mean(axis=1) / np.log(2)


def normal_kl(mean_1, logvar_1, mean_2, logvar_2):
    squares = (mean_1 - mean_2) ** 2 * np.exp(-logvar_2)
    return 0.5 * (-1 + logvar_2 - logvar_1 + np.exp(logvar_1 - logvar_2) + squares)


def tanh_log_likelihood(x, mean, log_var):
    """Level by level: the approximate cdf of both ends of its bin, nothing below 1e-12."""
    mass = np.empty(np.broadcast_shapes(x.shape, np.shape(mean), np.shape(log_var)))
    x, mean, log_var = np.broadcast_arrays(x, mean, log_var)
    for i in np.ndindex(mass.shape):
        cdf = lambda side, i=i: (  # noqa: E731
            lambda z: 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        )((x[i] - mean[i] + side / 255) * np.exp(-log_var[i] / 2))
        mass[i] = cdf(1) if x[i] < -0.999 else 1 - cdf(-1) if x[i] > 0.999 else cdf(1) - cdf(-1)
    return np.log(np.clip(mass, 1e-12, None))


@pytest.fixture
def data():
    """x_0 of 256 levels, both ends among them, noise, what a network says of it, and its v in [-1, 1] and beyond."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (len(TIMES), 6))
    levels[:, 0], levels[:, 1] = 0, 255
    eps = rng.standard_normal(levels.shape)
    return (
        2 * levels / 255 - 1,
        eps,
        eps + 0.2 * rng.standard_normal(levels.shape),
        rng.uniform(-1.2, 1.2, levels.shape),
    )


def our_model(schedule, eps_hat, v):
    return Model(
        PROCESSES[schedule], predictions.eps(), lambda x, c: jnp.asarray(np.concatenate([eps_hat, v], 1)), True
    )


@pytest.fixture(params=PROCESSES)
def schedule(request):
    return request.param


@pytest.mark.parametrize("name", ["posterior", "beta", "learned"])
def test_log_variances(schedule, name, data):
    t, fraction = jnp.asarray(TIMES), (data[3] + 1) / 2
    ours = log_variance(PROCESSES[schedule], name, t - 1, t, jnp.asarray(fraction))
    theirs = OpenAI(schedule).log_variance(name, TIMES[:, None] - 1, fraction)
    np.testing.assert_allclose(np.reshape(ours, (len(t), -1)) + 0 * fraction, theirs, rtol=1e-9)


def test_the_clipped_variance_of_the_linear_schedule_is_the_number_of_their_code():
    # Measured in their code: log btilde_1 for small, large and the learned range's lower end.
    for name, fraction in (("posterior", None), ("beta", None), ("learned", jnp.zeros((1, 1)))):
        assert float(log_variance(PROCESSES["linear"], name, 0, 1, fraction).sum()) == pytest.approx(-9.817, abs=1e-3)


def test_posterior_mean(schedule, data):
    x_0, x_t, t = jnp.asarray(data[0]), jnp.asarray(data[1]), jnp.asarray(TIMES)
    theirs = OpenAI(schedule).mean(data[0], data[1], TIMES[:, None] - 1)
    np.testing.assert_allclose(posterior_mean(PROCESSES[schedule], x_0, x_t, t - 1, t), theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("log_var", [-9.8, -6.0, -2.0, 0.5])
def test_discretised_likelihood(log_var, data):
    mean = data[0] + 0.1 * data[1]
    ours = discretised_log_likelihood(*map(jnp.asarray, (data[0], mean, log_var)), tanh=True)
    np.testing.assert_allclose(np.exp(ours), np.exp(tanh_log_likelihood(data[0], mean, log_var)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["posterior", "beta", "learned"])
def test_vb_terms_bpd(schedule, name, data):
    x_0, eps, eps_hat, v = data
    t = jnp.asarray(TIMES)
    ours = term_bpd(our_model(schedule, eps_hat, v), name, jnp.asarray(x_0), jnp.asarray(eps), t - 1, t, tanh=True)
    theirs = OpenAI(schedule).vb_terms_bpd(name, x_0, eps, eps_hat, (v + 1) / 2, TIMES[:, None] - 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_prior_bpd(schedule, data):
    bar = OpenAI(schedule).bar[-1]
    theirs = normal_kl(np.sqrt(bar) * data[0], np.log(1 - bar), 0.0, 0.0).mean(axis=1) / np.log(2)
    np.testing.assert_allclose(prior_bpd(PROCESSES[schedule], jnp.asarray(data[0])), theirs, rtol=1e-6, atol=1e-15)


def test_rescaled_losses(schedule, data):
    # Theirs take the approximate likelihood for the step to clean data, ours the exact: that step is left out.
    x_0, eps, eps_hat, v = (a[1:] for a in data)
    model, t = our_model(schedule, eps_hat, v), jnp.asarray(TIMES[1:])
    terms = OpenAI(schedule).vb_terms_bpd("learned", x_0, eps, eps_hat, (v + 1) / 2, TIMES[1:, None] - 1)
    mse = ((eps - eps_hat) ** 2).mean(axis=1)
    for loss, theirs in (
        (hybrid(ONE), mse + terms * 1000 / 1000),  # RESCALED_MSE
        (vlb(), terms * 1000),  # RESCALED_KL
        (vlb(rescaled=False), terms),  # KL
    ):
        ours = loss.per_example(model, jnp.asarray(x_0), jnp.asarray(eps), t)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("t", [2, 3, 500, 1000])
def test_a_step_with_a_learned_range_is_that_of_diffusers(monkeypatch, schedule, t, data):
    # diffusers takes the upper end from its full table whatever the grid, and at t = 1 clamps the lower to 1e-20, where
    # no noise is added: steps of the full grid are compared.
    _, x_t, eps_hat, v = (a[:4] for a in data)
    scheduler = make_scheduler(DDPMScheduler, schedule, variance_type="learned_range")
    scheduler.betas = torch.from_numpy(OpenAI(schedule).betas)
    keys = jax.random.split(jax.random.key(0), 4)
    hand_noise(monkeypatch, scheduler, torch.from_numpy(np.array(normal(keys, (6,)))))
    output = torch.from_numpy(np.concatenate([eps_hat, v], axis=1))
    theirs = scheduler.step(output, t - 1, torch.from_numpy(x_t)).prev_sample
    estimate = Estimate(
        jnp.asarray(OpenAI(schedule).x0_hat(x_t, eps_hat, t - 1)), jnp.asarray(eps_hat), jnp.asarray((v + 1) / 2)
    )
    step = ancestral(PROCESSES[schedule], variance="learned").step
    ours = step(lambda x, t: estimate, jnp.asarray(x_t), jnp.int32(t), jnp.int32(t - 1), keys).x
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
