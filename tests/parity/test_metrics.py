"""Frechet distance, KID, precision and recall and Inception score against pytorch-fid and torch-fidelity."""

import types

import numpy as np
import pytest
import scipy.linalg
import torch

from ddpm.evaluation.frechet import frechet_distance
from ddpm.evaluation.inception_score import inception_score
from ddpm.evaluation.kid import kid
from ddpm.evaluation.moments import Moments
from ddpm.evaluation.precision_recall import precision_recall


@pytest.fixture
def features():
    """Correlated, skewed and of different sizes, as Inception's are."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(24, 24)) / 5
    return (rng.normal(size=(400, 24)) @ mix).clip(-1), (1.1 * rng.normal(size=(300, 24)) @ mix + 0.05).clip(-1)


def test_frechet_distance_is_that_of_pytorch_fid(theirs, features, monkeypatch):
    module = theirs("pytorch_fid.fid_score")
    # SciPy 1.18 has no `disp` any more.
    sqrtm = types.SimpleNamespace(sqrtm=lambda matrix, disp: (scipy.linalg.sqrtm(matrix), 0.0))
    monkeypatch.setattr(module, "linalg", sqrtm)
    statistics = [value for x in features for value in (x.mean(axis=0), np.cov(x, rowvar=False))]
    ours = frechet_distance(*map(Moments.of, features))
    assert ours == pytest.approx(module.calculate_frechet_distance(*statistics), rel=1e-6)


@pytest.mark.parametrize("n", [400, 20], ids=["full rank", "rank deficient"])
def test_frechet_distance_is_that_of_torch_fidelity(theirs, features, n):
    module = theirs("torch_fidelity.metric_fid")
    real, generated = (x[:n] for x in features)
    statistics = [module.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, generated)]
    expected = module.fid_statistics_to_metric(*statistics, verbose=False)[module.KEY_METRIC_FID]
    assert frechet_distance(Moments.of(real), Moments.of(generated)) == pytest.approx(expected, rel=1e-6)


def test_kid_is_that_of_torch_fidelity(theirs, features):
    module = theirs("torch_fidelity.metric_kid")

    def expected(x, y, **options):
        found = module.kid_features_to_metric(*map(torch.from_numpy, (x, y)), verbose=False, **options)
        return found[module.KEY_METRIC_KID_MEAN], found[module.KEY_METRIC_KID_STD]

    real, generated = features[0][:300], features[1]
    mean, _ = expected(real, generated, kid_subsets=1, kid_subset_size=300)  # all points, in any order
    assert kid(real, generated, subsets=1).mean == pytest.approx(mean, rel=1e-9)
    mean, std = expected(real, generated, kid_subsets=400, kid_subset_size=100)  # their subsets are others
    ours = kid(real, generated, subsets=400, subset_size=100)
    assert ours.mean == pytest.approx(mean, abs=4 * std / np.sqrt(400))
    assert ours.std == pytest.approx(std, rel=0.2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(theirs, features, k):
    module = theirs("torch_fidelity.metric_prc")
    real, generated = (x[:, :6] for x in features)
    expected = module.prc_features_to_metric(
        *map(torch.from_numpy, (generated, real)), prc_neighborhood=k, prc_batch_size=1000, verbose=False
    )
    ours = precision_recall(real, generated, k)
    assert ours == pytest.approx((expected[module.KEY_METRIC_PRECISION], expected[module.KEY_METRIC_RECALL]), rel=1e-6)
    assert 0.1 < min(ours) < max(ours) < 1


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("splits", [1, 7])
def test_inception_score_is_that_of_torch_fidelity(theirs, splits, shuffle):
    module = theirs("torch_fidelity.metric_isc")
    logits = np.random.default_rng(0).normal(size=(300, 10)) * 3
    expected = module.isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=shuffle)
    ours = inception_score(logits, splits=splits) if shuffle else inception_score(logits, splits=splits, seed=None)
    assert ours == pytest.approx((expected[module.KEY_METRIC_ISC_MEAN], expected[module.KEY_METRIC_ISC_STD]), rel=1e-9)
