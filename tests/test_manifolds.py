import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ddpm.errors import InputError
from ddpm.evaluation import neighbours
from ddpm.evaluation.density_coverage import density_coverage
from ddpm.evaluation.memorisation import memorisation
from ddpm.evaluation.precision_recall import precision_recall


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_distances_in_blocks_are_the_distances(block, offset, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    rng = np.random.default_rng(0)
    a, b = np.round(rng.normal(size=(30, 4)), 3), np.round(rng.normal(size=(20, 4)), 3)
    parts = list(neighbours.distance_blocks(a + offset, b + offset))
    assert all(part.size <= max(block, len(b)) for _, part in parts)
    np.testing.assert_allclose(np.concatenate([part for _, part in parts]), cdist(a, b) ** 2, rtol=0, atol=1e-8)
    to_others = np.sort(cdist(a, a), axis=1)
    np.testing.assert_allclose(neighbours.squared_radii(a + offset, 3), to_others[:, 3] ** 2, rtol=0, atol=1e-8)
    indices, distances = neighbours.nearest(a + offset, b + offset, 2)
    np.testing.assert_array_equal(indices, cdist(a, b).argsort(axis=1)[:, :2])
    np.testing.assert_allclose(distances, np.sort(cdist(a, b), axis=1)[:, :2], rtol=0, atol=1e-8)


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


def test_density_and_coverage_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # radii for k = 1: 1, 1, 2, 7; for k = 2: 3, 2, 3, 9
    generated = np.array([[0.5], [2.5], [-5.0]])
    # 0.5 lies in the balls of 0 and 1, 2.5 in that of 3, -5 in none: 3 balls of 1 x 3; three real points are covered.
    assert density_coverage(real, generated, k=1) == (3 / 3, 3 / 4)
    # 0.5 in those of 0, 1 and 3; 2.5 in all four; -5 in none.
    assert density_coverage(real, generated, k=2) == (7 / 6, 1.0)


def test_density_and_coverage_of_one_distribution_are_their_expectations():
    rng, n, m, k = np.random.default_rng(0), 60, 40, 3
    scores = np.array([density_coverage(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k) for _ in range(300)])
    missed = np.prod(
        [(n - i) / (m + n - i) for i in range(1, k + 1)]
    )  # Naeem et al. 2020: none of m among the k nearest
    error = scores.std(axis=0) / np.sqrt(len(scores))
    assert scores[:, 0].mean() == pytest.approx(1, abs=3 * error[0])
    assert scores[:, 1].mean() == pytest.approx(1 - missed, abs=3 * error[1])


def test_an_outlier_moves_precision_and_recall_but_not_density_and_coverage():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 30
    outlier = np.array([[30.0, 30.0]])
    assert precision_recall(real, generated)[0] == 0 and precision_recall(np.r_[real, outlier], generated)[0] == 1
    assert density_coverage(np.r_[real, outlier], generated) == (pytest.approx(1 / 5), 1 / 201)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.integers(1, 4))
def test_manifolds_do_not_depend_on_order_scale_or_axes(seed, scale, k):
    rng = np.random.default_rng(seed)
    real, generated = rng.normal(size=(12, 3)), rng.normal(size=(9, 3))
    turn = scale * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = rng.permutation(real) @ turn + 5, rng.permutation(generated) @ turn + 5
    assert precision_recall(*moved, k) == precision_recall(real, generated, k)
    assert density_coverage(*moved, k) == density_coverage(real, generated, k)
    assert precision_recall(real, generated, k) == precision_recall(generated, real, k)[::-1]


def test_memorisation_by_hand():
    training = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]])
    generated = np.array([[1.0, 0.0], [1.5, 0.0], [4.0, 4.0], [100.0, 100.0]])
    found = memorisation(generated, training)
    np.testing.assert_array_equal(found.nearest, [0, 0, 2, 2])
    np.testing.assert_allclose(found.distance, [1, 1.5, 0, 96 * np.sqrt(2)], rtol=1e-12)
    np.testing.assert_allclose(found.ratio, [1 / 3, 1.5 / 2.5, 0, np.sqrt(2 * 96**2 / (96**2 + 100**2))], rtol=1e-12)
    assert memorisation(generated, training, threshold=0.34).share == 2 / 4
    assert memorisation(generated, training, threshold=0.1).share == 1 / 4


def test_copies_are_found_to_the_last_digit_and_fresh_points_are_not():
    rng = np.random.default_rng(0)
    training = rng.normal(size=(300, 50)) + 1e3
    training[1] = training[0]  # a copy of an image that is there twice
    generated = np.r_[training[:10], rng.normal(size=(10, 50)) + 1e3]
    found = memorisation(generated, training)
    np.testing.assert_array_equal(found.ratio[:10], 0)
    np.testing.assert_array_equal(found.nearest[2:10], range(2, 10))
    assert found.share == 1 / 2


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
def test_too_few_points_other_dimensions_and_k_are_refused(metric):
    def message(*arguments):
        with pytest.raises(InputError) as error:
            metric(*arguments)
        return str(error.value)

    x = np.ones((5, 3))
    assert message(x[:4], x, 4) == "real features: 4 image(s) are too few; take at least 5."
    assert message(x, x[:0], 4).startswith("generated features: 0 image(s) are too few; take at least ")
    assert message(x, x, 0) == "k = 0 must be at least 1."
    assert message(x, x[:, :2], 2) == (
        "3 and 2 features an image cannot be compared: take both sets from the same extractor."
    )
    assert message(x, x * np.nan, 2) == (
        "generated features: 5 of 5 rows hold NaN or infinity; look at these images first."
    )
