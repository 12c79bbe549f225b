import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm import names
from ddpm.diffusion import schedules
from ddpm.errors import InputError

SCHEDULES = names.public(schedules)


def test_linear_is_the_product_of_linear_betas():
    table = schedules.linear(1000)
    for t in (1, 2, 500, 1000):
        betas = [1e-4 + (i - 1) * (0.02 - 1e-4) / 999 for i in range(1, t + 1)]
        assert table[t] == pytest.approx(math.exp(math.fsum(math.log1p(-b) for b in betas)), rel=1e-12)


def test_cosine_is_the_squared_cosine_where_no_beta_is_capped():
    T, s = 1000, 0.008
    table = schedules.cosine(T)
    closed = [
        math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2 for t in range(T)
    ]
    np.testing.assert_allclose(table[:T], closed, rtol=1e-9)


def test_quadratic_betas_are_squares_of_evenly_spaced_roots():
    table = schedules.quadratic(1000, beta_1=0.00085, beta_T=0.012)
    roots = np.sqrt(1 - table[1:] / table[:-1])
    np.testing.assert_allclose(roots, np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000), rtol=1e-9)


def test_betas_told_for_1000_levels_are_scaled_to_others():
    ends = [schedules.linear(T)[-1] for T in (250, 1000, 4000)]
    assert max(ends) < 2 * min(ends) and 1 - schedules.linear(4000)[1] == pytest.approx(1e-4 / 4)


def test_sigmoid_and_sqrt_are_written_out():
    S = lambda x: 1 / (1 + math.exp(-x / 0.9))  # noqa: E731
    u = 0.3
    closed = (S(3) - S(-3 + 6 * u)) / (S(3) - S(-3))
    assert schedules.sigmoid(1000, tau=0.9)[300] == pytest.approx(closed, rel=1e-9)
    closed = (1 - math.sqrt(u + 1e-4)) / (1 - math.sqrt(1e-4))
    assert schedules.sqrt(1000)[300] == pytest.approx(closed, rel=1e-9)


def test_cosine_caps_the_last_beta():
    table = schedules.cosine(1000)
    assert 1 - table[1000] / table[999] == pytest.approx(0.999, rel=1e-12)
    assert 1 - table[999] / table[998] < 0.999


@pytest.mark.parametrize("name", SCHEDULES)
@settings(deadline=None, max_examples=30)
@given(T=st.integers(2, 3000))
def test_every_schedule_falls_from_one(name, T):
    try:
        table = SCHEDULES[name](T)
    except InputError as error:  # betas scaled to so few levels
        assert T <= 20 and "make the largest beta" in str(error)
        return
    assert table.dtype == np.float64 and table.shape == (T + 1,) and table[0] == 1
    assert (np.diff(table) < 0).all() and table[-1] >= 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine(1), "T = 1 noise levels are too few; a schedule needs T >= 2 (DDPM uses 1000)."),
        (
            lambda: schedules.linear(9, beta_1=0.0),
            "beta_1 = 0.0 is not in (0, 1); DDPM uses beta_1 = 1e-4, beta_T = 0.02.",
        ),
        (
            lambda: schedules.linear(9, beta_T=2.0),
            "beta_T = 2.0 is not in (0, 1); DDPM uses beta_1 = 1e-4, beta_T = 0.02.",
        ),
        (
            lambda: schedules.linear(10),
            "T = 10 levels make the largest beta 2, not below 1: use more than 20 levels, smaller betas, or the cosine schedule.",
        ),
        (lambda: schedules.sqrt(9, s=0.0), "s = 0.0 is not in (0, 1); Diffusion-LM uses 1e-4."),
        (lambda: schedules.sigmoid(9, tau=0.0), "tau = 0.0 is not in (0, inf); Jabri et al. use 0.9 to 1.1."),
        (lambda: schedules.cosine(9, s=-1.0), "s = -1.0 is not in [0, 1); improved DDPM uses s = 0.008."),
        (lambda: schedules.cosine(9, beta_max=1.0), "beta_max = 1.0 is not in (0, 1); improved DDPM uses 0.999."),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
