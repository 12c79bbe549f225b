"""Sampling with a part of the image known, against exact conditionals of Gaussian data."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import betas_of, gaussian_eps
from processes import PROCESSES, eps_model
from samplers import SAMPLERS, process_of, table

from ddpm.diffusion import schedules
from ddpm.diffusion.process import Noiseless
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling import driver, grids
from ddpm.sampling.denoise import denoiser
from ddpm.sampling.known import Given, diffused_back, keeping
from ddpm.sampling.projections import colourisation, inpainting, super_resolution

pytestmark = pytest.mark.usefixtures("x64")
SHAPE = (4, 6, 3)
KINDS = {"inpainting": inpainting(), "colourisation": colourisation(), "super_resolution": super_resolution(2)}


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def given_images(seed, batch):
    pixels = np.random.default_rng(seed).random((batch, *SHAPE[:2])) < 0.5
    return Given(some(seed, batch, *SHAPE), jnp.asarray(pixels))


def exact_denoiser(process, mean=0.2, variance=0.3):
    """Of images whose pixels are N(mean, variance)."""

    def predict(x_t, t):
        alpha, sigma = (f(t)[:, None, None, None] for f in (process.alpha, process.sigma))
        return gaussian_eps(mean, variance, alpha, sigma, x_t)

    return denoiser(eps_model(process, predict), clip=False)


def quickly(run):
    """What it returns, by a program that is compiled sooner than it is fast."""
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})()


def drawn(sampler, process, denoise, steps, project, y, resamples, batch, seed=0):
    """A run of a sampler that keeps P(y); without resamples, of the sampler itself."""
    process = Noiseless(process)
    made = keeping(sampler(process), process, project, y, resamples) if resamples else sampler(process)
    times = jnp.asarray(grids.trailing(process, steps))
    keys = per_index(stream(seed, "known"), jnp.arange(batch))
    return driver.generate(made, denoise, times, keys, y.shape[1:], prior_scale=process.prior_scale)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_known_is_an_orthogonal_projection(kind, seed):
    project, x, y = KINDS[kind](given_images(seed, 2)), some(seed + 1, 2, *SHAPE), some(seed + 2, 2, *SHAPE)
    np.testing.assert_allclose(project(project(x)), project(x), atol=1e-13)
    np.testing.assert_allclose(jnp.vdot(project(x), y), jnp.vdot(x, project(y)), atol=1e-12)
    np.testing.assert_allclose(project(2 * x - y), 2 * project(x) - project(y), atol=1e-13)


def test_what_is_known_are_pixels_the_mean_of_colours_or_of_blocks():
    told, x = given_images(0, 2), np.asarray(some(1, 2, *SHAPE))
    of = {kind: np.asarray(KINDS[kind](told)(jnp.asarray(x))) for kind in KINDS}
    pixels = np.asarray(told.pixels)
    np.testing.assert_array_equal(of["inpainting"][pixels], x[pixels])
    assert not of["inpainting"][~pixels].any()
    for channel in range(3):
        grey = (x[..., 0] + x[..., 1] + x[..., 2]) / 3
        np.testing.assert_allclose(of["colourisation"][..., channel], grey, atol=1e-14)
    for i, row, column, channel in np.ndindex(*x.shape):
        top, left = row // 2 * 2, column // 2 * 2
        block = x[i, top : top + 2, left : left + 2, channel]
        np.testing.assert_allclose(of["super_resolution"][i, row, column, channel], block.mean(), atol=1e-14)


@pytest.mark.parametrize("name", PROCESSES)
def test_an_image_diffused_back_is_one_of_the_later_time(name):
    process, part = PROCESSES[name], lambda u: PROCESSES[name].t_min + u * (PROCESSES[name].T - PROCESSES[name].t_min)
    for u, v in ((0.0, 0.01), (0.1, 0.7), (0.5, 0.501), (0.3, 1.0)):
        s, t = (jnp.asarray(round(part(w)) if process.discrete else part(w)) for w in (u, v))
        zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
        slope = float(diffused_back(process, one, s, t, zero)[0, 0])
        noise = float(diffused_back(process, zero, s, t, one)[0, 0])
        # x_t of x_s = alpha_s x_0 + sigma_s eps is again alpha_t x_0 + sigma_t eps.
        np.testing.assert_allclose(slope * process.alpha(s), process.alpha(t), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose((slope * process.sigma(s)) ** 2 + noise**2, process.sigma(t) ** 2, rtol=1e-9)
        assert noise > 0


def test_a_step_back_is_the_forward_chain():
    betas = betas_of(np.asarray(schedules.linear(50)))[11:31]
    slope, variance = 1.0, 0.0
    for beta in betas:  # x_i = sqrt(1 - beta_i) x_(i-1) + sqrt(beta_i) eps
        slope, variance = slope * np.sqrt(1 - beta), (1 - beta) * variance + beta
    process, s, t = table(50, "linear"), jnp.asarray(10), jnp.asarray(30)
    x_s, eps = some(0, 3, 2), some(1, 3, 2)
    wanted = slope * x_s + np.sqrt(variance) * eps
    np.testing.assert_allclose(diffused_back(process, x_s, s, t, eps), wanted, rtol=1e-6)


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_is_kept_exactly(kind, resamples):
    told, process = given_images(3, 4), table()
    project = KINDS[kind](told)
    shared = (SAMPLERS["ancestral"], process, exact_denoiser(process), 4, project, told.image, resamples, 4)
    x, nfe, _ = quickly(lambda: drawn(*shared))
    np.testing.assert_allclose(project(x), project(told.image), atol=1e-12)
    rest = np.asarray(x - project(x))
    assert np.abs(rest - (told.image - project(told.image))).max() > 0.1  # and the rest is not
    assert nfe.tolist() == [4 * resamples] * 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_what_is_known_and_counts_its_evaluations(name):
    told, process = given_images(4, 2), process_of(name, "linear")
    project, steps = KINDS["inpainting"](told), 1 if name == "ode" else 6
    shared = (SAMPLERS[name], process, exact_denoiser(process), steps, project, told.image)
    of = (2,) if name == "ode" else (2, 0)  # whose number of evaluations depends on where it starts
    (x, nfe, _), *alone = quickly(lambda: [drawn(*shared, resamples, 2) for resamples in of])
    assert np.isfinite(x).all()
    np.testing.assert_allclose(project(x), project(told.image), atol=1e-12)
    for run in alone:
        np.testing.assert_array_equal(nfe, 2 * run.nfe)
    assert not keeping(SAMPLERS[name](process), process, project, told.image, 1).deterministic


@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_the_evaluations_that_are_told_are_those_that_were_made(name):
    told, process, calls = given_images(5, 1), table(), []

    def counted(x_t, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact_denoiser(process)(x_t, t)

    run = drawn(SAMPLERS[name], process, counted, 3, KINDS["inpainting"](told), told.image, 2, 1)
    jax.effects_barrier()
    assert run.nfe.tolist() == [len(calls)] == [{"ddim": 6, "heun": 10}[name]]


def test_a_sample_that_keeps_something_depends_on_its_key_alone():
    told, process = given_images(6, 3), table()

    def of(told):
        project, count = KINDS["super_resolution"](told), len(told.image)
        shared = (SAMPLERS["ddim"], process, exact_denoiser(process), 3, project, told.image, 2, count)
        return quickly(lambda: drawn(*shared).x)

    whole, alone = of(told), of(jax.tree.map(lambda rows: rows[:1], told))
    np.testing.assert_allclose(alone[0], whole[0], rtol=1e-12)


RHO, Y, DRAWN = 0.9, 1.5, 2000


def unknown_pixels(resamples):
    """Draws of pixel 2 of N(0, [[1, RHO], [RHO, 1]]) where pixel 1 is Y, by the exact denoiser of both."""
    process = table(200, "linear")
    covariance = np.array([[1, RHO], [RHO, 1]])

    def predict(x_t, t):  # E[eps | x_t] = sigma (alpha^2 covariance + sigma^2)^-1 x_t
        def one(x, alpha, sigma):
            return sigma * jnp.linalg.solve(alpha**2 * covariance + sigma**2 * np.eye(2), x)

        flat = jax.vmap(one)(x_t.reshape(-1, 2), process.alpha(t), process.sigma(t))
        return flat.reshape(x_t.shape)

    y = jnp.broadcast_to(jnp.array([Y, 0.0]).reshape(1, 1, 2, 1), (DRAWN, 1, 2, 1))
    pixels = jnp.broadcast_to(jnp.array([True, False]), (DRAWN, 1, 2))
    sampler = functools.partial(SAMPLERS["ancestral"], variance="beta")
    denoise = denoiser(eps_model(process, predict), clip=False)
    run = jax.jit(lambda: drawn(sampler, process, denoise, 50, inpainting()(Given(y, pixels)), y, resamples, DRAWN).x)
    return np.asarray(run()[:, 0, 1, 0])


def test_resampling_draws_the_unknown_given_the_known():
    once, often = unknown_pixels(1), unknown_pixels(20)
    mean, deviation = RHO * Y, np.sqrt(1 - RHO**2)  # of the exact conditional
    assert abs(often.mean() - mean) < 4 * deviation / np.sqrt(DRAWN) < abs(once.mean() - mean) / 10
    assert abs(often.std() - deviation) < 0.08 < abs(once.std() - deviation)  # steps are large


def test_a_factor_of_1_is_refused():
    message = "known.super_resolution.factor = 1 must be at least 2."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        super_resolution(1)
