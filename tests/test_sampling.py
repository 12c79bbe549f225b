import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import affine_moments, gaussian_eps, gaussian_ode, mixture_eps, posterior_by_bayes
from processes import eps_model

from ddpm import names, objective, sampling
from ddpm.diffusion import schedules
from ddpm.diffusion.model import Estimate
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling import batched, driver, grids
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.ddim import ddim
from ddpm.sampling.denoise import denoiser
from ddpm.training import sharding

SAMPLERS = names.public(sampling)
STEPS = (1, 2, 7, 10, 50, 1000)


@functools.cache
def process(T=1000, schedule="cosine"):
    return VP(getattr(schedules, schedule)(T))


def gaussian_denoiser(vp, mean, variance):
    def predict(x_t, t):
        a, s = vp.alpha(t)[:, None], vp.sigma(t)[:, None]
        return gaussian_eps(mean, variance, a, s, x_t)

    return denoiser(eps_model(vp, predict), clip=False)


def moments_of_a_run(make_sampler, num_steps, mean, variance, vp, monkeypatch):
    """Mean and variance of x_0, by affine_moments through every step from N(0, 1)."""
    module = __import__(make_sampler(vp).step.__module__, fromlist=["normal"])
    denoise, noise = gaussian_denoiser(vp, mean, variance), [0.0]
    monkeypatch.setattr(module, "normal", lambda keys, shape: jnp.full((1, *shape), noise[0]))
    m, v = 0.0, 1.0
    times = grids.uniform(vp, num_steps)
    for t, s in itertools.pairwise(times):

        def step(x, z, t=t, s=s):
            noise[0] = z
            return float(make_sampler(vp).step(denoise, jnp.full((1, 1), x), jnp.int32(t), jnp.int32(s), None)[0, 0])

        m, v = affine_moments(step, m, v)
    return m, v


@pytest.mark.parametrize("num_steps", STEPS)
def test_time_grid_goes_from_T_to_zero(num_steps):
    times = grids.uniform(process(), num_steps)
    assert times[0] == 1000 and times[-1] == 0 and len(times) == num_steps + 1
    assert (np.diff(times) < 0).all() and np.ptp(np.diff(times)) <= 1


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_steps_that_the_process_has_not_are_refused(num_steps):
    with pytest.raises(InputError, match=rf"^num_steps = {num_steps} is not in 1..1000"):
        grids.uniform(process(), num_steps)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 3, 10, 40])
def test_ancestral_beta_keeps_unit_gaussian_data_but_for_the_noiseless_last_step(num_steps, monkeypatch):
    vp = process()
    mean, variance = moments_of_a_run(ancestral, num_steps, 0.0, 1.0, vp, monkeypatch)
    # Every noisy step keeps variance 1 exactly; the last multiplies by alpha_s of its time.
    assert mean == 0
    assert variance == pytest.approx(vp.alpha_bar[grids.uniform(vp, num_steps)[-2]], rel=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 3, 10, 40])
