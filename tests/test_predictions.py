"""Every prediction type with every process, found by themselves: through the hub and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import PREDICTIONS, PROCESSES, possible, times_of

from ddpm.diffusion import predictions
from ddpm.diffusion.prediction import check, determinant, target, x0_and_eps
from ddpm.diffusion.process import diffuse
from ddpm.diffusion.processes import EDM, VP, ContinuousVP, RectifiedFlow
from ddpm.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(params=[(p, n) for p in PROCESSES for n in PREDICTIONS if possible(PROCESSES[p], n)], ids=" ".join)
def pair(request):
    return PROCESSES[request.param[0]], PREDICTIONS[request.param[1]]


def test_a_true_output_gives_the_true_x0_and_eps_at_every_time(pair):
    process, prediction = pair
    t = jnp.asarray(times_of(process, 100))
    x_0 = jax.random.uniform(jax.random.key(0), (100, 4), minval=-1, maxval=1)
    eps = jax.random.normal(jax.random.key(1), (100, 4))
    x_t = diffuse(process, x_0, t, eps)
    x0_hat, eps_hat = x0_and_eps(process, prediction, target(process, prediction, x_0, eps, t), x_t, t)
    np.testing.assert_allclose(x0_hat, x_0, atol=1e-6)
    np.testing.assert_allclose(eps_hat, eps, atol=1e-6)


def test_what_is_given_back_is_always_a_mixture_that_makes_x_t(pair):
    process, prediction = pair
    t = jnp.asarray(times_of(process, 20))
    x_t, output = (jax.random.normal(jax.random.key(i), (20, 4)) for i in range(2))
    x0_hat, eps_hat = x0_and_eps(process, prediction, output, x_t, t)
    np.testing.assert_allclose(diffuse(process, x0_hat, t, eps_hat), x_t, atol=1e-6)


def test_v_is_the_rotation_of_the_paper_and_finite_without_signal():
    vp = VP(np.array([1.0, 0.5, 0.0]))
    x_0, eps = jnp.array([[0.3], [0.3]]), jnp.array([[2.0], [2.0]])
    v = target(vp, PREDICTIONS["v"], x_0, eps, jnp.array([1, 2]))
    np.testing.assert_allclose(v, [[np.sqrt(0.5) * 2 - np.sqrt(0.5) * 0.3], [-0.3]], rtol=1e-12)
    x0_hat, _ = x0_and_eps(vp, PREDICTIONS["v"], v, diffuse(vp, x_0, jnp.array([1, 2]), eps), jnp.array([1, 2]))
    np.testing.assert_allclose(x0_hat, x_0, rtol=1e-12)


def test_velocity_is_the_slope_of_the_path_by_finite_differences():
    x_0, eps, t, h = jnp.array([[0.3]]), jnp.array([[2.0]]), jnp.array([0.4]), 1e-6
    for process in (RectifiedFlow(), PROCESSES["ContinuousVP linear"], PROCESSES["VE"]):
        slope = (diffuse(process, x_0, t + h, eps) - diffuse(process, x_0, t - h, eps)) / (2 * h)
        np.testing.assert_allclose(target(process, PREDICTIONS["velocity"], x_0, eps, t), slope, rtol=1e-6)
    np.testing.assert_allclose(target(RectifiedFlow(), PREDICTIONS["velocity"], x_0, eps, t), eps - x_0)


def test_score_is_the_gradient_of_the_forward_density():
    process, x_0, eps, t = PROCESSES["ContinuousVP cosine"], jnp.array([[0.3]]), jnp.array([[0.7]]), jnp.array([0.4])
    x_t = diffuse(process, x_0, t, eps)
    mean, std = float(process.alpha(0.4)) * 0.3, float(process.sigma(0.4))
    log_q = lambda x: jax.scipy.stats.norm.logpdf(x, mean, std).sum()  # noqa: E731
    np.testing.assert_allclose(target(process, PREDICTIONS["score"], x_0, eps, t), jax.grad(log_q)(x_t), rtol=1e-9)


def test_edm_makes_inputs_and_targets_of_variance_one_at_every_noise():
    # x_0 ~ N(0, sigma_data^2): Var[c_in x] = 1 and Var[F] = a^2 sigma_data^2 + b^2 = 1 (EDM, Eq. 114 and 117).
    for process in (EDM(), PROCESSES["VP linear"]):
        t = jnp.asarray(times_of(process, 60))
        prediction = predictions.edm(sigma_data=0.5)
        a, b = prediction.mixture(process, t)
        variance = process.alpha(t) ** 2 * 0.25 + process.sigma(t) ** 2
        np.testing.assert_allclose(prediction.input_scale(process, t) ** 2 * variance, 1, rtol=1e-9)
        np.testing.assert_allclose(a**2 * 0.25 + b**2, 1, rtol=1e-9)


def test_edm_denoiser_is_written_out_as_in_table_1():
    sigma, x, F = jnp.array([0.01, 0.5, 7.0]), jnp.array([[0.2], [-1.0], [9.0]]), jnp.array([[0.5], [-0.3], [1.1]])
    c_skip = 0.25 / (sigma**2 + 0.25)
    c_out = sigma * 0.5 / jnp.sqrt(0.25 + sigma**2)
    x0_hat, _ = x0_and_eps(EDM(), predictions.edm(sigma_data=0.5), F, x, sigma)
    np.testing.assert_allclose(x0_hat, c_skip[:, None] * x + c_out[:, None] * F, rtol=1e-9)
    np.testing.assert_allclose(predictions.edm().condition(EDM(), sigma), jnp.log(sigma) / 4, rtol=1e-9)


def test_the_network_sees_times_up_to_1000():
    for name in ("VP cosine", "ContinuousVP linear", "RectifiedFlow", "EDM"):
        process = PROCESSES[name]
        assert float(PREDICTIONS["v"].condition(process, jnp.asarray(process.T))) == 1000


@pytest.mark.parametrize("name", ["eps", "score"])
def test_noise_alone_says_nothing_of_data_where_no_signal_is_left(name):
    for process in (RectifiedFlow(), VP(np.array([1.0, 0.5, 0.0])), ContinuousVP(lambda t: -60 * t)):
        with pytest.raises(InputError) as caught:
            check(process, PREDICTIONS[name], name)
        assert str(caught.value).startswith(f"prediction '{name}' is impossible where alpha_T = ")
        assert str(caught.value).endswith(
            "Use v or x0 (or velocity with RectifiedFlow), or a process that keeps some signal."
        )
    assert float(jnp.abs(determinant(RectifiedFlow(), PREDICTIONS["velocity"], 1.0))) == 1
