import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import betas_of, posterior_by_bayes
from processes import PROCESSES, times_of

from ddpm.diffusion import schedules
from ddpm.diffusion.model import Estimate
from ddpm.diffusion.prediction import eps_from_x0
from ddpm.diffusion.process import Noiseless, diffuse, posterior_mean, posterior_variance, transition_variance
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling.ddim import ddim

pytestmark = pytest.mark.usefixtures("x64")
PAIRS = [(0, 1), (1, 2), (499, 500), (999, 1000), (0, 1000), (100, 900)]


@pytest.fixture(params=["linear", "cosine"])
def vp(request):
    return VP(getattr(schedules, request.param)(1000))


def test_forward_marginal_is_the_single_steps_composed(vp):
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas_of(vp.alpha_bar)):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta  # Eq. 2
        assert vp.alpha(t) == pytest.approx(mean, rel=1e-9)
        assert vp.sigma(t) == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_log_snr_is_that_of_alpha_and_sigma(vp):
    t = jnp.arange(1, 1001)
    np.testing.assert_allclose(vp.log_snr(t), 2 * np.log(vp.alpha(t) / vp.sigma(t)), rtol=1e-9, atol=1e-12)
    assert vp.log_snr(0) == np.inf


def test_diffuse_mixes_data_and_noise_per_example(vp):
    x_0, eps = jnp.full((2, 3, 3, 1), 0.5), jnp.ones((2, 3, 3, 1))
    x_t = diffuse(vp, x_0, jnp.array([0, 700]), eps)
    np.testing.assert_array_equal(x_t[0], x_0[0])
    a = vp.alpha_bar[700]
    np.testing.assert_allclose(x_t[1], 0.5 * np.sqrt(a) + np.sqrt(1 - a), rtol=1e-12)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_transition_variance_is_that_of_the_steps_between(vp, s, t):
    kept = np.prod(1 - betas_of(vp.alpha_bar)[s + 1 : t + 1])
    assert transition_variance(vp, s, t) == pytest.approx(1 - kept, rel=1e-8)


@pytest.mark.parametrize(("s", "t"), PAIRS[1:4] + PAIRS[5:])
def test_posterior_is_bayes_rule(vp, s, t):
    x_0, x_t = np.array([[0.3, -1.0]]), np.array([[-0.7, 2.0]])
    mean, variance = posterior_by_bayes(vp.alpha_bar, x_0, x_t, s, t)
    np.testing.assert_allclose(posterior_mean(vp, jnp.asarray(x_0), jnp.asarray(x_t), s, t), mean, rtol=1e-8)
    assert posterior_variance(vp, s, t) == pytest.approx(variance, rel=1e-8)


def test_posterior_at_time_zero_is_the_data(vp):
    x_0, x_t = jnp.array([[0.3]]), jnp.array([[5.0]])
    np.testing.assert_allclose(posterior_mean(vp, x_0, x_t, 0, 1), x_0, rtol=1e-9)
    assert posterior_variance(vp, 0, 1) == 0


def test_eps_is_what_x0_leaves_of_x_t_at_every_time(vp):
    t = jnp.arange(1, 1001)
    x_0 = jax.random.uniform(jax.random.key(0), (1000, 4), minval=-1, maxval=1)
    eps = jax.random.normal(jax.random.key(1), (1000, 4))
    x_t = diffuse(vp, x_0, t, eps)
    np.testing.assert_allclose(eps_from_x0(vp, x_0, x_t, t), eps, atol=1e-8)


@pytest.mark.parametrize(
    ("told", "seen"), [("share", [0.25, 1000]), ("index", [0, 3999]), ("scaled_index", [0, 999.75])]
)
def test_networks_see_times_as_they_are_told(told, seen):
    vp = VP(schedules.cosine(4000), told)
    np.testing.assert_allclose(vp.seen(jnp.array([1, 4000])), seen, rtol=1e-6)
    np.testing.assert_allclose(vp.fraction(jnp.array([1, 4000])), [1 / 4000, 1])


def test_another_way_to_tell_times_is_refused():
    with pytest.raises(InputError, match=r"^unknown process.VP.told 'indices'. Did you mean 'index'\?"):
        VP(schedules.cosine(4000), "indices")


def test_a_process_that_ends_with_signal_left_is_refused():
    with pytest.raises(InputError) as caught:
        VP(schedules.linear(100, beta_T=0.002))
    assert str(caught.value) == (
        "alpha_bar_T = 0.3475 leaves signal in x_T, but sampling starts from pure noise: it must be at most 0.01. "
        "Use more noise levels (T = 100), larger betas, or the cosine schedule."
    )


@pytest.mark.parametrize("table", [[1.0, 0.5, 0.6, 0.001], [1.0, 0.5, 0.5, 0.001], [1.0, 0.5, -0.1]])
def test_a_table_that_does_not_fall_is_refused(table):
    with pytest.raises(InputError, match="must fall strictly from 1"):
        VP(np.array(table))


@pytest.mark.parametrize("table", [[0.9, 0.5, 0.001], [1.0, 0.001]])
def test_a_table_without_time_zero_is_refused(table):
    with pytest.raises(InputError, match="is no table of T"):
        VP(np.array(table))


@pytest.mark.parametrize("name", PROCESSES)
def test_without_noise_a_process_ends_in_the_data_and_is_else_the_same(name):
    process = PROCESSES[name]
    clean = Noiseless(process)
    assert (clean.T, clean.t_min, clean.discrete, clean.prior_scale) == (
        process.T, process.t_min, process.discrete, process.prior_scale
    )  # fmt: skip
    zero = jnp.asarray(0 if process.discrete else 0.0)
    assert (clean.alpha(zero), clean.sigma(zero), clean.log_snr(zero)) == (1, 0, np.inf)
    for t in map(jnp.asarray, times_of(process, 5)):
        for coefficient in ("alpha", "sigma", "log_snr"):
            assert getattr(clean, coefficient)(t) == getattr(process, coefficient)(t)
    x_t, estimate = jnp.array([[0.3, -2.0]]), Estimate(jnp.array([[0.5, 0.1]]), jnp.array([[1.0, 0.2]]))
    last = (
        ddim(clean)
        .step(lambda x, t: estimate, x_t, jnp.asarray(process.t_min), zero, per_index(stream(0, "x"), jnp.arange(1)))
        .x
    )
    np.testing.assert_array_equal(last, estimate.x0)
