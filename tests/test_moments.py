import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.errors import InputError
from ddpm.evaluation.moments import Moments


def stream(batches):
    return functools.reduce(operator.add, map(Moments.of, batches))


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_streamed_moments_are_those_of_two_passes(size, offset):
    x = np.random.default_rng(0).normal(size=(1000, 5)) * [1, 2, 3, 0.5, 1] + offset
    moments = stream(x[i : i + size] for i in range(0, len(x), size))
    exact = x.astype(np.longdouble)
    mean = exact.mean(axis=0)
    cov = (exact - mean).T @ (exact - mean) / (len(x) - 1)  # in 80 bits
    assert moments.n == 1000
    np.testing.assert_allclose(moments.mean, mean.astype(float), rtol=1e-13, atol=1e-10)
    np.testing.assert_allclose(moments.cov, cov.astype(float), rtol=0, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_moments_do_not_depend_on_how_the_points_are_batched(sizes, seed):
    x = np.random.default_rng(seed).normal(size=(sum(sizes) + 1, 3)) * 100 + 1000
    whole, parts = Moments.of(x), stream(np.split(x, np.cumsum(sizes)))
    assert parts.n == whole.n
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.cov, whole.cov, rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(whole.cov, np.cov(x, rowvar=False), rtol=1e-10)


def test_moments_by_hand():
    moments = Moments.of(np.array([[0, 0], [2, 4]], np.uint8))
    np.testing.assert_array_equal(moments.mean, [1, 2])
    np.testing.assert_array_equal(moments.cov, [[2, 4], [4, 8]])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.empty((0, 3)), "features: 0 image(s) are too few; take at least 1."),
        (np.empty(3), "features of shape (3,) must be [n, d]: one row an image."),
        (
            np.array([[1, np.nan], [0, 0], [np.inf, np.nan]]),
            "features: 2 of 3 rows hold NaN or infinity; look at these images first.",
        ),
    ],
    ids=["none", "flat", "not finite"],
)
def test_points_that_have_no_moments(points, message):
    with pytest.raises(InputError) as error:
        Moments.of(points)
    assert str(error.value) == message


def test_moments_that_cannot_be_added():
    a = Moments.of(np.eye(3))
    with pytest.raises(
        InputError, match="^3 and 2 features an image cannot be compared: take both sets from the same "
    ):
        a + Moments.of(np.eye(2))
    with pytest.raises(
        InputError, match="^moments of an unknown number of images cannot be added to: take all images "
    ):
        a + Moments(None, a.mean, a.cov)
