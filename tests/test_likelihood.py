"""Likelihoods by the probability-flow ODE, of a mixture of Gaussians and of every process, against the exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import mixture_eps
from processes import PROCESSES

from ddpm.diffusion import predictions
from ddpm.diffusion.likelihood import bits_per_dim, dequantise, ode_log_likelihood
from ddpm.diffusion.model import Model
from ddpm.diffusion.processes import EDM, RectifiedFlow
from ddpm.errors import InputError

MEANS, VARIANCES = np.array([[0.5, -0.3], [-0.6, 0.2], [0.1, 0.7]]), np.array([0.04, 0.02, 0.1])
WEIGHTS = np.array([0.5, 0.2, 0.3])
ONE = MEANS[:1], VARIANCES[:1], WEIGHTS[:1] * 2  # a single Gaussian
THREE = MEANS, VARIANCES, WEIGHTS
X_0 = np.array([[0.4, -0.2], [-0.5, 0.1], [0.0, 0.0], [0.9, 0.9]])
TIGHT = dict(rtol=1e-9, atol=1e-9)


def log_density(x, alpha, sigma, means, variances, weights):
    v = alpha**2 * variances + sigma**2
    squares = ((x[:, None, :] - alpha * means[None]) ** 2).sum(-1)
    terms = -squares / (2 * v[None]) - x.shape[-1] / 2 * jnp.log(2 * jnp.pi * v)[None] + jnp.log(weights)[None]
    return jax.nn.logsumexp(terms, axis=1)


def exact_model(process, mixture=THREE, calls=None):
    """The model that knows E[eps | x_t] and E[x_0 | x_t] of a mixture, at t = T without signal too."""
    means, variances, weights = (jnp.asarray(a) for a in mixture)

    def network(x, condition):
        if calls is not None:
            jax.debug.callback(lambda _: calls.append(1), condition)
        t = condition[0]
        alpha, sigma = process.alpha(t), process.sigma(t)
        eps = mixture_eps(means, variances, weights, alpha, sigma, x)
        v = alpha**2 * variances + sigma**2
        residual = x[:, None, :] - alpha * means[None]
        logits = jnp.log(weights)[None] - x.shape[-1] / 2 * jnp.log(v)[None] - (residual**2).sum(-1) / (2 * v[None])
        each = means[None] + (alpha * variances / v)[None, :, None] * residual
        return alpha * eps - sigma * (jax.nn.softmax(logits, axis=1)[..., None] * each).sum(1)

    return Model(process, predictions.v()._replace(condition=lambda process, t: jnp.asarray(t)), network)


def log_likelihood(process, x_0=X_0, mixture=THREE, seed=0, **options):
    """That of the ODE, with the exact q_T for a prior unless told otherwise."""
    T = float(process.T)
    prior = lambda x: log_density(x, process.alpha(T), process.sigma(T), *map(jnp.asarray, mixture))  # noqa: E731
    options = dict(prior=prior, trace="exact", **TIGHT) | options
    keys = jax.random.split(jax.random.key(seed), len(x_0))
    function = jax.jit(lambda x: ode_log_likelihood(exact_model(process, mixture), x, keys=keys, **options))
    return function(jnp.asarray(x_0))


def exact(process, x_0=X_0, mixture=THREE):
    """The density of x_0 + (sigma / alpha) eps at t_min."""
    t = float(process.t_min)
    return log_density(jnp.asarray(x_0), 1.0, process.sigma(t) / process.alpha(t), *map(jnp.asarray, mixture))


@pytest.mark.parametrize("name", PROCESSES)
def test_log_likelihood_of_a_mixture_is_exact_for_every_process(x64, name):
    process = PROCESSES[name]
    log_p, nfe = log_likelihood(process)
    np.testing.assert_allclose(log_p, exact(process), atol=1e-6)
    assert 100 < nfe < 10000


def test_the_prior_is_noise_of_the_process_scale(x64):
    for process, atol in ((EDM(), 0.01), (RectifiedFlow(), 1e-6)):
        np.testing.assert_allclose(log_likelihood(process, prior=None, rtol=1e-7)[0], exact(process), atol=atol)


@pytest.mark.parametrize("trace", ["rademacher", "gaussian"])
def test_hutchinson_is_right_in_the_mean(x64, trace):
    process, num = PROCESSES["ContinuousVP cosine"], 4000
    log_p, _ = log_likelihood(process, np.repeat(X_0[:1], num, 0), trace=trace, rtol=1e-5, atol=1e-5)
    assert float(log_p.std()) > 0.05
    assert abs(float(log_p.mean() - exact(process)[0])) < 4 * float(log_p.std()) / num**0.5


def test_rademacher_is_exact_where_the_jacobian_is_diagonal(x64):
    process = PROCESSES["SubVP"]
    log_p, _ = log_likelihood(process, mixture=ONE, trace="rademacher")
    np.testing.assert_allclose(log_p, exact(process, mixture=ONE), atol=1e-6)
    gaussian, _ = log_likelihood(process, mixture=ONE, trace="gaussian")
    assert (jnp.abs(gaussian - log_p) > 1e-2).all()


def test_an_example_has_a_draw_of_its_own_and_the_same_likelihood_in_any_batch(x64):
    process = PROCESSES["VE"]
    keys = jax.random.split(jax.random.key(0), 4)
    function = lambda x, keys: ode_log_likelihood(exact_model(process), x, keys=keys, **TIGHT)[0]  # noqa: E731
    together = jax.jit(function)(jnp.asarray(X_0), keys)
    alone = jax.jit(function)(jnp.asarray(X_0[2:3]), keys[2:3])
    np.testing.assert_allclose(alone, together[2:3], atol=1e-7)
    assert abs(float(jax.jit(function)(jnp.asarray(X_0[2:3]), keys[:1])[0] - alone[0])) > 1e-3


def test_evaluations_are_counted(x64):
    process, calls = RectifiedFlow(), []
    keys = jax.random.split(jax.random.key(0), 4)
    _, nfe = ode_log_likelihood(exact_model(process, calls=calls), jnp.asarray(X_0), keys=keys)
    jax.effects_barrier()
    assert int(nfe) == len(calls)


def test_float32_is_good_to_a_thousandth():
    for name in ("VP linear", "RectifiedFlow"):
        process = PROCESSES[name]
        log_p, _ = log_likelihood(process, X_0.astype(np.float32), rtol=1e-5, atol=1e-5)
        assert log_p.dtype == jnp.float32
        np.testing.assert_allclose(log_p, exact(process, X_0.astype(np.float32)), atol=2e-3)


def test_too_many_steps_are_nan(x64):
    log_p, _ = log_likelihood(RectifiedFlow(), max_steps=8)
    assert jnp.isnan(log_p).all()


def test_an_unknown_trace_is_named():
    with pytest.raises(InputError) as caught:
        log_likelihood(RectifiedFlow(), X_0.astype(np.float32), trace="exakt")
    assert str(caught.value) == "unknown trace 'exakt'. Did you mean 'exact'? Known: exact, gaussian, rademacher."


def test_dequantised_pixels_fill_their_level_evenly_and_stay_in_it():
    pixels = jnp.tile(jnp.arange(256, dtype=jnp.uint8)[None], (500, 1))
    keys = jax.random.split(jax.random.key(0), 500)
    x = dequantise(pixels, keys)
    assert (jnp.floor((x + 1) * 128) == pixels).all() and float(x.min()) >= -1 and float(x.max()) < 1
    u = np.asarray((x + 1) * 128 - pixels)
    counts = np.histogram(u, 64, (0, 1))[0]
    assert ((counts - u.size / 64) ** 2 / (u.size / 64)).sum() < 63 + 5 * np.sqrt(126)
    np.testing.assert_array_equal(dequantise(pixels[3:4], keys[3:4]), x[3:4])


def test_bits_of_dequantised_levels_bound_their_entropy(x64):
    levels = np.arange(256)
    pmf = np.exp(-0.5 * ((levels - 90) / 20) ** 2) + 0.01
    pmf /= pmf.sum()
    entropy = -(pmf * np.log2(pmf)).sum()
    x = dequantise(jnp.asarray(levels, jnp.uint8)[:, None], jax.random.split(jax.random.key(0), 256))
    histogram = jnp.log(jnp.asarray(pmf) / (2 / 256))  # the density that is even in each level
    assert float((pmf * bits_per_dim(histogram, 1)).sum()) == pytest.approx(entropy, rel=1e-12)
    smooth = log_density(x, 1.0, 0.0, jnp.array([[-0.3]]), jnp.array([0.1]), jnp.array([1.0]))
    assert entropy < float((pmf * bits_per_dim(smooth, 1)).sum()) < entropy + 1
    np.testing.assert_allclose(bits_per_dim(3 * histogram, 3), bits_per_dim(histogram, 1), rtol=1e-12)
