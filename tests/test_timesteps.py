"""Every distribution of t, found by itself, at a fine grid of the number that it draws from: exact, no Monte Carlo."""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import PROCESSES, SCHEDULES
from scipy import stats
from scipy.special import logit

from ddpm import names
from ddpm.diffusion import timesteps
from ddpm.diffusion.processes import VP
from ddpm.errors import InputError
from ddpm.rng import per_index, stream, uniforms

TIMESTEPS = names.public(timesteps)
N = 20_000
GRID = (np.arange(N) + 0.5) / N
ENDS = np.array([0, 2**-23, 0.5, 1 - 2**-23, 1 - 2**-24], np.float32)


def made():
    """'process distribution' -> (process, Timesteps), for all that go together."""
    for name, process in PROCESSES.items():
        for kind, make in TIMESTEPS.items():
            with contextlib.suppress(InputError):
                yield f"{name} {kind}", (process, make(process))


MADE = dict(made())


@pytest.mark.parametrize("case", MADE)
def test_times_are_in_range_rise_with_u_and_weigh_one_at_the_start(case):
    process, times = MADE[case]
    u = jnp.sort(jnp.concatenate([jnp.asarray(GRID, jnp.float32), ENDS]))
    t, weight = jax.jit(times.draw)(times.history, u)
    assert t.dtype == (jnp.int32 if process.discrete else jnp.float32) and t.shape == weight.shape == u.shape
    assert (t >= process.t_min).all() and (t <= process.T).all()
    assert (jnp.diff(t) >= 0).all() and t[0] < t[-1]
    np.testing.assert_allclose(weight, 1, rtol=1e-6)


@pytest.mark.parametrize("case", MADE)
def test_an_update_keeps_the_shapes_of_the_history(case):
    _, times = MADE[case]
    t, _ = times.draw(times.history, jnp.asarray(ENDS))
    history = jax.jit(times.update)(times.history, t, jnp.ones_like(ENDS))
    assert jax.tree.map(jnp.shape, history) == jax.tree.map(jnp.shape, times.history)
    assert jax.tree.map(jnp.result_type, history) == jax.tree.map(jnp.result_type, times.history)


def test_all_of_them_take_a_process_first():
    assert all(next(iter(inspect.signature(make).parameters)) == "process" for make in TIMESTEPS.values())


def distribution(process, t, kind, mean, std):
    """The probability of times up to t."""
    if kind == "uniform":
        return t / process.T if process.discrete else (t - process.t_min) / (process.T - process.t_min)
    if kind == "log_normal":
        return stats.norm.cdf(-process.log_snr(jnp.asarray(t)) / 2, mean, std)
    return stats.norm.cdf(logit(t / process.T), mean, std)


@pytest.mark.usefixtures("x64")
@settings(max_examples=5, deadline=None)
@given(mean=st.floats(-2, 2), std=st.floats(0.3, 2))
@pytest.mark.parametrize("kind", ["uniform", "log_normal", "logit_normal"])
@pytest.mark.parametrize("name", ["VP linear", "ContinuousVP cosine", "VE", "EDM", "RectifiedFlow"])
def test_times_are_distributed_as_the_papers_say(name, kind, mean, std):
    process, options = PROCESSES[name], {} if kind == "uniform" else {"mean": mean, "std": std}
    t, _ = TIMESTEPS[kind](process, **options).draw((), jnp.asarray(GRID))
    t = np.asarray(t)
    if process.discrete:
        levels = np.arange(1, process.T)
        drawn = np.searchsorted(t, levels, side="right") / N  # t rises with u
        between = levels if kind == "uniform" else levels + 0.5  # rounded to the nearest
        np.testing.assert_allclose(drawn, distribution(process, between, kind, mean, std), atol=1.5 / N)
    else:
        first, last = t <= process.t_min * (1 + 1e-9), t >= process.T * (1 - 1e-9)
        inside = ~first & ~last
        got = distribution(process, t[inside], kind, mean, std)
        np.testing.assert_allclose(got, GRID[inside], atol=1e-6)
        assert first.mean() == pytest.approx(distribution(process, process.t_min, kind, mean, std), abs=1 / N)
        assert last.mean() == pytest.approx(1 - distribution(process, process.T, kind, mean, std), abs=1 / N)


def openai(T, history, share, drawn):
    """p_t of improved DDPM's loss-aware sampler after (t, loss) pairs: a queue of losses for each t."""
    queues = [[] for _ in range(T)]
    for t, loss in drawn:
        queues[t - 1] = [*queues[t - 1], loss][-history:]
    if any(len(queue) < history for queue in queues):
        return np.full(T, 1 / T)
    p = np.array([np.sqrt(np.mean(np.square(queue))) for queue in queues])
    return p / p.sum() * (1 - share) + share / T


