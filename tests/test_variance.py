"""The variances of p_theta: between those of q, by Bayes' rule, and finite at both ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import betas_of, posterior_by_bayes
from processes import PROCESSES, times_of

from ddpm.diffusion import schedules
from ddpm.diffusion.model import Estimate
from ddpm.diffusion.process import posterior_variance, transition_variance
from ddpm.diffusion.processes import EDM, VP, RectifiedFlow
from ddpm.diffusion.variance import VARIANCES, log_variance, optimal_variance
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling.ancestral import ancestral

pytestmark = pytest.mark.usefixtures("x64")
COSINE = VP(schedules.cosine(1000))
PAIRS = [(1, 2), (499, 500), (100, 900), (1, 1000)]


def bayes(s, t):
    return posterior_by_bayes(COSINE.alpha_bar, 0.0, 0.0, s, t)[1]


def kept(s, t):
    return np.prod(1 - betas_of(COSINE.alpha_bar)[s + 1 : t + 1])


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_after_time_zero_they_are_those_of_q(s, t):
    assert float(log_variance(COSINE, "posterior", s, t)) == pytest.approx(np.log(bayes(s, t)), rel=1e-7)
    assert float(log_variance(COSINE, "beta", s, t)) == pytest.approx(np.log(1 - kept(s, t)), rel=1e-7)


@pytest.mark.parametrize("t", [1, 100, 500])
def test_at_time_zero_the_posterior_of_twice_the_time_is_taken(t):
    expected = np.log(bayes(t, 2 * t))
    for name in ("posterior", "beta"):
        assert float(log_variance(COSINE, name, 0, t)) == pytest.approx(expected, rel=1e-7)
    fraction = jnp.array([[0.0, 1.0, 0.25]])
    beta = np.log(1 - kept(0, t))
    learned = log_variance(COSINE, "learned", 0, t, fraction)
    np.testing.assert_allclose(learned, [[expected, beta, 0.25 * beta + 0.75 * expected]], rtol=1e-7)


@pytest.mark.parametrize("t", [700, 999, 1000])
def test_twice_the_time_is_no_more_than_T(t):
    expected = np.log(bayes(t, 1000) if t < 1000 else 1 - kept(0, 1000))
    for name in ("posterior", "beta"):
        assert float(log_variance(COSINE, name, 0, t)) == pytest.approx(expected, rel=1e-6)


def test_a_fraction_is_how_far_log_variance_is_from_posterior_to_beta():
    s, t = (jnp.asarray(times) for times in zip(*PAIRS, strict=True))
    low, high = (log_variance(COSINE, name, s, t)[:, None] for name in ("posterior", "beta"))
    for fraction in (0.0, 0.3, 1.0, 1.2):
        learned = log_variance(COSINE, "learned", s, t, jnp.full((4, 2), fraction))
        np.testing.assert_allclose(
            learned, jnp.broadcast_to(low + fraction * (high - low), (4, 2)), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("x64_too", [True, False], ids=["float64", "float32"])
def test_all_are_finite_and_ordered_at_every_pair_of_every_process(name, x64_too):
    process = PROCESSES[name]
    with jax.enable_x64(x64_too):
        times = times_of(process, 12)
        s, t = (jnp.asarray(side) for side in (np.concatenate([0 * times, times[:-1]]), np.r_[times, times[1:]]))
        fraction = jnp.linspace(0.0, 1.0, len(t))
        low, high = log_variance(process, "posterior", s, t), log_variance(process, "beta", s, t)
        learned = log_variance(process, "learned", s, t, fraction)
        assert np.isfinite([low, high, learned]).all()
        assert (low <= high + 1e-5).all()
        gradient = jax.grad(lambda fraction: log_variance(process, "learned", s, t, fraction).sum())(fraction)
        np.testing.assert_allclose(
            gradient[low < high], (log_variance(process, "learned", s, t, 0 * t + 1.0) - low)[low < high], atol=1e-4
        )


def test_gradients_by_time_are_finite():
    for process in (RectifiedFlow(), EDM(), PROCESSES["ContinuousVP cosine"]):
        for name in ("beta", "posterior"):
            of_time = lambda t, process=process, name=name: log_variance(process, name, 0.0, t)  # noqa: E731
            assert np.isfinite(jax.grad(of_time)(0.3 * process.T))


def test_times_in_a_batch_are_each_their_own():
    for process, s, t in (
        (COSINE, np.array([0, 1, 0, 7]), np.array([1, 2, 1000, 900])),
        (EDM(), np.array([0.0, 1.0, 0.0, 7.0]), np.array([0.002, 2.0, 80.0, 70.0])),
    ):
        for name in ("beta", "posterior"):
            each = [
                float(log_variance(process, name, jnp.asarray(a), jnp.asarray(b))) for a, b in zip(s, t, strict=True)
            ]
            batch = jax.jit(functools.partial(log_variance, process, name))(jnp.asarray(s), jnp.asarray(t))
            np.testing.assert_allclose(batch, each, rtol=1e-12)


@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 500), (1, 2), (400, 700), (999, 1000)])
@pytest.mark.parametrize(("fraction", "fixed"), [(1.0, "beta"), (0.0, "posterior")])
def test_ancestral_sampling_with_a_learned_variance_has_the_fixed_ones_at_its_ends(s, t, fraction, fixed):
    x_t, keys = jnp.array([[0.3, -2.0], [1.0, 0.1]]), per_index(stream(0, "x"), jnp.arange(2))

    def step(variance, of):
        denoise = lambda x, t: Estimate(0.5 * x, 0.5 * x, of)  # noqa: E731
        return ancestral(COSINE, variance=variance).step(denoise, x_t, jnp.int32(t), jnp.int32(s), keys).x

    ours, other = step("learned", jnp.full((2, 2), fraction)), step(fixed, None)
    np.testing.assert_allclose(ours, other, rtol=1e-12)
    if s:
        assert (np.abs(ours - step("learned", jnp.full((2, 2), 0.5))) > 1e-6).all() or t - s == 1
    else:  # no noise in the last step
        np.testing.assert_allclose(ours, 0.5 * x_t, rtol=1e-9)


def test_an_unknown_name_and_a_network_without_variance_are_refused():
    assert VARIANCES == ("beta", "posterior", "learned")
    with pytest.raises(InputError) as caught:
        log_variance(COSINE, "betta", 1, 2)
    assert str(caught.value) == "unknown variance 'betta'. Did you mean 'beta'? Known: beta, learned, posterior."
    with pytest.raises(InputError) as caught:
        log_variance(COSINE, "learned", 1, 2)
    assert str(caught.value) == (
        "variance 'learned' needs a network that says one: take 'beta' or 'posterior', or train with the loss hybrid "
        "or vlb, whose networks have twice the channels."
    )


@pytest.mark.usefixtures("x64")
def test_the_optimal_variance_is_bounded_for_a_network_that_is_not_exact():
    """Of data in [-1, 1] the variance of x_0 given x_t is at most 1, whatever a network says where next to no signal is left."""
    s, t = 990, 1000
    c = float(COSINE.alpha(s) * transition_variance(COSINE, s, t) / COSINE.sigma(t) ** 2)
    for eps_power in (0.0, 0.9, 0.999):
        found = float(optimal_variance(COSINE, s, t, jnp.asarray(eps_power)))
        assert found == pytest.approx(float(posterior_variance(COSINE, s, t)) + c**2, rel=1e-9)
    assert float(optimal_variance(COSINE, s, t, jnp.ones(()))) == pytest.approx(float(posterior_variance(COSINE, s, t)))
