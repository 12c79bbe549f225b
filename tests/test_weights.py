"""Every loss weight with every prediction type and process, found by themselves: the same error weighs the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import PROCESSES, times_of

from ddpm import names
from ddpm.diffusion import predictions, weights
from ddpm.diffusion.prediction import check
from ddpm.diffusion.processes import VP, RectifiedFlow
from ddpm.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")
WEIGHTS = {name: make() for name, make in names.public(weights).items()}
PREDICTIONS = {name: make() for name, make in names.public(predictions).items()}
SILENT = VP(np.array([1.0, 0.5, 0.0]))  # a table that ends without signal
EVERY = PROCESSES | {"VP silent": SILENT}


def possible(process):
    """The prediction types that the process allows, by name."""
    found = {}
    for name, prediction in PREDICTIONS.items():
        try:
            check(process, prediction, name)
        except InputError:
            continue
        found[name] = prediction
    return found


def times(process, num=100):
    return jnp.asarray(np.unique(times_of(process, num)))


def snr(process, t):
    return np.asarray(process.alpha(t) / process.sigma(t), np.float64) ** 2


@pytest.fixture(params=EVERY)
def process(request):
    return EVERY[request.param]


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "output"])
def test_an_error_of_x0_weighs_the_same_whatever_the_network_predicts(name, process):
    t = times(process)
    of_x0 = np.random.default_rng(0).normal(size=t.shape)
    of_eps = -process.alpha(t) / process.sigma(t) * of_x0  # x_t is the same
    weighted = {}
    for kind, prediction in possible(process).items():
        a, b = prediction.mixture(process, t)
        weighted[kind] = WEIGHTS[name](process, prediction, t) * (a * of_x0 + b * of_eps) ** 2
    for kind in weighted:
        np.testing.assert_allclose(weighted[kind], weighted["x0"], rtol=1e-6, err_msg=kind)


def test_output_is_one_for_all(process):
    for prediction in possible(process).values():
        np.testing.assert_array_equal(weights.output()(process, prediction, times(process)), 1)


@pytest.mark.parametrize("name", WEIGHTS)
def test_finite_everywhere_positive_where_there_is_signal_and_the_same_in_single_precision(name, process):
    for kind, prediction in possible(process).items():
        exact = np.asarray(WEIGHTS[name](process, prediction, times(process)))
        with jax.enable_x64(False):
            t = times(process)
            weight, alpha = WEIGHTS[name](process, prediction, t), process.alpha(t)
            assert weight.dtype == jnp.float32 and weight.shape == t.shape
            assert jnp.isfinite(weight).all(), kind
            inner = (t < process.T) | process.discrete  # a log SNR of real times may end flat
            assert (weight[(alpha > 0) & inner] > 0).all(), kind
            one = WEIGHTS[name](process, prediction, t[0].item())
            np.testing.assert_allclose(one, weight[0], rtol=1e-5)
        np.testing.assert_allclose(weight[inner], exact[inner], rtol=5e-3, err_msg=kind)


def test_what_is_left_without_signal():
    # T = 2, beta_2 = 1, alpha_bar_1 = 1/2: the bound's weight of x_0 is T beta alpha_bar_1 / (2 ln 2).
    known = {"simple": 0, "output": 1, "vlb": 0.5 / np.log(2), "min_snr": 0, "p2": 0, "edm": 4}
    known["sigmoid"] = known["vlb"]
    for kind in ("v", "x0"):
        got = {name: float(WEIGHTS[name](SILENT, PREDICTIONS[kind], 2)) for name in known}
        assert got == pytest.approx(known, abs=1e-12)
    flow = {name: float(WEIGHTS[name](RectifiedFlow(), PREDICTIONS["velocity"], 1.0)) for name in known}
    assert flow == pytest.approx({**known, "vlb": 0, "sigmoid": 0}, abs=1e-12)


positive = st.floats(0.01, 100)


@settings(max_examples=10, deadline=None)
@given(gamma=positive)
def test_min_snr_of_eps_x0_and_v_are_those_of_the_paper(gamma):
    for name in ("VP linear", "VP cosine", "ContinuousVP sigmoid"):
        t = times(PROCESSES[name])
        r = snr(PROCESSES[name], t)
        for kind, weight in (
            ("eps", np.minimum(r, gamma) / r),
            ("x0", np.minimum(r, gamma)),
            ("v", np.minimum(r, gamma) / (r + 1)),
        ):
            got = weights.min_snr(gamma)(PROCESSES[name], PREDICTIONS[kind], t)
            np.testing.assert_allclose(got, weight, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(gamma=st.floats(0.1, 3), k=positive, bias=st.floats(-10, 10))
def test_simple_p2_and_sigmoid_in_eps_are_those_of_the_papers(gamma, k, bias):
    for name in ("VP linear", "ContinuousVP cosine", "VE", "EDM", "SubVP"):
        process, eps = PROCESSES[name], PREDICTIONS["eps"]
        t = times(process)
        r = snr(process, t)
        np.testing.assert_allclose(weights.simple()(process, eps, t), 1, rtol=1e-12)
        np.testing.assert_allclose(weights.p2(gamma, k)(process, eps, t), (k + r) ** -gamma, rtol=1e-5)
        bound = weights.vlb()(process, eps, t)
        np.testing.assert_allclose(weights.sigmoid(bias)(process, eps, t), bound / (1 + r * np.exp(-bias)), rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(sigma_data=positive)
def test_edm_is_one_for_its_prediction_and_as_in_table_1_for_its_denoiser(sigma_data):
    for process in EVERY.values():
        t = times(process)
        one = weights.edm(sigma_data)(process, predictions.edm(sigma_data), t)
        np.testing.assert_allclose(one, 1, rtol=1e-9)
    s = times(PROCESSES["EDM"])
    weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
    np.testing.assert_allclose(weights.edm(sigma_data)(PROCESSES["EDM"], PREDICTIONS["x0"], s), weight, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in PROCESSES if not PROCESSES[name].discrete])
def test_vlb_of_real_times_integrates_to_the_information_of_a_gaussian(name):
    # x_0 ~ N(0, 1): E (x0_hat - x_0)^2 = 1 / (1 + SNR), and 1/2 int mmse dSNR = 1/2 log (1 + SNR) (I-MMSE).
    process = PROCESSES[name]
    nodes, areas = np.polynomial.legendre.leggauss(400)
    y = np.log(process.t_min) + (nodes + 1) / 2 * np.log(process.T / process.t_min)  # t = e^y
    t = jnp.exp(y)
    error = 1 / (1 + snr(process, t))
    density = t / (process.T - process.t_min) * np.log(process.T / process.t_min) / 2
    mean = (areas * density * weights.vlb()(process, PREDICTIONS["x0"], t) * error).sum()
    first, last = (snr(process, time) for time in (process.t_min, process.T))
    assert float(mean) == pytest.approx(np.log2((1 + first) / (1 + last)) / 2, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name].discrete])
def test_vlb_of_levels_is_the_divergence_of_the_two_posteriors(name):
    # KL of two Gaussians with variance beta_t: squared distance of means / (2 beta_t). The mean of q(x_s | x_t, x_0) is
    # alpha_s x_0 + Cov(x_s, x_t) / Var(x_t) (x_t - alpha_t x_0) with Cov = (alpha_t / alpha_s) sigma_s^2.
    bar = EVERY[name].alpha_bar
    T, alpha, variance = len(bar) - 1, np.sqrt(bar), 1 - bar
    slope = alpha[1:] / alpha[:-1]

    def mean(x_0, x_t):
        return alpha[:-1] * x_0 + slope * variance[:-1] / variance[1:] * (x_t - alpha[1:] * x_0)

    kl = (mean(0.3, 0.8) - mean(-0.4, 0.8)) ** 2 / (2 * (1 - slope**2))
    weight = weights.vlb()(EVERY[name], PREDICTIONS["x0"], jnp.arange(1, T + 1))
    np.testing.assert_allclose(weight * 0.7**2, T * kl / np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weights.min_snr(gamma=0), "gamma = 0 is not in (0, inf); Min-SNR uses 5."),
        (lambda: weights.p2(gamma=-1.0), "gamma = -1.0 is not in (0, inf); P2 uses gamma = 0.5 or 1 and k = 1."),
        (lambda: weights.p2(k=0.0), "k = 0.0 is not in (0, inf); P2 uses gamma = 0.5 or 1 and k = 1."),
        (lambda: weights.edm(sigma_data=0.0), "sigma_data = 0.0 is not in (0, inf); EDM uses 0.5."),
        (
            lambda: weights.sigmoid(bias=np.inf),
            "bias = inf is not in (-inf, inf); Kingma and Gao use 2, Simpler diffusion -3 to -1.",
        ),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
