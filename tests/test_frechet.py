import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.errors import InputError
from ddpm.evaluation.frechet import expected_bias, fid_infinity, frechet_distance, small_sample_warning
from ddpm.evaluation.moments import Moments


def gaussian(mean, cov, n=None):
    return Moments(n, np.asarray(mean, float), np.asarray(cov, float))


def distance(a, b):
    return frechet_distance(Moments.of(a), Moments.of(b))


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_distance_of_gaussians_is_the_closed_form():
    standard = gaussian(np.zeros(3), np.eye(3))
    assert frechet_distance(standard, gaussian(np.zeros(3), 4 * np.eye(3))) == pytest.approx(3, rel=1e-12)
    assert frechet_distance(standard, gaussian([1, 2, 0], np.eye(3))) == pytest.approx(5, rel=1e-12)
    other = gaussian([1, 2, 0], np.diag([4, 4, 25]))  # commuting: squared difference of deviations
    assert frechet_distance(standard, other) == pytest.approx(5 + 1 + 1 + 16, rel=1e-12)


def test_distance_of_covariances_that_do_not_commute_is_that_of_the_matrix_square_root():
    a, b = (np.cov(np.random.default_rng(seed).normal(size=(30, 6)), rowvar=False) for seed in (0, 1))
    expected = np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    zero = np.zeros(6)
    assert frechet_distance(gaussian(zero, a), gaussian(zero, b)) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_distance_is_symmetric_not_negative_zero_on_itself_and_free_of_axes(n, m, d, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), 3 * rng.normal(size=(m, d)) + 1
    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-6)
    assert distance(a, b) > -1e-9
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
    turn = rotation(d)
    assert distance(a @ turn, b @ turn) == pytest.approx(distance(a, b), abs=1e-6)


def test_distance_of_rank_deficient_covariances():
    line = np.array([[0.0, 0.0], [2.0, 0.0]])
    assert distance(line, line + [0, 3]) == pytest.approx(9, rel=1e-12)
    assert distance(line, line[:, ::-1]) == pytest.approx(2 + 2 + 2, rel=1e-12)  # lines at right angles: no overlap
    assert distance(line[:1], line[1:]) == 4.0  # single points
    few = np.random.default_rng(0).normal(size=(50, 400))  # n << d, rotated: zeros are rounding, not zeros
    assert distance(few, few @ rotation(400) @ rotation(400).T) == pytest.approx(0, abs=1e-9)
    assert distance(few, 2 * few + 1) == pytest.approx(
        ((few.mean(0) + 1) ** 2).sum() + np.trace(Moments.of(few).cov), rel=1e-12
    )


def test_expected_bias_of_a_standard_gaussian():
    for d, n in [(1, 10), (64, 1000)]:
        assert expected_bias(np.eye(d), n) == pytest.approx(d / n + d * (d + 1) / (4 * (n - 1)), rel=1e-12)
        assert expected_bias(np.diag([1.0] * d + [0.0]), n) == pytest.approx(expected_bias(np.eye(d), n), rel=1e-12)


def test_bias_falls_as_one_over_n_at_the_expected_rate():
    scales, turn = np.linspace(0.3, 2, 8), rotation(8)
    truth = gaussian(np.zeros(8), turn.T @ np.diag(scales**2) @ turn)
    rng, means = np.random.default_rng(0), []
    for n in (100, 200, 400, 800):
        scores = [frechet_distance(Moments.of(rng.normal(size=(n, 8)) * scales @ turn), truth) for _ in range(300)]
        means.append(np.mean(scores))
        assert means[-1] == pytest.approx(expected_bias(truth.cov, n), rel=0.05)
    assert np.polyfit(np.log([100, 200, 400, 800]), np.log(means), 1)[0] == pytest.approx(-1, abs=0.05)


def test_fid_infinity_takes_the_bias_away():
    d, n, shift = 8, 1000, 0.1
    truth = gaussian(np.zeros(d), np.eye(d))
    rng, plain, corrected = np.random.default_rng(0), [], []
    for seed in range(100):
        x = rng.normal(size=(n, d)) + shift
        plain.append(frechet_distance(Moments.of(x), truth))
        corrected.append(fid_infinity(x, truth, seed=seed))
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert np.mean(corrected) == pytest.approx(d * shift**2, abs=3 * error)
    assert np.mean(plain) - d * shift**2 > 3 * error  # what was corrected is larger than what is tested
    assert fid_infinity(x, truth, seed=1) == fid_infinity(x, truth, seed=1) != fid_infinity(x, truth, seed=2)


def test_fid_infinity_of_a_line_in_one_over_n_is_its_intercept(monkeypatch):
    seen = []

    def line(a, root, b):
        seen.append(b.n)
        return 7 + 30 / b.n

    monkeypatch.setattr("ddpm.evaluation.frechet._distance", line)
    x = np.random.default_rng(0).normal(size=(500, 2))
    assert fid_infinity(x, gaussian(np.zeros(2), np.eye(2)), num_points=4) == pytest.approx(7, rel=1e-9)
    assert seen == [50, 200, 350, 500]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((17, 8)), "17 images of 8 features are too few to extrapolate from; take 18 or more."),
        (np.ones((50, 7)), "7 and 8 features an image cannot be compared: take both sets from the same extractor."),
    ],
    ids=["few", "dimension"],
)
def test_features_that_fid_infinity_refuses(features, message):
    with pytest.raises(InputError) as error:
        fid_infinity(features, gaussian(np.zeros(8), np.eye(8)))
    assert str(error.value) == message


def test_different_dimensions_are_refused():
    with pytest.raises(InputError, match="^3 and 2 features an image cannot be compared"):
        frechet_distance(Moments.of(np.eye(3)), Moments.of(np.eye(2)))


@pytest.mark.parametrize(("n", "m"), [(40, None), (10, None), (1, 1000), (40, 20), (100, 20)])
def test_a_rank_deficient_covariance_is_warned_of_with_the_score_to_expect(n, m):
    d, rng = 40, np.random.default_rng(1)
    scales = np.linspace(0.5, 2, d)

    def draw(count):
        return Moments.of(rng.normal(size=(count, d)) * scales)

    truth = gaussian(np.zeros(d), np.diag(scales**2), m)
    warning = small_sample_warning(draw(n), truth)
    few = min(n, m or n)
    head, tail = (
        f"{few} images give a covariance of 40 features a rank of {few - 1} at most: even images of the reference's own "
        "distribution would score about ",
        "; take more than 40, better 400.",
    )
    assert warning.startswith(head) and warning.endswith(tail)
    scores = [frechet_distance(draw(n), truth if m is None else draw(m)) for _ in range(50)]
    assert float(warning[len(head) : -len(tail)]) == pytest.approx(np.mean(scores), rel=0.1, abs=4 * np.std(scores))


def test_enough_images_are_not_warned_of():
    standard = gaussian(np.zeros(4), np.eye(4))
    assert small_sample_warning(gaussian(np.zeros(4), np.eye(4), 5), standard) is None
    assert small_sample_warning(standard, standard) is None  # counts unknown
