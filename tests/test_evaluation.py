import numpy as np
import pytest

from ddpm.evaluation.frechet import frechet_distance
from ddpm.evaluation.precision_recall import precision_recall


def gaussian(n, mean, scales, seed=0):
    """n points whose sample mean and covariance are exactly `mean` and diag(scales^2)."""
    x = np.random.default_rng(seed).normal(size=(n, len(scales)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x * scales + mean


def test_frechet_distance_of_gaussians_is_the_closed_form():
    a, b = gaussian(50, np.zeros(3), np.ones(3)), gaussian(70, np.array([1.0, 2, 0]), np.array([2.0, 2, 5]), seed=1)
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 1 + 16, rel=1e-9)


def test_frechet_distance_does_not_depend_on_the_axes_or_the_order():
    a, b = gaussian(50, np.zeros(3), np.array([1.0, 2, 3])), gaussian(50, np.ones(3), np.array([3.0, 1, 1]), seed=1)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    distance = frechet_distance(a, b)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_rank_deficient_features():
    a = np.array([[0.0, 0.0], [2.0, 0.0]])
    assert frechet_distance(a, a + [0, 3]) == pytest.approx(9, abs=1e-6)


def test_precision_and_recall_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])  # radii for k = 2: 2, 1, 2 about each cluster
    generated = np.array([[0.5], [1.5], [3.5], [30.0]])  # radii: 3, 2, 3, 28.5
    precision, recall = precision_recall(real, generated, k=2)
    assert precision == 3 / 4  # 3.5 is within 2 of 2
    assert recall == 1.0  # the outlier's ball reaches back to 1.5; 0, 1 and 2 are within 3 of 0.5
    assert precision_recall(real, generated[:3], k=2)[1] == 3 / 6


def test_precision_and_recall_of_the_same_set_are_one_and_of_far_sets_zero():
    x = np.random.default_rng(0).normal(size=(60, 5))
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)
