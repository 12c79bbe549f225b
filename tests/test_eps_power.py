"""What ancestral sampling with the optimal variance measures of a model and its data."""

import jax.numpy as jnp
import numpy as np
import pytest
from processes import eps_model
from samplers import table

from ddpm.condition import Condition
from ddpm.data.images import Dataset, Labels
from ddpm.sampling.eps_power import interpolated, measured, some_examples

DATA = Dataset(np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8), ("a", "b", "c"), np.arange(300) % 3)


def test_it_is_the_mean_square_of_what_the_model_says():
    """A model that says x_t itself: alpha^2 mean(x_0^2) + sigma^2, up to the draw of the noise."""
    vp, some = table(), some_examples(DATA)
    times = jnp.array([1000, 500, 100, 0])  # at 0, where nothing is asked, that of 1
    found = measured(eps_model(vp, lambda x_t, t: x_t), jnp.asarray(some.pixels), times)
    power = np.mean((some.pixels / 127.5 - 1) ** 2)
    t = jnp.maximum(times, 1)
    np.testing.assert_allclose(found, vp.alpha(t) ** 2 * power + vp.sigma(t) ** 2, rtol=0.03)


def test_between_times_it_is_linear():
    power = interpolated(jnp.array([10, 4, 0, 0]), jnp.array([1.0, 0.4, 0.2, 0.2]))  # a grid that is filled up
    assert [float(power(jnp.asarray(t))) for t in (10, 7, 4, 1)] == pytest.approx([1.0, 0.7, 0.4, 0.25])


def test_the_images_are_spread_over_the_set_with_their_classes():
    some = some_examples(DATA, Condition(Labels(DATA.labels)), num=100)
    assert some.pixels.shape == (100, 8, 8, 1) and set(some.condition.labels) == {0, 1, 2}
    np.testing.assert_array_equal(some.pixels[[0, -1]], DATA.images[[0, -1]])
    assert some_examples(DATA).condition.labels is None
    assert len(some_examples(DATA, num=1000).pixels) == 300
