"""The bound of Gaussian data and of data on a few levels, whose expectations are sums over a few nodes: no Monte Carlo.

Terms with s > 0 are quadratic in (x_0, eps), so that two Gauss-Hermite nodes each are exact.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gaussian_eps, mixture_eps, posterior_by_bayes
from processes import PROCESSES

from ddpm.diffusion import predictions, schedules
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import diffuse
from ddpm.diffusion.processes import VP
from ddpm.diffusion.variational import check_learned, prior_bpd, term_bpd
from ddpm.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")
LINEAR = schedules.linear(1000)
MEAN, VARIANCE = 0.4, 0.25  # of the data
LOG_2 = np.log(2)


def hermite(n):
    """Nodes and weights of the unit Gaussian."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()


def model_of(process, mean=MEAN, variance=VARIANCE, fraction=None, offset=0.0):
    """The exact model of N(mean, variance), its eps_hat off by `offset`; `fraction` is a table by t."""

    def network(x_t, condition):
        t = jnp.round(condition * process.T / 1000).astype(int)
        eps_hat = gaussian_eps(mean, variance, process.alpha(t)[:, None], process.sigma(t)[:, None], x_t) + offset
        if fraction is None:
            return eps_hat
        v = 2 * jnp.asarray(fraction)[t][:, None] - 1
        return jnp.concatenate([eps_hat, jnp.broadcast_to(v, x_t.shape)], axis=-1)

    return Model(process, predictions.eps(), network, learned_variance=fraction is not None)


def conditional_variance(alpha_bar, t):
    """Var[x_0 | x_t] of the data."""
    return 1 / (1 / VARIANCE + alpha_bar[t] / (1 - alpha_bar[t]))


def optimal_fraction(alpha_bar):
    """Where log Var[x_s | x_t], s = t - 1, is between posterior and beta, by t: Bayes' rule with the data's prior."""
    fraction = np.zeros(len(alpha_bar))
    for t in range(2, len(alpha_bar)):
        slope = (
            posterior_by_bayes(alpha_bar, 1.0, 0.0, t - 1, t)[0] - posterior_by_bayes(alpha_bar, 0.0, 0.0, t - 1, t)[0]
        )
        low = posterior_by_bayes(alpha_bar, 0.0, 0.0, t - 1, t)[1]
        best, high = low + slope**2 * conditional_variance(alpha_bar, t), 1 - alpha_bar[t] / alpha_bar[t - 1]
        fraction[t] = np.log(best / low) / np.log(high / low)
    return fraction


def expected_terms(model, variance):
    """E of the terms t = 2..T in nats."""
    t = np.arange(2, model.process.T + 1)
    nodes, weights = hermite(2)
    x_0, eps, t_all = np.meshgrid(MEAN + np.sqrt(VARIANCE) * nodes, nodes, t, indexing="ij")
    columns = (jnp.asarray(a.ravel()[:, None]) for a in (x_0, eps))
    times = jnp.asarray(t_all.ravel())
    terms = jax.jit(lambda x_0, eps, t: term_bpd(model, variance, x_0, eps, t - 1, t))(*columns, times)
    return np.einsum("i,j,ijt->t", weights, weights, np.asarray(terms).reshape(2, 2, -1)) * LOG_2


def expected_prior(process):
    nodes, weights = hermite(2)
    return weights @ prior_bpd(process, jnp.asarray(MEAN + np.sqrt(VARIANCE) * nodes)[:, None]) * LOG_2


def entropy(variance):
    return np.log(2 * np.pi * np.e * variance) / 2


def gaussian_kl(mean_1, variance_1, mean_2, variance_2):
    """In nats, from the textbook."""
    return np.log(variance_2 / variance_1) / 2 + (variance_1 + (mean_1 - mean_2) ** 2) / (2 * variance_2) - 0.5


