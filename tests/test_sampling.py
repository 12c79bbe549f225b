"""Images by the batch, clipping, and the loop."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from processes import eps_model
from samplers import SAMPLERS, process_of, table, vp_sde

from ddpm import objective, sharding
from ddpm.errors import InputError
from ddpm.sampling import batched, grids
from ddpm.sampling.conditions import UNASKED
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.guidance import alone


def test_clipping_bounds_x0_and_derives_eps_anew():
    vp, x_t = table(), jnp.array([[3.0]])
    x0_hat, eps_hat, _ = denoiser(eps_model(vp, lambda x, t: jnp.zeros_like(x)), clip=True)(x_t, 500)
    assert x0_hat == 1
    np.testing.assert_allclose(vp.alpha(500) * x0_hat + vp.sigma(500) * eps_hat, x_t, rtol=1e-6)


INITIAL = {}  # parameters of a process: a second to compile


def make_batched(tiny, name="ancestral", batch_size=8, traces=None, devices=1):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    tiny = ConfigDict(tiny.to_dict())
    tiny.schedule.name = "linear"  # solvers in eps_hat blow the last bit up where next to no signal is left
    if process_of(name) is vp_sde():
        tiny.process.name = "ContinuousVP"
    diffusion = objective.diffusion(tiny, (8, 8, 1))

    def model(params, condition=None):
        def network(x, condition):
            if traces is not None:
                traces.append(x.shape)
            return bound.network(x, condition)

        bound = diffusion.model(params)
        return bound._replace(network=network)

    if tiny.process.name not in INITIAL:
        # Zero-initialised outputs would make every network the same.
        params = jax.jit(diffusion.init)(objective.init_key(tiny))
        INITIAL[tiny.process.name] = jax.tree.map(lambda p: p + 0.02, params)
    sampler = batched.BatchedSampler(
        model,
        alone(model),
        lambda process, power: SAMPLERS[name](process, **(dict(rtol=1e-4, atol=1e-4) if name == "ode" else {})),
        grids.trailing(diffusion.process, 5),
        (8, 8, 1),
        clip=True,
        batch_size=batch_size,
        replicated=sharding.replicated(mesh),
        split=sharding.split(mesh),
    )
    return sampler, jax.device_put(INITIAL[tiny.process.name], sharding.replicated(mesh))


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
        # Rounding of float32 sums of another order, by which an adaptive solver may take another step, and err by its tolerance.
        assert (np.abs(difference) > 1).mean() <= (0.05 if name == "ode" else 0)


@pytest.mark.parametrize("wanted", ["1", "0"])
def test_the_halves_of_an_even_batch_are_drawn_at_once(tiny, monkeypatch, wanted):
    monkeypatch.setenv("DDPM_HALVES", wanted)
    sampler, params = make_batched(tiny)
    both, sizes, made = threading.Barrier(2 if wanted == "1" else 1, timeout=60), [], sampler._program

    def program(*given):
        compiled = made(*given)

        def met(*arguments):
            both.wait()  # for the other half to be asked for
            sizes.append(len(arguments[2]))
            return compiled(*arguments)

        return met

    monkeypatch.setattr(sampler, "_program", program)
    sampler(params, 8, seed=0)
    assert sizes == ([4, 4] if wanted == "1" else [8])


def test_a_program_that_fits_is_weighed_anew_where_two_run_at_once(tiny, monkeypatch, caplog):
    sampler, params = make_batched(tiny, batch_size=3)
    sampler(params, 3, seed=0)  # whole, as 3 are odd
    twice = sampler.along(sampler._times, UNASKED, np.ones(1, np.float32))
    twice._batch_size = 6
    monkeypatch.setattr(batched, "free_bytes", lambda device: 0)
    twice(params, 6, seed=0)
    assert "6 images at once do not fit the memory" in caplog.text


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


def test_another_number_of_steps_or_grid_does_not_compile_anew(tiny):
    traces = []
    sampler, params = make_batched(tiny, traces=traces)
    sampler(params, 3, seed=0)
    compiled = len(traces)
    process = objective.diffusion(tiny, (8, 8, 1)).process
    for times in (grids.trailing(process, 9), grids.quadratic(process, 40)):
        fresh, _ = make_batched(tiny)
        anew, known = (made.along(times, UNASKED, np.ones(1, np.float32)) for made in (fresh, sampler))
        np.testing.assert_array_equal(known(params, 3, seed=0), anew(params, 3, seed=0))
        assert next(known.batches(params, 3, seed=0)).nfe.tolist() == [len(times) - 1] * 3
    assert len(traces) == compiled


def test_dynamic_thresholding_is_that_of_imagen():
    vp = table()
    x0 = np.array([[-4.0, 0.5, 1.0, 2.0, 3.0], [0.1, 0.2, -0.3, 0.4, 0.5]])
    model = eps_model(vp, lambda x_t, t: (x_t - vp.alpha(500) * x0) / vp.sigma(500))
    x_t = jnp.ones((2, 5))
    estimate = denoiser(model, clip=True, percentile=0.5)(x_t, 500)
    np.testing.assert_allclose(estimate.x0, [np.clip(x0[0], -2, 2) / 2, x0[1]], rtol=1e-4)  # the median of |x0| is 2
    np.testing.assert_allclose(vp.alpha(500) * estimate.x0 + vp.sigma(500) * estimate.eps, x_t, rtol=1e-5)
    static = denoiser(model, clip=True)(x_t, 500)
    np.testing.assert_allclose(static.x0, np.clip(x0, -1, 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(clip=True, percentile=1.0),
            "sampler.percentile = 1.0 is not in [0, 1); Imagen uses 0.995, and 0 is clipping.",
        ),
        (
            dict(clip=False, percentile=0.9),
            "sampler.percentile = 0.9 thresholds nothing with sampler.clip=False: set it to True.",
        ),
    ],
)
def test_a_percentile_that_is_none_is_refused(options, message):
    with pytest.raises(InputError) as caught:
        denoiser(eps_model(table(), lambda x, t: x), **options)
    assert str(caught.value) == message


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
    monkeypatch.setattr(batched, "free_bytes", lambda device: 2 * need[0] - 1)  # a byte too little for two halves
    small, params = make_batched(tiny)
    assert np.abs(small(params, 12, seed=0).astype(int) - whole).max() <= 1
    assert "8 images at once do not fit the memory" in caplog.text and "trying 4" in caplog.text
    monkeypatch.setattr(batched, "free_bytes", lambda device: 0)
    with pytest.raises(InputError, match="not even one image a device fits the memory"):
        make_batched(tiny)[0](params, 12, seed=0)