def test_ancestral_posterior_and_ddim_are_exact_for_a_point(num_steps, monkeypatch):
    for make in (functools.partial(ancestral, variance="posterior"), ddim, functools.partial(ddim, eta=0.7)):
        mean, variance = moments_of_a_run(make, num_steps, 0.6, 0.0, process(), monkeypatch)
        assert mean == pytest.approx(0.6, abs=1e-9) and variance == pytest.approx(0.0, abs=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("s", [0, 300])
def test_one_deterministic_step_lands_on_the_forward_process(s):
    vp, x_0, eps = process(), jnp.array([[0.3, -0.8]]), jnp.array([[1.2, -0.4]])
    x_t = vp.alpha(900) * x_0 + vp.sigma(900) * eps
    x_s = ddim(vp).step(lambda x, t: Estimate(x_0, eps), x_t, 900, s, None)
    np.testing.assert_allclose(x_s, vp.alpha(s) * x_0 + vp.sigma(s) * eps, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_ddim_with_eta_1_is_ancestral_with_the_posterior_variance():
    vp = process()
    denoise, keys = gaussian_denoiser(vp, 0.4, 0.25), per_index(stream(0, "x"), jnp.arange(8))
    times = grids.uniform(vp, 1000)
    a = driver.generate(ddim(vp, eta=1.0), denoise, jnp.asarray(times), keys, (2,))
    b = driver.generate(ancestral(vp, variance="posterior"), denoise, jnp.asarray(times), keys, (2,))
    np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_noise_is_eta_times_that_of_the_posterior(eta, monkeypatch):
    vp, (s, t) = process(), (400, 700)

    def step(z):
        monkeypatch.setattr("ddpm.sampling.ddim.normal", lambda keys, shape: jnp.full((1, *shape), z))
        return float(
            ddim(vp, eta=eta).step(lambda x, t: Estimate(x, x), jnp.ones((1, 1)), jnp.int32(t), jnp.int32(s), None)[
                0, 0
            ]
        )

    _, variance = posterior_by_bayes(vp.alpha_bar, 0.0, 0.0, s, t)
    assert step(1.0) - step(0.0) == pytest.approx(eta * np.sqrt(variance), rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("x64")
def test_ddim_is_of_first_order():
    vp = process(T=4096)
    denoise = gaussian_denoiser(vp, 0.4, 0.25)
    end, x_T = 256, jax.random.normal(jax.random.key(0), (32, 2))
    exact = gaussian_ode(0.4, 0.25, vp.alpha(end), vp.sigma(end), vp.alpha(4096), vp.sigma(4096), x_T)
    errors = []
    for num_steps in (30, 60, 120, 240):
        x, times = x_T, np.linspace(4096, end, num_steps + 1).astype(int)
        for t, s in itertools.pairwise(times):
            x = ddim(vp).step(denoise, x, jnp.asarray(t), jnp.asarray(s), None)
        errors.append(np.sqrt(np.mean((x - exact) ** 2)))
    slope = np.polyfit(np.log([30, 60, 120, 240]), np.log(errors), 1)[0]
    assert slope == pytest.approx(-ddim(vp).order, abs=0.15)


@pytest.mark.usefixtures("x64")
def test_samples_of_a_mixture_are_the_mixture():
    means, variances, weights = np.array([[-0.6, 0.0], [0.5, 0.5]]), np.array([0.01, 0.02]), np.array([0.3, 0.7])
    vp = process()

    def predict(x_t, t):
        return mixture_eps(means, variances, weights, vp.alpha(t[0]), vp.sigma(t[0]), x_t)

    for make in SAMPLERS.values():
        keys = per_index(stream(0, "x"), jnp.arange(4000))
        x = driver.generate(
            make(vp), denoiser(eps_model(vp, predict), clip=False), jnp.asarray(grids.uniform(vp, 200)), keys, (2,)
        )
        x = np.asarray(x)
        first = np.linalg.norm(x - means[0], axis=1) < np.linalg.norm(x - means[1], axis=1)
        assert first.mean() == pytest.approx(0.3, abs=0.03)
        np.testing.assert_allclose(x[first].mean(0), means[0], atol=0.02)
        np.testing.assert_allclose(x[~first].var(0), variances[1], rtol=0.15)


def test_clipping_bounds_x0_and_derives_eps_anew():
    vp, x_t = process(), jnp.array([[3.0]])
    x0_hat, eps_hat, _ = denoiser(eps_model(vp, lambda x, t: jnp.zeros_like(x)), clip=True)(x_t, 500)
    assert x0_hat == 1
    np.testing.assert_allclose(vp.alpha(500) * x0_hat + vp.sigma(500) * eps_hat, x_t, rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_states_its_network_evaluations(name):
    vp, calls = process(), []

    def counting(x_t, t):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.zeros_like(x_t)

    sampler = SAMPLERS[name](vp)
    times = jnp.asarray(grids.uniform(vp, 7))
    driver.generate(
        sampler, denoiser(eps_model(vp, counting), clip=True), times, per_index(stream(0, "x"), jnp.arange(2)), (3,)
    )
    jax.effects_barrier()
    assert len(calls) == 7 * sampler.nfe


def make_batched(tiny, name="ancestral", batch_size=8, traces=None, devices=1):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    diffusion = objective.diffusion(tiny, (8, 8, 1))

    def model(params):
        def network(x, condition):
            if traces is not None:
                traces.append(x.shape)
            return bound.network(x, condition)

        bound = diffusion.model(params)
        return bound._replace(network=network)

    # Zero-initialised outputs would make every network the same.
    params = jax.tree.map(lambda p: p + 0.02, jax.jit(diffusion.init)(objective.init_key(tiny)))
    sampler = batched.BatchedSampler(
        model,
        SAMPLERS[name],
        grids.uniform(diffusion.process, 5),
        (8, 8, 1),
        nfe=5,
        clip=True,
        batch_size=batch_size,
        replicated=sharding.replicated(mesh),
        split=sharding.split(mesh),
    )
    return sampler, jax.device_put(params, sharding.replicated(mesh))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_is_the_same_alone_in_any_number_and_on_eight_devices(tiny, name):
    sampler, params = make_batched(tiny, name)
    twenty = sampler(params, 20, seed=3)
    assert twenty.shape == (20, 8, 8, 1) and twenty.dtype == np.uint8 and twenty.std() > 0
    np.testing.assert_array_equal(sampler(params, 1, seed=3), twenty[:1])
    np.testing.assert_array_equal(sampler(params, 9, seed=3), twenty[:9])
    assert (sampler(params, 1, seed=4) != twenty[:1]).any()
    for other in (dict(batch_size=1), dict(devices=8)):
        there, params_there = make_batched(tiny, name, **other)
        difference = there(params_there, 20, seed=3).astype(int) - twenty
        assert np.abs(difference).max() <= 1  # rounding of float32 sums of another order


def test_the_path_ends_in_the_samples(tiny):
    sampler, params = make_batched(tiny)
    path = sampler.path(params, 3, seed=3)
    assert path.shape == (6, 3, 8, 8, 1)
    assert np.abs(path[-1].astype(int) - sampler(params, 3, seed=3)).max() <= 1


def test_another_seed_or_number_does_not_compile_anew(tiny):
    traces = []
    sampler, params = make_batched(tiny, traces=traces)
    sampler(params, 3, seed=0)
    compiled = len(traces)
    sampler(params, 20, seed=1)
    assert len(traces) == compiled


def test_more_than_fits_the_memory_is_split(tiny, monkeypatch, caplog):
    sampler, params = make_batched(tiny)
    whole = sampler(params, 12, seed=0)
    real = jax.stages.Compiled.memory_analysis
    need = {}

    def measured(self):
        analysis = real(self)
        need[len(need)] = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
        return analysis

    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", measured)
    monkeypatch.setattr(batched, "free_bytes", lambda device: need[0] - 1)
    small, params = make_batched(tiny)
    assert np.abs(small(params, 12, seed=0).astype(int) - whole).max() <= 1
    assert "8 images at once do not fit the memory" in caplog.text and "trying 4" in caplog.text
    monkeypatch.setattr(batched, "free_bytes", lambda device: 0)
    with pytest.raises(InputError, match="not even one image a device fits the memory"):
        make_batched(tiny)[0](params, 12, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ddim(process(), eta=1.5),
            "eta = 1.5 is not in [0, 1]: 0 is deterministic DDIM, 1 is ancestral sampling.",
        ),
        (
            lambda: ancestral(process(), variance="posteror"),
            "unknown variance 'posteror'. Did you mean 'posterior'? Known: beta, learned, posterior.",
        ),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