@pytest.mark.parametrize("T", [10, 100, 1000])
def test_the_bound_of_the_exact_model_is_off_by_the_prior_alone(T):
    # KL(q(x_T) || N(0, 1)), the same for every number of steps: 3.23e-6.
    alpha_bar = LINEAR[:: 1000 // T]
    process = VP(alpha_bar)
    terms = expected_terms(model_of(process, fraction=optimal_fraction(alpha_bar)), "learned")
    of_data = entropy(conditional_variance(alpha_bar, 1))  # E -log p(x_0 | x_1), p being exact
    gap = expected_prior(process) + terms.sum() + of_data - entropy(VARIANCE)
    a = alpha_bar[-1]
    assert gap == pytest.approx(gaussian_kl(np.sqrt(a) * MEAN, a * VARIANCE + 1 - a, 0, 1), rel=1e-4)
    assert gap == pytest.approx(3.23e-6, rel=1e-2)


@pytest.mark.parametrize(("T", "expected"), [(10, 0.102), (100, 0.0109), (1000, 0.00110)])
def test_the_gap_with_the_variance_beta_falls_as_one_over_T(T, expected):
    # Measured with OpenAI's respacing. The last decoder is N(x0_hat, beta_1): E -log p in closed form.
    alpha_bar = LINEAR[np.r_[0, 1 + np.round(np.linspace(0, 999, T)).astype(int)]]
    process = VP(alpha_bar)
    beta, left = 1 - alpha_bar[1], conditional_variance(alpha_bar, 1)
    of_data = np.log(2 * np.pi * beta) / 2 + left / (2 * beta)
    gap = expected_prior(process) + expected_terms(model_of(process), "beta").sum() + of_data - entropy(VARIANCE)
    assert gap == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
@pytest.mark.parametrize(("s", "t"), [(1, 2), (400, 500), (999, 1000), (1, 1000)])
def test_a_term_is_the_kl_of_bayes_rule(variance, s, t):
    process, fraction = VP(LINEAR), 0.3
    model = model_of(process, fraction=np.full(1001, fraction), offset=0.2)
    x_0, eps = np.array([[0.3, -0.9], [0.5, 0.1]]), np.array([[-0.7, 2.0], [0.3, 1.0]])
    x_t = np.sqrt(LINEAR[t]) * x_0 + np.sqrt(1 - LINEAR[t]) * eps
    eps_hat = gaussian_eps(MEAN, VARIANCE, np.sqrt(LINEAR[t]), np.sqrt(1 - LINEAR[t]), x_t) + 0.2
    x0_hat = (x_t - np.sqrt(1 - LINEAR[t]) * eps_hat) / np.sqrt(LINEAR[t])
    true_mean, low = posterior_by_bayes(LINEAR, x_0, x_t, s, t)
    mean, _ = posterior_by_bayes(LINEAR, x0_hat, x_t, s, t)
    beta = 1 - LINEAR[t] / LINEAR[s]
    ours = {"beta": beta, "posterior": low, "learned": beta**fraction * low ** (1 - fraction)}[variance]
    expected = gaussian_kl(true_mean, low, mean, ours).mean(axis=1) / LOG_2
    term = term_bpd(model, variance, jnp.asarray(x_0), jnp.asarray(eps), s, t)
    np.testing.assert_allclose(term, expected, rtol=1e-7)


def test_the_prior_term_is_a_kl_to_the_noise_that_sampling_starts_from():
    x_0 = jnp.array([[[0.5], [-1.0]], [[0.0], [0.25]]])
    for name, process in PROCESSES.items():
        alpha, sigma = float(process.alpha(process.T)), float(process.sigma(process.T))
        expected = gaussian_kl(alpha * x_0, sigma**2, 0, process.prior_scale**2).mean(axis=(1, 2)) / LOG_2
        np.testing.assert_allclose(prior_bpd(process, x_0), expected, rtol=1e-5, atol=1e-13, err_msg=name)


def test_times_of_a_batch_may_be_mixed_under_jit_and_gradients_are_finite():
    process = VP(LINEAR)
    s, t = jnp.array([0, 1, 0, 99, 999]), jnp.array([1, 2, 500, 100, 1000])
    x_0, eps = jnp.linspace(-1, 1, 256)[jnp.array([0, 255, 100, 20, 77])][:, None], jnp.full((5, 1), 0.7)
    model = lambda offset: model_of(process, fraction=np.full(1001, 0.4), offset=offset)  # noqa: E731
    for variance in ("beta", "posterior", "learned"):
        of = jax.jit(lambda offset, *a, v=variance: term_bpd(model(offset), v, *a))
        each = [of(0.1, x_0[i : i + 1], eps[i : i + 1], s[i], t[i])[0] for i in range(5)]
        np.testing.assert_allclose(of(0.1, x_0, eps, s, t), each, rtol=1e-9)
        with jax.enable_x64(False):
            singles = [jnp.asarray(np.asarray(a), jnp.float32) for a in (x_0, eps)]
            singles += [jnp.asarray(np.asarray(a), jnp.int32) for a in (s, t)]
            assert np.isfinite(jax.jit(jax.jacfwd(of))(jnp.float32(0.1), *singles)).all()


def test_the_term_at_time_zero_is_the_density_over_a_narrow_bin():
    # beta_1 = 0.05: the density hardly changes over 2/255.
    process = VP(np.array([1.0, 0.95, 0.5, 0.005]))
    x_0, eps = jnp.linspace(-1, 1, 256)[100:160:7][:, None], jnp.full((9, 1), 0.5)
    x_1 = diffuse(process, x_0, 1, eps)
    x0_hat = (x_1 - np.sqrt(0.05) * gaussian_eps(MEAN, VARIANCE, np.sqrt(0.95), np.sqrt(0.05), x_1)) / np.sqrt(0.95)
    _, variance = posterior_by_bayes(process.alpha_bar, 0.0, 0.0, 1, 2)  # of the pair (1, 2), as OpenAI clips
    density = np.exp(-((x_0 - x0_hat) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    for tanh, rtol in ((False, 1e-3), (True, 2e-2)):
        term = term_bpd(model_of(process), "posterior", x_0, eps, 0, 1, tanh=tanh)
        np.testing.assert_allclose(term, -np.log2(density[:, 0] * 2 / 255), rtol=rtol)


def exact_model_of_levels(process, levels, probabilities):
    """The exact denoiser of data on a few levels: a mixture of points."""
    exact = functools.partial(mixture_eps, levels[:, None], 0 * levels, probabilities)

    def network(x_t, condition):
        t = jnp.round(condition * process.T / 1000).astype(int)
        return jax.vmap(lambda a, s, x: exact(a, s, x[None])[0])(process.alpha(t), process.sigma(t), x_t)

    return Model(process, predictions.eps(), network)


def bound_of_levels(model, variance, levels, probabilities):
    """(the expected bound in bits of data on a few levels, the least term with s > 0)."""
    T, (nodes, weights) = model.process.T, hermite(40)
    t, x_0, eps = (a.ravel() for a in np.meshgrid(np.arange(1, T + 1), levels, nodes, indexing="ij"))
    arguments = jnp.asarray(x_0[:, None]), jnp.asarray(eps[:, None]), jnp.asarray(t - 1), jnp.asarray(t)
    terms = np.asarray(term_bpd(model, variance, *arguments)).reshape(T, len(levels), 40)
    prior = prior_bpd(model.process, jnp.asarray(levels[:, None]))
    return float(probabilities @ prior + (terms @ weights @ probabilities).sum()), terms[1:].min()


LEVELS, PROBABILITIES = np.linspace(-1, 1, 256)[[60, 130, 200]], np.array([0.2, 0.5, 0.3])
ENTROPY = -(PROBABILITIES * np.log2(PROBABILITIES)).sum()


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
@pytest.mark.parametrize(
    ("mean", "spread", "offset"), [(0.1, 0.3, 0.0), (0.1, 0.3, 0.1), (-0.5, 0.05, 0.0), (0.0, 1.0, -0.3)]
)
def test_the_bound_is_never_below_the_entropy(variance, mean, spread, offset):
    process = VP(schedules.cosine(20))
    model = model_of(process, mean, spread, fraction=np.linspace(0.9, 0.1, 21), offset=offset)
    bound, least = bound_of_levels(model, variance, LEVELS, PROBABILITIES)
    assert bound >= ENTROPY and least >= 0


def test_the_bound_of_the_exact_model_of_levels_comes_down_to_the_entropy_as_one_over_T():
    gaps = []
    for T in (200, 800):  # evenly in log SNR, from noise far below a level's width: the last step is sure of the level
        process = VP(np.r_[1, 1 / (1 + np.exp(-np.linspace(18, -10, T)))])
        model = exact_model_of_levels(process, LEVELS, PROBABILITIES)
        gaps.append(bound_of_levels(model, "posterior", LEVELS, PROBABILITIES)[0] - ENTROPY)
    assert gaps[1] > 0 and gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)


def test_with_stop_mean_only_the_variance_learns():
    process = VP(LINEAR)
    x_0, eps, t = jnp.full((3, 1), 1 / 255), jnp.full((3, 1), 0.7), jnp.array([1, 2, 600])

    @functools.partial(jax.jit, static_argnums=2)
    def terms(offset, fraction, stop_mean):
        model = model_of(process, fraction=jnp.full(1001, 1.0) * fraction, offset=offset)
        return term_bpd(model, "learned", x_0, eps, t - 1, t, stop_mean=stop_mean)

    of_mean, of_variance = jax.jacfwd(terms, argnums=(0, 1))(0.1, 0.4, True)
    of_mean_too, of_variance_too = jax.jacfwd(terms, argnums=(0, 1))(0.1, 0.4, False)
    assert (of_mean == 0).all() and (of_mean_too != 0).all() and (of_variance != 0).all()
    np.testing.assert_allclose(of_variance, of_variance_too, rtol=1e-12)


def test_a_learned_variance_needs_a_model_that_learns_it():
    model = model_of(VP(LINEAR))
    for variance in ("beta", "posterior"):
        check_learned(model, variance)
    check_learned(model_of(VP(LINEAR), fraction=np.zeros(1001)), "learned")
    x = jnp.zeros((1, 1))
    for of in (lambda: check_learned(model, "learned"), lambda: term_bpd(model, "learned", x, x, 1, 2)):
        with pytest.raises(InputError, match=r"^variance 'learned' needs a network that says one: take 'beta' or"):
            of()


def test_data_outside_the_levels_are_refused():
    x_0, vp = jnp.array([[0.5, 1.5]]), VP(schedules.cosine(10))
    model = Model(vp, predictions.eps(), lambda x, t: x)
    with pytest.raises(InputError) as caught:
        term_bpd(model, "beta", x_0, jnp.zeros_like(x_0), 1, 2)
    assert str(caught.value) == (
        "data reach from 0.5 to 1.5, but the 256 levels are in [-1, 1]: scale bytes by to_images of ddpm/data/pixels.py."
    )
