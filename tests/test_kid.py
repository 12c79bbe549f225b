import numpy as np
import pytest

from ddpm.errors import InputError
from ddpm.evaluation.kid import kid


def test_kid_by_hand():
    real, generated = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 2.0], [2.0, 2.0]])
    # d = 2. Within: x1.x2 = 0 -> 1; y1.y2 = 4 -> 3^3 = 27. Across: 0, 0, 0, 4 -> 1, 1, 1, 27.
    assert kid(real, generated) == (pytest.approx(1 + 27 - 2 * 30 / 4), pytest.approx(0, abs=1e-12), 2)


def test_kid_is_unbiased():
    rng = np.random.default_rng(0)
    same = [kid(*rng.normal(size=(2, 20, 4)), subsets=1).mean for _ in range(400)]
    assert np.mean(same) == pytest.approx(0, abs=3 * np.std(same) / 20)
    assert min(same) < 0


def test_kid_of_shifted_points_is_that_of_the_kernel_means():
    # In one dimension E (x y + 1)^3 = sum over j of binom(3, j) E[x^j] E[y^j], so MMD^2 = sum binom (E x^j - E y^j)^2.
    moments = {0.0: (0, 1, 0), 0.5: (0.5, 1.25, 0.5**3 + 3 * 0.5)}  # E x, x^2, x^3 of N(mean, 1)
    expected = sum(c * (a - b) ** 2 for c, a, b in zip((3, 3, 1), moments[0.0], moments[0.5], strict=True))
    rng = np.random.default_rng(0)
    scores = [kid(rng.normal(size=(100, 1)), rng.normal(size=(80, 1)) + 0.5, subsets=1).mean for _ in range(300)]
    assert np.mean(scores) == pytest.approx(expected, abs=3 * np.std(scores) / np.sqrt(300))


def test_subsets_are_seeded_and_their_size_is_told():
    real, generated = np.random.default_rng(0).normal(size=(2, 60, 3))
    a, b, c = (kid(real, generated, subsets=5, subset_size=30, seed=seed) for seed in (0, 0, 1))
    assert a == b != c
    assert a.subset_size == 30 and a.std > 0
    assert kid(real, generated[:40], subsets=2).subset_size == 40


@pytest.mark.parametrize(
    ("real", "options", "message"),
    [
        (np.ones((1, 3)), {}, "real features: 1 image(s) are too few; take at least 2."),
        (np.ones((5, 2)), {}, "2 and 3 features an image cannot be compared: take both sets from the same extractor."),
        (np.ones((5, 3)), {"subset_size": 1}, "subset_size = 1 must be at least 2."),
        (np.ones((5, 3)), {"subsets": 0}, "subsets = 0 must be at least 1."),
    ],
    ids=["few", "dimension", "size", "subsets"],
)
def test_what_kid_refuses(real, options, message):
    with pytest.raises(InputError) as error:
        kid(real, np.ones((4, 3)), **options)
    assert str(error.value) == message
