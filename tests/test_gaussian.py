"""KL and discretised likelihood against integrals, exact sums and exact fractions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddpm.diffusion.gaussian import discretised_log_likelihood, kl

pytestmark = pytest.mark.usefixtures("x64")
LEVELS = np.linspace(-1, 1, 256)
log_variances = st.floats(-12, 4)
means = st.floats(-5, 5)
checked = settings(max_examples=50, deadline=None)


def kl_by_integral(mean_1, log_variance_1, mean_2, log_variance_2):
    """The sum of p (log p - log q) over a fine grid of 12 standard deviations on both sides."""
    std = np.exp(log_variance_1 / 2)
    x, step = np.linspace(mean_1 - 12 * std, mean_1 + 12 * std, 20001, retstep=True)
    log_density = lambda m, v: -((x - m) ** 2) / (2 * np.exp(v)) - (v + np.log(2 * np.pi)) / 2  # noqa: E731
    p, q = log_density(mean_1, log_variance_1), log_density(mean_2, log_variance_2)
    return step * np.sum(np.exp(p) * (p - q))


def log_integral(a, b):
    """log of the unit Gaussian's integral from a >= 0 to b, by 64 nodes up to where nothing is left."""
    length = min(b - a, 40 / max(a, 3))
    nodes, weights = np.polynomial.legendre.leggauss(64)
    t = length * (nodes + 1) / 2
    return np.log(length / 2 * np.sum(weights * np.exp(-a * t - t**2 / 2))) - a**2 / 2 - np.log(2 * np.pi) / 2


def exact_log_mass(x, mean, log_variance):
    """The integral of the density over x's bin: no cdf, no difference."""
    std = np.exp(log_variance / 2)
    low = (x - 1 / 255 - mean) / std if x > -0.999 else -np.inf
    high = (x + 1 / 255 - mean) / std if x < 0.999 else np.inf
    if low < 0 < high:
        return np.logaddexp(log_integral(0, -low), log_integral(0, high))
    return log_integral(*sorted((abs(low), abs(high))))


def log_masses(mean, log_variance, x=LEVELS, **options):
    return np.asarray(
        jax.jit(discretised_log_likelihood, static_argnames="tanh")(
            jnp.asarray(x), jnp.asarray(mean), jnp.asarray(log_variance), **options
        )
    )


@checked
@given(means, log_variances, means, log_variances)
def test_kl_is_the_integral(mean_1, log_variance_1, mean_2, log_variance_2):
    with jax.enable_x64(True):
        ours = float(kl(*map(jnp.asarray, (mean_1, log_variance_1, mean_2, log_variance_2))))
    assert ours == pytest.approx(kl_by_integral(mean_1, log_variance_1, mean_2, log_variance_2), rel=1e-6, abs=1e-9)


def none_or_some(bound):
    """Numbers up to a bound whose squares, if not 0, are none either."""
    return st.floats(-bound, bound).filter(lambda x: x == 0 or abs(x) > 1e-140)


@checked
@given(means, log_variances, none_or_some(1e-3), none_or_some(0.1))
@example(0.0, 0.0, 0.0, 1e-139)
@example(0.0, 0.0, 1e-139, 0.0)
def test_kl_is_positive_and_zero_only_of_equals(mean, log_variance, more_mean, more_log_variance):
    with jax.enable_x64(True):
        one = jnp.asarray(mean), jnp.asarray(log_variance)
        other = one[0] + more_mean, one[1] + more_log_variance
        difference = float(kl(*one, *other))
        assert float(kl(*one, *one)) == 0
        assert difference >= 0
        assert (difference > 0) == (other[0] != one[0] or other[1] != one[1])


