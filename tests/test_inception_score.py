import numpy as np
import pytest

from ddpm.errors import InputError
from ddpm.evaluation.inception_score import inception_score


def test_equal_predictions_score_one():
    logits = np.tile(np.random.default_rng(0).normal(size=7), (50, 1))
    assert inception_score(logits) == (pytest.approx(1, rel=1e-12), pytest.approx(0, abs=1e-12))
    assert inception_score(np.zeros((50, 7)))[0] == pytest.approx(1, rel=1e-12)


def test_certain_and_balanced_predictions_score_the_number_of_classes():
    logits = np.tile(1e4 * np.eye(5), (20, 1))  # exp(1e4) overflows, exp(-1e4) is zero
    assert inception_score(logits, seed=None) == (pytest.approx(5, rel=1e-12), pytest.approx(0, abs=1e-12))
    assert inception_score(logits - 1e6, seed=None)[0] == pytest.approx(5, rel=1e-9)


def test_score_by_hand():
    # Half (3/4, 1/4), half (1/4, 3/4): KL(p || (1/2, 1/2)) = 3/4 log(3/2) + 1/4 log(1/2).
    logits = np.log(np.array([[3.0, 1.0], [1.0, 3.0]] * 10))
    assert inception_score(logits, splits=2, seed=None)[0] == pytest.approx(1.5**0.75 * 0.5**0.25, rel=1e-12)


def test_splits_are_consecutive_and_take_every_image():
    logits = np.zeros((7, 3))
    logits[3:] = 100 * np.eye(3)[[0, 1, 2, 0]]  # parts of 3 and 4: the second has marginal (1/2, 1/4, 1/4)
    expected = pytest.approx((1 + 2**1.5) / 2), pytest.approx((2**1.5 - 1) / 2)
    assert inception_score(logits, splits=2, seed=None) == expected


def test_images_in_the_order_of_their_classes_score_as_in_any_other():
    logits = 100 * np.repeat(np.eye(10), 1000, axis=0)
    mean, std = inception_score(logits)
    assert 9.9 < mean < 10 and std < 0.05
    assert inception_score(logits, seed=None)[0] == pytest.approx(1)  # each part is one class


def test_fewer_images_than_splits_are_refused():
    with pytest.raises(InputError, match=r"^logits: 9 image\(s\) are too few; take at least 10.$"):
        inception_score(np.zeros((9, 3)))
