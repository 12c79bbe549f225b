"""Dropout: its rate, its scale, and that the draws of features which share bits are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm import sharding
from ddpm.models.layers import Dropout


def dropped(rate, shape=(64, 16, 16, 30), key=0, train=True):
    return Dropout(rate).apply({}, jnp.ones(shape), train, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_and_the_scale_are_as_asked(rate):
    found = np.asarray(dropped(rate))
    zero, bound = (found == 0).mean(), 4 * np.sqrt(rate * (1 - rate) / found.size)
    assert abs(zero - rate) < bound
    np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=2e-4)
    each = (found == 0).mean(axis=(0, 1, 2))  # of each feature, of which four share a draw
    assert np.abs(each - rate).max() < 5 * np.sqrt(rate * (1 - rate) * 30 / found.size)


def test_draws_are_independent():
    zero = np.asarray(dropped(0.5) == 0, float).reshape(-1, 30)
    correlation = np.corrcoef(zero.T) - np.eye(30)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(zero))
    assert abs(np.corrcoef(zero[:-1, 0], zero[1:, 0])[0, 1]) < 5 / np.sqrt(len(zero))
    assert abs((dropped(0.5) == dropped(0.5, key=1)).mean() - 0.5) < 0.01


def test_nothing_is_dropped_outside_training_or_at_rate_0():
    assert (dropped(0.5, train=False) == 1).all() and (dropped(0.0) == 1).all()


def test_masks_are_the_same_on_any_number_of_devices():
    mesh = sharding.data_mesh()
    split = jax.jit(lambda: dropped(0.3), out_shardings=sharding.split(mesh))()
    np.testing.assert_array_equal(split, dropped(0.3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_type_is_kept(dtype):
    x = jnp.ones((2, 4, 8), dtype)
    assert Dropout(0.5).apply({}, x, True, rngs={"dropout": jax.random.key(0)}).dtype == dtype