@pytest.mark.usefixtures("x64")
def test_loss_second_moment_is_the_sampler_of_improved_ddpm_and_its_weights_unbiased():
    T, random, drawn, warm = 5, np.random.default_rng(0), [], 0
    times = timesteps.loss_second_moment(VP(SCHEDULES["cosine"](T)), history=3, uniform_share=0.05)
    history, update = times.history, jax.jit(times.update)
    f = random.normal(size=T)
    for _ in range(8):
        t = random.integers(1, T + 1, 16)  # each t several times, some more often than is remembered
        losses = (random.exponential(size=16) * t**2).astype(np.float32)
        drawn += zip(t, losses.astype(float), strict=True)
        history = update(history, jnp.asarray(t, jnp.int32), jnp.asarray(losses))
        p = openai(T, 3, 0.05, drawn)
        t, weight = (np.asarray(a) for a in times.draw(history, jnp.asarray(GRID)))
        np.testing.assert_allclose(weight, 1 / (T * p[t - 1]), rtol=1e-9)
        np.testing.assert_allclose(np.bincount(t, minlength=T + 1)[1:] / N, p, atol=1.5 / N)
        assert np.mean(weight * f[t - 1]) == pytest.approx(f.mean(), abs=20 / N)
        warm += np.ptp(p) > 0
        np.testing.assert_array_equal(history.counts, np.bincount([t for t, _ in drawn], minlength=T + 1)[1:])
        history = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), history)  # as after a resume
    assert 3 < warm < 8  # both before and after every t has its losses


def test_a_batch_is_remembered_as_if_one_after_another():
    times = timesteps.loss_second_moment(VP(SCHEDULES["cosine"](4)), history=3)
    t, losses = jnp.array([2, 1, 2, 2, 4, 2, 2], jnp.int32), jnp.arange(1.0, 8)
    at_once = one_by_one = times.history
    at_once = times.update(at_once, t, losses)
    for i in range(len(t)):
        one_by_one = times.update(one_by_one, t[i : i + 1], losses[i : i + 1])
    jax.tree.map(np.testing.assert_array_equal, at_once, one_by_one)
    np.testing.assert_array_equal(jnp.sort(at_once.losses[1]), [4, 6, 7])


def test_losses_of_zero_leave_times_uniform():
    times = timesteps.loss_second_moment(VP(SCHEDULES["cosine"](4)), history=1)
    history = times.update(times.history, jnp.arange(1, 5), jnp.zeros(4))
    t, weight = times.draw(history, jnp.array([0, 0.25, 0.5, 0.75]))
    np.testing.assert_array_equal(t, [1, 2, 3, 4])
    np.testing.assert_array_equal(weight, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: timesteps.loss_second_moment(PROCESSES["RectifiedFlow"]),
            "loss_second_moment remembers the losses of each noise level, but RectifiedFlow has no levels. "
            "Use uniform, or a process of a table (VP).",
        ),
        (
            lambda: timesteps.loss_second_moment(PROCESSES["VP linear"], history=0),
            "history = 0 must be at least 1.",
        ),
        (
            lambda: timesteps.loss_second_moment(PROCESSES["VP linear"], uniform_share=0.0),
            "uniform_share = 0.0 is not in (0, 1); improved DDPM uses 0.001.",
        ),
        (lambda: timesteps.log_normal(PROCESSES["EDM"], std=0), "std = 0 is not in (0, inf); EDM uses 1.2."),
        (
            lambda: timesteps.logit_normal(PROCESSES["EDM"], std=-1.0),
            "std = -1.0 is not in (0, inf); Stable Diffusion 3 uses 1.",
        ),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


def keys(num):
    return per_index(stream(0, "t"), jnp.arange(num))


@pytest.mark.parametrize("total", [1, 7, 128, 1000])
def test_a_stratified_batch_has_one_number_in_each_stratum(total):
    u = np.asarray(uniforms(keys(total), 0, total, stratified=True), np.float64)
    np.testing.assert_array_equal(np.floor(u * total), np.arange(total))
    plain = uniforms(keys(total), 0, total, stratified=False)
    np.testing.assert_allclose(u * total - np.arange(total), plain, atol=1e-7 * total)


def test_no_number_rounds_into_the_next_stratum(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.asarray(1 - 2**-23, dtype))
    u = np.asarray(uniforms(keys(4096), 0, 4096, stratified=True), np.float64)
    np.testing.assert_array_equal(np.floor(u * 4096), np.arange(4096))


@pytest.mark.parametrize("stratified", [False, True])
def test_numbers_are_uniform_and_an_example_has_its_own_wherever_it_is_drawn(stratified):
    whole = uniforms(keys(2000), 0, 2000, stratified=stratified)
    assert stats.kstest(whole, "uniform").pvalue > 1e-3
    part = uniforms(keys(2000)[500:700], jnp.asarray(500), 2000, stratified=stratified)
    np.testing.assert_array_equal(part, whole[500:700])
