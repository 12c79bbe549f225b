"""The bound of infinitely many steps, and the process that is learned by it, against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import gaussian_eps
from processes import PROCESSES
from scipy.stats import norm

from ddpm.diffusion import predictions
from ddpm.diffusion.continuous_bound import LEVELS, diffusion_bpd, reconstruction_bpd, vdm_bpd
from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Process, rate
from ddpm.diffusion.processes import EDM, VE
from ddpm.diffusion.processes.learned import LearnedVP, init, of_variance
from ddpm.diffusion.variational import prior_bpd
from ddpm.errors import InputError

VARIANCE = 0.09


@dataclasses.dataclass(frozen=True, eq=False)
class Straight(Process):
    """log SNR from 8 to -6 as 8 - 14 u^power."""

    power: float
    T, t_min = 1.0, 0.0

    def log_snr(self, t):
        return 8 - 14 * jnp.asarray(t) ** self.power

    alpha, sigma = LearnedVP.alpha, LearnedVP.sigma


def gaussian_model(process):
    """The model that knows data N(0, VARIANCE)."""

    def network(x, t):
        return gaussian_eps(0.0, VARIANCE, process.alpha(t)[:, None], process.sigma(t)[:, None], x)

    return Model(process, predictions.eps()._replace(condition=lambda process, t: jnp.asarray(t)), network)


def integral(model):
    """The mean of diffusion_bpd over t, x_0 ~ N(0, VARIANCE) and eps.

    Gauss-Legendre in t, between the levels of a table, and in log t if t_min > 0; over x_0 and eps the quadratic form that
    it is has the mean of its values on the axes.
    """
    process = model.process
    logs = not process.discrete and process.t_min > 0
    edges = np.arange(1, process.T + 1) if process.discrete else np.array([process.t_min, process.T])
    edges = (np.log(edges) if logs else edges)[:, None]
    x, w = np.polynomial.legendre.leggauss(5 if process.discrete else 400)
    t, w = edges[:-1] + np.diff(edges, axis=0) * (x + 1) / 2, np.diff(edges, axis=0) * w / 2
    t, w = (np.exp(t), w * np.exp(t)) if logs else (t, w)
    t, w = jnp.asarray(t.ravel()), jnp.asarray(w.ravel())
    moments = VARIANCE * diffusion_bpd(model, *unit(t, 1, 0), t) + diffusion_bpd(model, *unit(t, 0, 1), t)
    return float((moments * w).sum() / (process.T - process.t_min))


def unit(t, *values):
    return (jnp.full((len(t), 1), float(value)) for value in values)


def i_mmse(first, last):
    """1/2 of the integral of MMSE over SNR from last to first, in bits: of x ~ N(0, VARIANCE)."""
    return 0.5 * np.log2((1 + np.exp(first) * VARIANCE) / (1 + np.exp(last) * VARIANCE))


def randomised(key, scale, **ends):
    params = init(jax.random.key(key), features=32, **ends)
    noise = lambda x: x + scale * jax.random.normal(jax.random.key(key + 1), x.shape, x.dtype)  # noqa: E731
    return {"ends": params["ends"], "shape": jax.tree.map(noise, params["shape"])}


@pytest.mark.parametrize(
    "process", [Straight(1.0), Straight(2.0), Straight(3.5), "learned"], ids=["line", "square", "steep", "learned"]
)
def test_the_bound_depends_on_the_end_points_alone(x64, process):
    if process == "learned":
        process = LearnedVP(randomised(0, 0.5, log_snr_max=8.0, log_snr_min=-6.0))
    assert integral(gaussian_model(process)) == pytest.approx(i_mmse(8, -6), rel=1e-9)


@pytest.mark.parametrize("name", ["ContinuousVP linear", "SubVP", "VE", "RectifiedFlow", "VP cosine"])
def test_the_diffusion_term_is_the_information_of_a_gaussian_for_every_kind_of_process(x64, name):
    process = PROCESSES[name]
    ends = (float(process.log_snr(float(t))) for t in (process.t_min, process.T))
    assert integral(gaussian_model(process)) == pytest.approx(i_mmse(*ends), rel=1e-6)


def test_the_decoder_is_bayes_rule_over_the_levels(x64):
    process = LearnedVP(init(jax.random.key(0), log_snr_max=6.0))  # blurred, so that many levels count
    t = jnp.zeros(())
    z, std = 0.3, float(process.sigma(t))
    levels = jnp.asarray(LEVELS)[:, None]
    eps = (z - process.alpha(t) * levels) / std  # one z, as made from each level
    p = np.asarray(2.0 ** -reconstruction_bpd(process, levels, eps))
    likelihoods = norm.pdf(z, float(process.alpha(t)) * LEVELS, std)
    np.testing.assert_allclose(p, likelihoods / likelihoods.sum(), rtol=1e-9)
    assert p.sum() == pytest.approx(1, rel=1e-12) and 0 < p.max() < 0.2


def test_levels_are_those_of_images():
    from ddpm.data.pixels import to_images

    pixels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(to_images(pixels).ravel(), LEVELS, atol=1e-6)
    for log_snr_max, low, high in ((13.3, -1e-9, 1e-6), (9.0, 1.0, 3.0)):  # noise of a sixth of a level, and of 1.4
        process = LearnedVP(init(jax.random.key(0), log_snr_max=log_snr_max))
        assert low < float(reconstruction_bpd(process, to_images(pixels), jnp.zeros((1, 16, 16, 1)))[0]) < high


def test_vdm_is_the_sum_of_its_terms(x64):
    x_0 = jnp.asarray(LEVELS)[np.array([[3, 90], [200, 255], [17, 128]])]
    eps, t = jax.random.normal(jax.random.key(1), x_0.shape), jnp.array([0.1, 0.5, 0.9])
    for process in (LearnedVP(randomised(0, 0.5)), PROCESSES["ContinuousVP cosine"], VE(), EDM()):
        model, s = gaussian_model(process), process.t_min + t * (process.T - process.t_min)
        terms = prior_bpd(process, x_0) + reconstruction_bpd(process, x_0, eps) + diffusion_bpd(model, x_0, eps, s)
        np.testing.assert_allclose(vdm_bpd(model, x_0, eps, s), terms, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), scale=st.floats(0, 5), top=st.floats(5, 20), bottom=st.floats(-20, -5))
def test_learned_log_snr_falls_between_its_end_points_whatever_the_parameters(seed, scale, top, bottom):
    with jax.enable_x64(True):
        params = randomised(seed, scale, log_snr_max=top, log_snr_min=bottom)
        params["shape"]["w_3"] *= 30  # so that the line is the lesser part
        process = LearnedVP(params)
        t = jnp.linspace(0, 1, 50)
        log_snr = process.log_snr(t)
        assert log_snr[0] == top and log_snr[-1] == bottom and (jnp.diff(log_snr) < 0).all()
        assert (rate(process.log_snr, t) < 0).all()
        np.testing.assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1, rtol=1e-12)
        np.testing.assert_allclose(process.time(log_snr), t, atol=1e-9)


def test_a_learned_process_starts_close_to_a_line():
    process, t = LearnedVP(init(jax.random.key(0))), jnp.linspace(0, 1, 50)
    np.testing.assert_allclose(process.log_snr(t), 13.3 + t * (-5 - 13.3), atol=0.1)
    assert float(process.log_snr(0)) == float(process.log_snr(jnp.array([0]))[0]) == np.float32(13.3)


def test_end_points_do_not_move_the_shape(x64):
    params, t = randomised(0, 2.0, log_snr_max=12.0, log_snr_min=-5.0), jnp.linspace(0, 1, 20)
    moved = {"log_snr_max": jnp.asarray(5.0), "log_snr_min": jnp.asarray(-8.0)}
    fallen = (12 - LearnedVP(params).log_snr(t)) / 17
    np.testing.assert_allclose((5 - LearnedVP(params | {"ends": moved}).log_snr(t)) / 13, fallen, rtol=1e-9, atol=1e-12)


def losses(process, x_0, eps, t):
    # The network is wrong, so that the gradient of nothing is zero, and is asked through the noise as it is.
    network = lambda x, condition: 0.7 * jnp.tanh(x) + 0.1 * condition[:, None]  # noqa: E731
    return Model(process, predictions.edm(), network), x_0, eps, t


@pytest.fixture
def batch(x64):
    x_0 = jnp.asarray(LEVELS)[np.random.default_rng(0).integers(0, 256, (6, 3))]
    return x_0, jax.random.normal(jax.random.key(1), (6, 3)), jnp.linspace(0.05, 0.95, 6)


def test_end_points_learn_the_bound_and_the_shape_the_variance(batch):
    params = randomised(3, 0.5)
    got = jax.grad(lambda p: vdm_bpd(*losses(LearnedVP(p), *batch)).mean())(params)

    def bound(ends):
        model, *rest = losses(LearnedVP(params | {"ends": ends}), *batch)
        terms = prior_bpd(model.process, rest[0]) + reconstruction_bpd(model.process, *rest[:2])
        return (terms + diffusion_bpd(model, *rest)).mean()

    def square(shape):
        return (diffusion_bpd(*losses(LearnedVP(params | {"shape": shape}), *batch)) ** 2).mean()

    for name, of in (("ends", bound), ("shape", square)):
        want = jax.grad(of)(params[name])
        assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(want)) > 1e-6
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got[name], want)


def test_of_variance_changes_gradients_alone(batch):
    process, t = LearnedVP(randomised(3, 0.5)), batch[2]
    same = of_variance(process, jnp.arange(6.0))
    for of in (lambda p: p.log_snr(t), lambda p: rate(p.alpha, t), lambda p: p.sigma(t)):
        np.testing.assert_allclose(of(same), of(process), rtol=1e-12)


def test_bad_arguments_are_named():
    with pytest.raises(InputError) as caught:
        init(jax.random.key(0), log_snr_min=14)
    assert (
        str(caught.value)
        == "log_snr_min = 14 is not in (-inf, -4.5); VDM starts with 13.3 and -5; sampling starts from noise."
    )
    with pytest.raises(InputError, match="features = 0 must be at least 1."):
        init(jax.random.key(0), features=0)
