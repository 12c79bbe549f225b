"""Every process, found by itself, against what the SDE that it claims to be does to a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import PROCESSES, times_of
from scipy.integrate import solve_ivp

from ddpm.diffusion import continuous
from ddpm.diffusion.process import diffusion_squared, drift, posterior_mean, posterior_variance, transition_variance
from ddpm.diffusion.processes import EDM, VE, ContinuousVP, RectifiedFlow, SubVP
from ddpm.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


@pytest.fixture(params=[name for name in PROCESSES if not PROCESSES[name].discrete])
def smooth(request):
    return PROCESSES[request.param]


def test_log_snr_is_that_of_alpha_and_sigma_and_falls(process):
    t = jnp.asarray(times_of(process, 200)[:-1])
    log_snr = process.log_snr(t)
    np.testing.assert_allclose(log_snr, 2 * (jnp.log(process.alpha(t)) - jnp.log(process.sigma(t))), atol=2e-6)
    assert (jnp.diff(log_snr) < 0).all() and (jnp.diff(process.sigma(t)) > 0).all()


def test_time_inverts_log_snr(process):
    t = jnp.asarray(times_of(process, 50)[:-1])
    np.testing.assert_allclose(process.time(process.log_snr(t)), t, rtol=1e-6, atol=1e-9)


def test_sampling_starts_from_noise_of_the_right_scale(process):
    sigma = process.sigma(process.T if process.discrete else float(process.T))
    assert float(sigma) == pytest.approx(process.prior_scale, rel=0.01)


def test_a_gaussian_that_follows_the_sde_has_the_mean_and_variance_that_alpha_and_sigma_say(smooth):
    # dm/dt = f m and dV/dt = 2 f V + g^2 for x(t_min) = alpha x_0 + sigma eps with x_0 ~ N(1, 0.3^2).
    first, last = smooth.t_min + 0.01 * (smooth.T - smooth.t_min), 0.95 * smooth.T
    f, g2 = jax.jit(lambda t: drift(smooth, t)), jax.jit(lambda t: diffusion_squared(smooth, t))

    def moments(t):
        return np.array([smooth.alpha(t), smooth.alpha(t) ** 2 * 0.09 + smooth.sigma(t) ** 2], dtype=float)

    solved = solve_ivp(
        lambda t, y: [float(f(t)) * y[0], 2 * float(f(t)) * y[1] + float(g2(t))],
        (first, last), moments(first), rtol=1e-9, atol=1e-12, method="DOP853",
    )  # fmt: skip
    np.testing.assert_allclose(solved.y[:, -1], moments(last), rtol=1e-6)


def test_drift_and_diffusion_are_those_of_the_papers():
    t = jnp.linspace(0.01, 0.99, 50)
    beta = 0.1 + 19.9 * t
    integral = 0.1 * t + 19.9 * t**2 / 2
    ratio = jnp.log(100 / 0.02)
    for process, f, g2 in (
        (ContinuousVP(continuous.linear), -beta / 2, beta),  # score SDE, Eq. 32
        (SubVP(), -beta / 2, beta * (1 - jnp.exp(-2 * integral))),  # Eq. 33's variance: that of Eq. 34
        (VE(), 0 * t, (0.02 * (100 / 0.02) ** t) ** 2 * 2 * ratio),  # Eq. 30
        (RectifiedFlow(), -1 / (1 - t), 2 * t / (1 - t)),
        (EDM(), 0 * t, 2 * t),
    ):
        np.testing.assert_allclose(drift(process, t), f, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(diffusion_squared(process, t), g2, rtol=1e-8)


def test_posterior_is_bayes_rule_for_every_process(process):
    for early, late in ((1, 3), (2, 7), (5, 6)):
        times = times_of(process, 9)
        s, t = times[early].item(), times[late].item()
        alpha_s, sigma_s, alpha_t, sigma_t = (float(f(u)) for u in (s, t) for f in (process.alpha, process.sigma))
        slope = alpha_t / alpha_s
        likelihood = sigma_t**2 - slope**2 * sigma_s**2
        precision = 1 / sigma_s**2 + slope**2 / likelihood
        mean = (alpha_s * 0.3 / sigma_s**2 + slope * -0.7 / likelihood) / precision
        assert float(transition_variance(process, s, t)) == pytest.approx(likelihood, rel=1e-6)
        assert float(posterior_variance(process, s, t)) == pytest.approx(1 / precision, rel=1e-6)
        got = posterior_mean(process, jnp.array([[0.3]]), jnp.array([[-0.7]]), s, t)
        np.testing.assert_allclose(got, [[mean]], rtol=1e-6, atol=1e-9)


def test_a_table_between_its_times_is_on_the_line_of_log_alpha_bar():
    vp = PROCESSES["VP linear"]
    middle = np.sqrt(vp.alpha_bar[500] * vp.alpha_bar[501])
    assert float(vp.alpha(500.5)) ** 2 == pytest.approx(middle, rel=1e-9)
    assert float(vp.sigma(500.5)) ** 2 == pytest.approx(1 - middle, rel=1e-9)
    np.testing.assert_allclose(vp.alpha(jnp.arange(1.0, 1001)), vp.alpha(jnp.arange(1, 1001)), rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_tables_of_betas_tend_to_their_functions(name):
    from ddpm.diffusion import schedules

    gap = []
    for T in (500, 1000, 2000):
        table = getattr(schedules, name)(T)[1:]
        gap.append(
            np.abs(np.log(table) - np.log(jax.nn.sigmoid(getattr(continuous, name)(jnp.arange(1, T + 1) / T)))).max()
        )
    np.testing.assert_allclose(np.log2(np.divide(gap[:-1], gap[1:])), 1, atol=0.1)  # first order in 1 / T


@pytest.mark.parametrize("name", ["cosine", "sigmoid"])
def test_functions_are_their_tables_where_nothing_is_capped(name):
    from ddpm.diffusion import schedules

    table, u = getattr(schedules, name)(1000), jnp.arange(1, 990) / 1000
    np.testing.assert_allclose(jax.nn.sigmoid(getattr(continuous, name)(u)), table[1:990], atol=3e-9)


def test_cosine_without_offset_is_minus_two_log_tan():
    u = jnp.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(continuous.cosine(u, s=0.0), -2 * jnp.log(jnp.tan(jnp.pi * u / 2)), atol=1e-5)


def test_the_shift_of_a_flow_moves_its_log_snr():
    t = jnp.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(
        RectifiedFlow(shift=3.0).log_snr(t), RectifiedFlow().log_snr(t) - 2 * np.log(3), atol=1e-12
    )
    np.testing.assert_allclose(RectifiedFlow(shift=3.0).alpha(t) + RectifiedFlow(shift=3.0).sigma(t), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ContinuousVP(lambda t: continuous.linear(t, beta_max=4.0)),
            "alpha_bar_T = 0.1287 leaves signal in x_T, but sampling starts from pure noise: it must be at most 0.01. "
            "Use a larger beta_max, or the cosine schedule.",
        ),
        (
            lambda: VE(sigma_min=2.0, sigma_max=1.0),
            "sigma_min = 2.0 is not in (0, 1); it must be positive and below sigma_max.",
        ),
        (
            lambda: EDM(sigma_min=0.0),
            "sigma_min = 0.0 is not in (0, 80); it must be positive and below sigma_max.",
        ),
        (
            lambda: RectifiedFlow(shift=0.0),
            "shift = 0.0 is not in (0, inf); 1 is none; Stable Diffusion 3 uses 3 at 1024 pixels.",
        ),
        (lambda: SubVP(beta_min=-1.0), "beta_min = -1.0 is not in (0, inf); score SDE uses 0.1 and 20."),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