@pytest.mark.parametrize("d", [1e-12, 1e-6, 1e-3, 0.00999, 0.01001, 0.3, -1e-6, -0.3, -4.0])
def test_kl_keeps_its_digits_where_variances_are_near(d):
    exact = float(sum(Fraction(d) ** k / math.factorial(k) for k in range(2, 40)) / 2)
    assert float(kl(*map(jnp.asarray, (0.0, d, 0.0, 0.0)))) == pytest.approx(exact, rel=1e-12)
    gradient = jax.grad(lambda d: kl(jnp.zeros(()), d, jnp.zeros(()), jnp.zeros(())))(jnp.asarray(d))
    assert float(gradient) == pytest.approx(np.expm1(d) / 2, rel=1e-9)


@checked
@given(means, log_variances)
def test_the_masses_of_all_levels_add_up_to_one(mean, log_variance):
    with jax.enable_x64(True):
        assert np.exp(log_masses(mean, log_variance)).sum() == pytest.approx(1, abs=1e-11)
        assert np.exp(log_masses(mean, log_variance, tanh=True)).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("log_variance", [-11.0, -7.0, -4.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [0.0, 0.0123, -0.7, 1.0, 3.0])
def test_masses_are_exact_in_both_tails(mean, log_variance):
    exact = [exact_log_mass(x, mean, log_variance) for x in LEVELS]
    assert min(exact) < -400 or log_variance > -5  # 30 standard deviations away and more
    # JAX's log_ndtr is good to 4e-9 where its series begins, 20 standard deviations away.
    np.testing.assert_allclose(log_masses(mean, log_variance), exact, rtol=1e-7, atol=1e-8)


def test_masses_in_float32_are_those_of_float64():
    x, mean, log_variance = np.meshgrid(LEVELS[::5], [-2.0, -0.3, 0.5], [-10.0, -6.0, 0.0], indexing="ij")
    exact = log_masses(mean, log_variance, x=x)
    with jax.enable_x64(False):
        single = log_masses(np.float32(mean), np.float32(log_variance), x=np.float32(x))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("log_variance", [-20.0, -9.0, 0.0, 20.0, 60.0])
def test_gradients_are_finite_everywhere(dtype, log_variance):
    for mean in (-8.0, 0.0, float(LEVELS[100]), 1.0):
        gradients = jax.grad(lambda m, v: discretised_log_likelihood(x, m, v).sum(), argnums=(0, 1))  # noqa: B023
        x = jnp.asarray(LEVELS, dtype)
        assert np.isfinite(gradients(jnp.full((256,), mean, dtype), jnp.full((256,), log_variance, dtype))).all()


def test_gradient_of_the_mean_is_by_finite_differences():
    x, log_variance, h = jnp.asarray(LEVELS), jnp.asarray(-5.0), 1e-6
    of = lambda mean: discretised_log_likelihood(x, mean, log_variance)  # noqa: E731
    slope = (of(jnp.asarray(0.1 + h)) - of(jnp.asarray(0.1 - h))) / (2 * h)
    np.testing.assert_allclose(jax.jacfwd(of)(jnp.asarray(0.1)), slope, rtol=1e-5, atol=1e-5)


def test_tanh_is_near_but_for_rare_levels():
    # Measured in OpenAI's code: the cdf is off by 1.8e-4, log masses above 1e-6 by up to 1.4 nats.
    exact, near = log_masses(0.3, -6.0), log_masses(0.3, -6.0, tanh=True)
    cdf, near_cdf = np.cumsum(np.exp(exact)), np.cumsum(np.exp(near))
    assert 5e-5 < np.abs(cdf - near_cdf).max() < 2e-4
    grid = np.stack([np.stack([log_masses(m, v, tanh=tanh) for tanh in (False, True)]) for m, v in GRID])
    exact, near = grid[:, 0], grid[:, 1]
    off = np.abs(exact - near)[exact > np.log(1e-6)].max()
    assert 1.0 < off < 1.6
    assert near.min() == pytest.approx(np.log(1e-12))


GRID = [(m, v) for m in (-0.9, -0.3, 0.0, 0.6) for v in (-8.0, -6.0, -4.0, -2.0)]
