"""What holds for every schedule, process, prediction type and sampler there is, at any time and for any numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import CONTINUOUS, PREDICTIONS, PROCESSES, SCHEDULES, eps_model, possible

from ddpm.diffusion import rescale
from ddpm.diffusion.model import Estimate
from ddpm.diffusion.prediction import target, x0_and_eps
from ddpm.diffusion.process import diffuse
from ddpm.diffusion.processes import VP
from ddpm.rng import per_index, stream
from ddpm.sampling import grids
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.ddim import ddim
from ddpm.sampling.denoise import denoiser

pytestmark = pytest.mark.usefixtures("x64")
some = settings(max_examples=8, deadline=None)
fractions = st.floats(0, 1)
numbers = st.lists(st.floats(-3, 3), min_size=4, max_size=4)


def at(process, fraction):
    """A time of a process; an integer where it has levels."""
    t = process.t_min + fraction * (process.T - process.t_min)
    return round(t) if process.discrete else t


@pytest.mark.parametrize("schedule", SCHEDULES)
@some
@given(T=st.integers(25, 3000), ratio=st.floats(0.2, 1.5), zero=st.booleans())
def test_tables_fall_strictly_from_one(schedule, T, ratio, zero):
    table = rescale.shifted(SCHEDULES[schedule](T), ratio)
    table = rescale.zero_terminal_snr(table) if zero else table
    assert len(table) == T + 1 and table[0] == 1 and table[-1] >= 0 and (np.diff(table) < 0).all()
    assert (table[-1] == 0) == zero


@pytest.mark.parametrize("function", CONTINUOUS)
@some
@given(u=fractions, v=fractions)
def test_functions_fall(function, u, v):
    u, v = sorted((max(u, 1e-6), max(v, 1e-6)))
    first, second = (float(CONTINUOUS[function](jnp.asarray(w))) for w in (u, v))
    assert first >= second and np.isfinite([first, second]).all()
    assert v - u < 1e-3 or first > second


@pytest.mark.parametrize("name", PROCESSES)
@some
@given(fraction=st.floats(0.001, 0.999), x=numbers, eps=numbers)
def test_alpha_sigma_and_time_belong_together(name, fraction, x, eps):
    process = PROCESSES[name]
    t = at(process, fraction)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    assert float(process.log_snr(t)) == pytest.approx(2 * np.log(alpha / sigma), abs=1e-5)
    assert float(process.time(process.log_snr(t))) == pytest.approx(t, rel=1e-5, abs=1e-8)
    if name.startswith(("VP", "ContinuousVP")):
        assert alpha**2 + sigma**2 == pytest.approx(1, rel=1e-12)
    x_t = diffuse(process, jnp.array([x]), t, jnp.array([eps]))
    np.testing.assert_allclose(x_t, alpha * np.array([x]) + sigma * np.array([eps]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("process", [*PROCESSES, "without signal at T"])
@some
@given(fraction=fractions, x=numbers, eps=numbers)
def test_round_trips_at_every_time(name, process, fraction, x, eps):
    process = PROCESSES.get(process) or VP(rescale.zero_terminal_snr(SCHEDULES["linear"](1000)))
    if not possible(process, name):
        return
    t = at(process, fraction)
    x_0, eps = jnp.array([x]), jnp.array([eps])
    output = target(process, PREDICTIONS[name], x_0, eps, t)
    found = x0_and_eps(process, PREDICTIONS[name], output, diffuse(process, x_0, t, eps), t)
    np.testing.assert_allclose(found, (x_0, eps), atol=3e-6)


@pytest.mark.parametrize("name", PROCESSES)
@some
@given(early=st.floats(0.01, 0.9), late=st.floats(0.01, 0.99), x=numbers, eps=numbers)
def test_steps_of_a_known_image_stay_on_its_path(name, early, late, x, eps):
    process = PROCESSES[name]
    s, t = sorted((at(process, early), at(process, late)))
    if s == t:
        return
    x_0, eps = jnp.array([x]), jnp.array([eps])
    x_t, known = diffuse(process, x_0, t, eps), lambda x_t, t: Estimate(x_0, eps)
    keys = per_index(stream(0, "x"), jnp.arange(1))
    deterministic = ddim(process).step(known, x_t, t, s, keys).x
    np.testing.assert_allclose(deterministic, diffuse(process, x_0, s, eps), atol=1e-9 + 1e-9 * process.prior_scale)
    for last in (ddim(process), ddim(process, eta=1.0), ancestral(process)):
        np.testing.assert_allclose(last.step(known, x_t, t, 0 * t, keys).x, x_0, atol=1e-6 * process.prior_scale)
    noisy = ddim(process, eta=1.0).step(known, x_t, t, s, keys).x
    np.testing.assert_allclose(
        noisy, ancestral(process, variance="posterior").step(known, x_t, t, s, keys).x, atol=1e-6
    )
    back = ddim(process).step(known, deterministic, s, t, keys).x  # encoding is decoding the other way
    np.testing.assert_allclose(back, x_t, atol=1e-9 + 1e-9 * process.prior_scale)


@pytest.mark.parametrize("name", PROCESSES)
def test_as_many_steps_as_levels_are_the_levels(name):
    process = PROCESSES[name]
    if process.discrete:
        np.testing.assert_array_equal(grids.trailing(process, process.T), np.arange(process.T, -1, -1))


@some
@given(x=numbers, scale=st.floats(-2, 2), fraction=st.floats(0.01, 1))
def test_clipping_twice_is_clipping_once(x, scale, fraction):
    vp = PROCESSES["VP cosine"]
    t, x_t = at(vp, fraction), jnp.array([x])
    once = denoiser(eps_model(vp, lambda x, t: scale * x), clip=True)(x_t, t)
    again = denoiser(eps_model(vp, lambda x, t: once.eps), clip=True)(x_t, t)
    assert (abs(once.x0) <= 1).all()
    np.testing.assert_allclose(again[:2], once[:2], atol=1e-6 / float(vp.alpha(t)))


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("process", PROCESSES)
def test_nothing_is_nan_at_either_end_in_bfloat16(name, process):
    process = PROCESSES[process]
    if not possible(process, name):
        return
    for end in (process.t_min, process.T):
        t = jnp.asarray(end, jnp.int32 if process.discrete else jnp.float32)
        x_0, eps = jnp.array([[0.5, -1.0]], jnp.bfloat16), jnp.array([[1.0, -2.0]], jnp.bfloat16)
        if name in ("v", "x0", "velocity", "edm") or float(process.alpha(t)) > 0:
            x_t = diffuse(process, x_0, t, eps)
            output = target(process, PREDICTIONS[name], x_0, eps, t)
            assert np.isfinite(np.asarray([x_t, output, *x0_and_eps(process, PREDICTIONS[name], output, x_t, t)])).all()
