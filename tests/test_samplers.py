"""What every sampling algorithm is held to, each found by itself; the orders of convergence are in test_order.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import mixture_eps, posterior_by_bayes
from processes import eps_model
from samplers import KEY, SAMPLERS, gaussian_denoiser, moments_of_a_run, process_of, table, vp_sde

from ddpm.diffusion.model import Estimate
from ddpm.diffusion.process import diffuse
from ddpm.rng import per_index, stream
from ddpm.sampling import driver, grids
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.ddim import ddim
from ddpm.sampling.deis import deis
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.dpm_solver import dpm_solver
from ddpm.sampling.dpm_solver_pp import dpm_solver_pp
from ddpm.sampling.euler import euler
from ddpm.sampling.euler_ancestral import euler_ancestral
from ddpm.sampling.euler_maruyama import euler_maruyama
from ddpm.sampling.heun import heun
from ddpm.sampling.predictor_corrector import predictor_corrector
from ddpm.sampling.sde_dpm_solver_pp import sde_dpm_solver_pp
from ddpm.sampling.unipc import unipc

process = table


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 3, 10, 40])
def test_ancestral_beta_keeps_unit_gaussian_data_but_for_the_noiseless_last_step(num_steps, monkeypatch):
    vp = process()
    mean, variance = moments_of_a_run(ancestral, vp, grids.trailing(vp, num_steps), 0.0, 1.0, monkeypatch)
    # Every noisy step keeps variance 1 exactly; the last multiplies by alpha_s of its time.
    assert mean == 0
    assert variance == pytest.approx(vp.alpha_bar[grids.trailing(vp, num_steps)[-2]], rel=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 3, 10, 40])
def test_ancestral_posterior_and_ddim_are_exact_for_a_point(num_steps, monkeypatch):
    for make in (functools.partial(ancestral, variance="posterior"), ddim, functools.partial(ddim, eta=0.7)):
        mean, variance = moments_of_a_run(make, process(), grids.trailing(process(), num_steps), 0.6, 0.0, monkeypatch)
        assert mean == pytest.approx(0.6, abs=1e-9) and variance == pytest.approx(0.0, abs=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("s", [0, 300])
def test_one_deterministic_step_lands_on_the_forward_process(s):
    vp, x_0, eps = process(), jnp.array([[0.3, -0.8]]), jnp.array([[1.2, -0.4]])
    x_t = vp.alpha(900) * x_0 + vp.sigma(900) * eps
    x_s = ddim(vp).step(lambda x, t: Estimate(x_0, eps), x_t, 900, s, None).x
    np.testing.assert_allclose(x_s, vp.alpha(s) * x_0 + vp.sigma(s) * eps, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_ddim_with_eta_1_is_ancestral_with_the_posterior_variance():
    vp = process()
    denoise, keys = gaussian_denoiser(vp, 0.4, 0.25), per_index(stream(0, "x"), jnp.arange(8))
    times = grids.trailing(vp, 1000)
    a = driver.generate(ddim(vp, eta=1.0), denoise, jnp.asarray(times), keys, (2,)).x
    b = driver.generate(ancestral(vp, variance="posterior"), denoise, jnp.asarray(times), keys, (2,)).x
    np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_noise_is_eta_times_that_of_the_posterior(eta, monkeypatch):
    vp, (s, t) = process(), (400, 700)

    def step(z):
        monkeypatch.setattr("ddpm.sampling.ddim.normal", lambda keys, shape: jnp.full((1, *shape), z))
        return float(
            ddim(vp, eta=eta)
            .step(lambda x, t: Estimate(x, x), jnp.ones((1, 1)), jnp.int32(t), jnp.int32(s), None)
            .x[0, 0]
        )

    _, variance = posterior_by_bayes(vp.alpha_bar, 0.0, 0.0, s, t)
    assert step(1.0) - step(0.0) == pytest.approx(eta * np.sqrt(variance), rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_a_mixture_are_the_mixture(name):
    means, variances, weights = np.array([[-0.6] * 16, [0.5] * 16]), np.array([0.01, 0.02]), np.array([0.3, 0.7])
    process = process_of(name, "linear")

    def predict(x_t, t):
        return mixture_eps(means, variances, weights, process.alpha(t[0]), process.sigma(t[0]), x_t)

    keys = per_index(stream(0, "x"), jnp.arange(1000))
    times = jnp.asarray(grids.trailing(process, 1 if name == "ode" else 200))
    made = SAMPLERS[name](process)
    x = np.asarray(
        jax.jit(
            lambda keys: driver.generate(made, denoiser(eps_model(process, predict), clip=False), times, keys, (16,)).x
        )(keys)
    )
    first = np.linalg.norm(x - means[0], axis=1) < np.linalg.norm(x - means[1], axis=1)
    assert first.mean() == pytest.approx(0.3, abs=0.05)
    assert x[first].mean() == pytest.approx(-0.6, abs=0.01)
    assert x[~first].var(0).mean() == pytest.approx(variances[1], rel=0.2)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("num_steps", [1, 4, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_called_as_often_as_is_counted(name, num_steps, final):
    process, calls = process_of(name), []

    def counting(x_t, t):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.zeros_like(x_t)

    keys = per_index(stream(0, "x"), jnp.arange(1))
    times = jnp.asarray(grids.trailing(process, num_steps, final=final))
    run = driver.generate(SAMPLERS[name](process), denoiser(eps_model(process, counting), clip=True), times, keys, (3,))
    jax.effects_barrier()
    assert run.nfe.shape == (1,) and len(calls) == run.nfe[0]
    end = final == "zero"
    expected = {
        "dpm_solver": 2 * num_steps - end,
        "heun": 2 * num_steps - end,
        "predictor_corrector": 2 * num_steps,
        "pndm": num_steps + 3 * min(num_steps - end, 3),
    }
    if name != "ode":
        assert run.nfe[0] == expected.get(name, num_steps)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name](vp_sde()).deterministic])
def test_a_known_image_and_noise_stay_on_their_path(name):
    """Where the network says the same everywhere, every deterministic sampler lands on alpha_s x_0 + sigma_s eps, exactly."""
    x_0, eps = jnp.array([[0.3, -0.8]]), jnp.array([[1.2, -0.4]])
    for process in (process_of(name), vp_sde()):
        for final, num_steps in (("zero", 8), ("sigma_min", 8), ("zero", 20)):
            times = jnp.asarray(grids.trailing(process, num_steps, final=final))
            x_T = diffuse(process, x_0, times[0], eps)
            keys = per_index(stream(0, "x"), jnp.arange(1))
            run = driver.solve(
                SAMPLERS[name](process), lambda x, t: Estimate(x_0, eps), x_T, times, keys, keep_path=True
            )
            for t, x in zip(times, run.path, strict=True):
                np.testing.assert_allclose(x, diffuse(process, x_0, t, eps), atol=1e-4 if name == "ode" else 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 3, 10, 40, 999])
@pytest.mark.parametrize(("mean", "variance"), [(0.4, 0.25), (-0.2, 0.01)])
def test_the_optimal_variance_is_exact_for_a_gaussian(num_steps, mean, variance, monkeypatch):
    vp, real = table(), lambda t: jnp.asarray(t)

    def eps_power(t):
        a, s = vp.alpha(real(t)), vp.sigma(real(t))
        return s**2 / (a**2 * variance + s**2)

    times = grids.trailing(vp, num_steps, final="sigma_min")
    start = float(vp.alpha(vp.T)) * mean, float(vp.alpha(vp.T)) ** 2 * variance + float(vp.sigma(vp.T)) ** 2
    make = functools.partial(ancestral, variance="optimal", eps_power=eps_power)
    found = moments_of_a_run(make, vp, times, mean, variance, monkeypatch, start=start)
    a, s = float(vp.alpha(1)), float(vp.sigma(1))
    assert found == (pytest.approx(a * mean, rel=1e-6), pytest.approx(a**2 * variance + s**2, rel=1e-6))
    if num_steps < 100:
        other = moments_of_a_run(
            functools.partial(ancestral, variance="posterior"), vp, times, mean, variance, monkeypatch, start
        )
        assert abs(other[1] - found[1]) > 1e-5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "make",
    [
        euler_maruyama,
        functools.partial(predictor_corrector, corrections=0),
        functools.partial(sde_dpm_solver_pp, order=2),
        functools.partial(ddim, eta=1.0),
        functools.partial(ancestral, variance="beta"),
        functools.partial(euler, s_churn=10.0),
        functools.partial(heun, s_churn=10.0),
    ],
    ids=["euler_maruyama", "predictor", "sde_dpm_solver_pp", "ddim", "ancestral", "euler", "heun"],
)
def test_a_stochastic_sampler_is_of_weak_order_one(make, monkeypatch):
    """Errors of mean and variance of a Gaussian, by moments, halve with twice the steps, or fall faster."""
    vp, (mean, variance), end = vp_sde(), (0.4, 0.25), 0.2
    a, s = float(vp.alpha(end)), float(vp.sigma(end))
    exact = np.array([a * mean, a**2 * variance + s**2])
    start = float(vp.alpha(1.0)) * mean, float(vp.alpha(1.0)) ** 2 * variance + float(vp.sigma(1.0)) ** 2
    errors = []
    for num_steps in (50, 100, 200):
        # The noise of the last step counts here, so the grid ends at t > 0.
        found = moments_of_a_run(make, vp, np.linspace(1, end, num_steps + 1), mean, variance, monkeypatch, start)
        errors.append(np.abs(np.array(found) - exact).max())
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert make(vp).order == 1 and (slopes > 0.85).all()


@pytest.mark.usefixtures("x64")
def test_churned_noise_is_that_of_the_later_time(monkeypatch):
    """x_t of N(m, v) data, churned, is distributed as x of the time that is given back, whose sigma_edm is (1 + gamma) times."""
    from ddpm.sampling.churn import ChurnSettings, churned

    vp, (mean, variance), t, noise = vp_sde(), (0.4, 0.25), jnp.asarray(0.3), [0.0]
    monkeypatch.setattr("ddpm.sampling.churn.normal", lambda keys, shape: jnp.full((1, *shape), noise[0]))

    def run(x, z, churn=ChurnSettings(20.0, 0.0, np.inf, 1.0)):  # noqa: B008
        noise[0] = z
        out, later = churned(churn, vp, jnp.full((1, 1), x), t, KEY, jnp.asarray(100))
        return float(out[0, 0]), float(later)

    later = run(0.0, 0.0)[1]
    sigma_edm = lambda t: float(jnp.exp(-vp.log_snr(t) / 2))  # noqa: E731
    assert sigma_edm(later) == pytest.approx(1.2 * sigma_edm(0.3), rel=1e-9)
    b = run(0.0, 0.0)[0]
    a, c = run(1.0, 0.0)[0] - b, run(0.0, 1.0)[0] - b
    before = float(vp.alpha(t)) * mean, float(vp.alpha(t)) ** 2 * variance + float(vp.sigma(t)) ** 2
    after = float(vp.alpha(later)) * mean, float(vp.alpha(later)) ** 2 * variance + float(vp.sigma(later)) ** 2
    assert (a * before[0] + b, a**2 * before[1] + c**2) == pytest.approx(after, rel=1e-9)
    outside = ChurnSettings(20.0, 50.0, 60.0, 1.0)
    assert run(0.7, 1.0, outside) == pytest.approx((0.7, 0.3))
    most = ChurnSettings(1e9, 0.0, np.inf, 1.0)
    assert sigma_edm(run(0.0, 0.0, most)[1]) == pytest.approx(np.sqrt(2) * sigma_edm(0.3), rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_samplers_that_are_the_same_by_other_names():
    x_t, keys, first = jnp.array([[0.3, -0.8], [1.0, 2.0]]), per_index(stream(0, "x"), jnp.arange(2)), jnp.asarray(1)
    denoise = gaussian_denoiser(vp_sde(), 0.4, 0.25)
    for t, s in ((0.9, 0.5), (0.5, 0.01), (0.01, 0.0)):

        def step(make, t=t, s=s, **options):
            sampler = make(vp_sde(), **options)
            return sampler.step(denoise, x_t, jnp.asarray(t), jnp.asarray(s), keys, sampler.start(x_t, first)).x

        for other in (euler, dpm_solver, dpm_solver_pp, deis):
            options = {} if other is euler else {"order": 1}
            np.testing.assert_allclose(step(other, **options), step(ddim), rtol=1e-9)
        for eta in (0.5, 1.0):
            np.testing.assert_allclose(step(euler_ancestral, eta=eta), step(ddim, eta=eta), rtol=1e-12)
        posterior = step(ancestral, variance="posterior")
        np.testing.assert_allclose(step(sde_dpm_solver_pp, order=1), posterior, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_langevin_step_has_the_signal_to_noise_ratio_that_is_asked(monkeypatch):
    """|e score| / |sqrt(2 e) z| = snr a^(1/2): Song et al. 2021, Eq. 46 and Algorithm 5."""
    vp, t, s, snr = vp_sde(), jnp.asarray(0.5), jnp.asarray(0.49), 0.16
    z = jnp.array([[1.0, -2.0, 0.5]])
    x = jnp.array([[0.3, 0.2, -0.1]])
    denoise = gaussian_denoiser(vp, 0.0, 1.0)  # its score is -x
    monkeypatch.setattr("ddpm.sampling.predictor_corrector.normal", lambda keys, shape: z)
    monkeypatch.setattr("ddpm.sampling.predictor_corrector.fold_in_all", lambda keys, i: keys)
    once = predictor_corrector(vp, snr=snr).step(denoise, x, t, s, KEY).x
    size = 2 * float(vp.alpha(t) / vp.alpha(s)) ** 2 * snr**2 * (z**2).sum() / (x**2).sum()
    moved = x - size * x + jnp.sqrt(2 * size) * z
    predicted = predictor_corrector(vp, snr=snr, corrections=0).step(denoise, moved, t, s, KEY).x
    np.testing.assert_allclose(once, predicted, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("make", "order"), [(ddim, 1), (functools.partial(dpm_solver_pp, order=2), 2), (unipc, 2)])
def test_encoding_and_decoding_give_back_the_image_but_for_an_error_of_the_order(make, order):
    vp = vp_sde()
    denoise, keys = gaussian_denoiser(vp, 0.4, 0.25), per_index(stream(0, "x"), jnp.arange(16))
    x_0 = 0.4 + 0.5 * jax.random.normal(jax.random.key(1), (16, 2))
    errors = []
    for num_steps in (40, 80, 160):
        times = jnp.asarray(grids.log_snr(vp, num_steps, final="sigma_min"))
        x_T = driver.solve(make(vp), denoise, x_0, times[::-1], keys).x
        errors.append(float(jnp.abs(driver.solve(make(vp), denoise, x_T, times, keys).x - x_0).max()))
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert (slopes > order - 0.2).all() and errors[-1] < 0.1
