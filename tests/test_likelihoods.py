"""Bits per dimension of images under models whose likelihood is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gaussian_eps
from processes import PROCESSES, eps_model
from scipy import stats

from ddpm.data.images import Dataset
from ddpm.diffusion.likelihood import dequantise
from ddpm.diffusion.processes import ContinuousVP
from ddpm.errors import InputError
from ddpm.evaluation import bits_per_dim, likelihoods, sources
from ddpm.rng import fold_in_all, per_index, stream

LEVEL = 200
X_0 = LEVEL / 127.5 - 1
PIXELS = jnp.full((4, 2, 3, 1), LEVEL, jnp.uint8)
KEYS = per_index(stream(0, "likelihood"), jnp.arange(4))
NAMES = ["VP cosine", "ContinuousVP linear", "SubVP", "EDM"]


def exact(process, mean=X_0, variance=0.0):
    def predict(x_t, t):
        alpha, sigma = (f(t)[:, None, None, None] for f in (process.alpha, process.sigma))
        return gaussian_eps(mean, variance, alpha, sigma, x_t)

    return eps_model(process, predict)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("levels", [7, 1000])
def test_the_bound_of_a_point_is_its_data_term_and_prior_alone(levels):
    vp = PROCESSES["VP cosine"]
    rows = jax.jit(lambda: likelihoods.vlb_bpd(exact(vp), PIXELS, KEYS, variance="posterior", levels=levels))()
    a = vp.alpha_bar
    beta_1, beta_2 = 1 - a[1], 1 - a[2] / a[1]
    std = np.sqrt(beta_2 * beta_1 / (1 - a[2]))  # the posterior's of t = 2: clipped at t = 1
    inside = stats.norm.cdf(X_0 + 1 / 255, X_0, std) - stats.norm.cdf(X_0 - 1 / 255, X_0, std)
    np.testing.assert_allclose(rows["vlb_data_bpd"], -np.log2(inside), rtol=1e-5)
    mean, variance = np.sqrt(a[-1]) * X_0, 1 - a[-1]
    kl = 0.5 * (variance + mean**2 - 1 - np.log(variance)) / np.log(2)
    np.testing.assert_allclose(rows["vlb_prior_bpd"], kl, rtol=1e-5)
    np.testing.assert_allclose(rows["terms"], 0, atol=1e-4)
    np.testing.assert_allclose(rows["vlb_bpd"], kl - np.log2(inside), atol=1e-4)
    assert rows["times"].min() >= 2 and rows["times"].max() <= 1000
    if levels == 1000:
        np.testing.assert_array_equal(rows["times"][0], np.arange(2, 1001))


@pytest.mark.usefixtures("x64")
def test_fewer_levels_estimate_the_same_bound():
    # eps_hat = 0: each term is known, a quadratic in eps.
    model = eps_model(PROCESSES["VP linear"], lambda x_t, t: jnp.zeros_like(x_t))
    pixels = jnp.full((64, 8, 8, 1), LEVEL, jnp.uint8)
    keys = per_index(stream(0, "likelihood"), jnp.arange(64))
    whole, some = (
        jax.jit(lambda levels=levels: likelihoods.vlb_bpd(model, pixels, keys, variance="beta", levels=levels))()
        for levels in (999, 40)
    )
    np.testing.assert_allclose(some["terms"].mean(), whole["terms"].mean(), rtol=0.03)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["ContinuousVP linear", "RectifiedFlow", "EDM", "VE"])
def test_the_continuous_bound_of_unit_noise_is_information(name):
    # I-MMSE: 1/2 int mmse dsnr = 1/2 log((1 + snr_max v) / (1 + snr_min v)) of N(m, v) data.
    process, v = PROCESSES[name], 0.04
    rng = np.random.default_rng(0)
    levels = np.clip(np.round((rng.normal(0, np.sqrt(v), (64, 16, 16, 1)) + 1) * 127.5), 0, 255)
    keys = per_index(stream(0, "likelihood"), jnp.arange(64))
    model = exact(process, 0.0, v)
    run = jax.jit(lambda pixels: likelihoods.vlb_bpd(model, pixels, keys, variance="beta", levels=200, log_snr_max=6.0))
    rows = run(jnp.asarray(levels, jnp.uint8))
    low = max(float(process.log_snr(float(process.T))), -20.0)
    high = min(float(process.log_snr(float(process.t_min))), 6.0)
    information = 0.5 * np.log2((1 + np.exp(high) * v) / (1 + np.exp(low) * v))
    assert rows["terms"].mean() == pytest.approx(information, rel=0.02)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_the_ode_knows_the_density_of_gaussian_data(name):
    process, mean, variance = PROCESSES[name], 0.1, 0.09
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(60, 200, (4, 2, 3, 1)), jnp.uint8)
    model = exact(process, mean, variance)
    rows = likelihoods.ode_bpd(model, pixels, KEYS, trace="exact", rtol=1e-7, atol=1e-7)
    x = np.asarray(dequantise(pixels, fold_in_all(KEYS, 0)))
    start = float(process.t_min)
    noise = float((process.sigma(start) / process.alpha(start)) ** 2)
    log_p = stats.norm.logpdf(x, mean, np.sqrt(variance + noise)).reshape(4, -1).mean(1)
    prior = 5e-3 if name != "EDM" else 1e-2  # that of the process is not exactly N(0, prior_scale^2)
    np.testing.assert_allclose(rows["ode_bpd"], -log_p / np.log(2) + 7, atol=prior)
    assert (rows["ode_nfe"] > 6).all()


def test_no_density_without_noise():
    process = ContinuousVP(PROCESSES["ContinuousVP linear"].function, t_min=0.0)
    with pytest.raises(InputError, match=r"^at t_min = 0 there is no noise"):
        likelihoods.ode_bpd(exact(process), PIXELS, KEYS)


def counting(calls):
    def ode_bpd(model, pixels, keys, *, scale):
        jax.debug.callback(lambda: calls.append(1))
        u = jax.vmap(jax.random.uniform)(keys)
        return {"ode_bpd": scale * pixels.reshape(len(pixels), -1).mean(1) + u * model, "more": jnp.ones((len(u), 3))}

    return ode_bpd


def rows(calls, cache=None, num=10, batch_size=8):
    pixels = np.random.default_rng(0).integers(0, 256, (num, 4, 4, 1), dtype=np.uint8)
    source = sources.of_dataset(Dataset(pixels), "x")
    return bits_per_dim.rows_of(
        counting(calls), {"scale": 2.0}, lambda params, labels: params["a"], {"a": jnp.ones(())}, source,
        seed=0, batch_size=batch_size, about={}, cache=cache,
    )  # fmt: skip


def test_rows_do_not_depend_on_the_batch_and_are_computed_once(tmp_path):
    calls = []
    whole = rows(calls, tmp_path)
    assert whole["ode_bpd"].shape == (10,) and whole["more"].shape == (10, 3)
    jax.effects_barrier()
    before = len(calls)
    np.testing.assert_array_equal(rows(calls, tmp_path)["ode_bpd"], whole["ode_bpd"])
    jax.effects_barrier()
    assert len(calls) == before
    np.testing.assert_allclose(rows(calls, batch_size=16)["ode_bpd"], whole["ode_bpd"], rtol=1e-6)


def test_figures_are_means_with_standard_errors():
    found = bits_per_dim.figures({"ode_bpd": np.array([1.0, 2.0, 6.0]), "nfe": np.ones(3), "terms": np.ones((3, 2))})
    assert found == {"ode_bpd": 3.0, "ode_bpd_stderr": pytest.approx(np.sqrt(7 / 3)), "nfe": 1.0}


def test_what_is_not_finite_is_counted_and_refused():
    source = sources.of_dataset(Dataset(np.zeros((3, 2, 2, 1), np.uint8)), "x")

    def ode_bpd(model, pixels, keys):
        return {"ode_bpd": jnp.full(len(pixels), jnp.nan)}

    with pytest.raises(InputError, match=r"^ode_bpd of 3 of 3 images is not finite: no figure is computed."):
        bits_per_dim.rows_of(
            ode_bpd, {}, lambda p, labels: p, {}, source, seed=0, batch_size=8, about={}, cache=None
        )  # fmt: skip
