"""The Frechet distance between Gaussians (FID, by Inception's features), its bias, and its limit for n -> infinity."""

import itertools
import math
import operator

import numpy as np

from ddpm.errors import InputError, check_at_least
from ddpm.evaluation.moments import Moments
from ddpm.evaluation.points import as_points, check_same_dimension


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    Never negative beyond rounding, and right for covariances without full rank (n <= d).

    Raises:
      InputError: the two differ in dimension.

    Dowson and Landau 1982; Heusel et al. 2017, Eq. 6.
    """
    check_same_dimension(len(a.mean), len(b.mean))
    fewer, more = sorted((a, b), key=lambda moments: math.inf if moments.n is None else moments.n)
    return _distance(fewer, _root(fewer.cov), more)


def fid_infinity(features: np.ndarray, reference: Moments, *, num_points: int = 15, seed: int = 0) -> float:
    """The Frechet distance of n -> infinity images: the intercept of a line in 1/n.

    Fitted by least squares to the distances of the first n' rows of one random order, for `num_points` sizes n' evenly
    spaced from max(n / 10, d + 1) to n. What the reference's own finite size adds stays in.

    Args:
      features: [n, d], n >= 2 (d + 1).
      reference: the moments to compare with.
      num_points: how many sizes, at least 2.
      seed: of the order.
    Raises:
      InputError: too few images or sizes, features that are not finite, another dimension.

    Chong and Forsyth 2020.
    """
    features = as_points(features, "features")
    n, d = features.shape
    check_same_dimension(d, len(reference.mean))
    check_at_least(2, num_points=num_points)
    if n < 2 * (d + 1):
        raise InputError(f"{n} images of {d} features are too few to extrapolate from; take {2 * (d + 1)} or more.")
    order = np.random.default_rng(seed).permutation(n)
    sizes = np.unique(np.linspace(max(n // 10, d + 1), n, num_points).astype(int))
    parts = (Moments.of(features[order[i:j]]) for i, j in itertools.pairwise([0, *sizes]))
    root = _root(reference.cov)
    distances = [_distance(reference, root, moments) for moments in itertools.accumulate(parts, operator.add)]
    slope, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def expected_bias(cov: np.ndarray, n: int) -> float:
    """What n images of a Gaussian score against that very Gaussian, on average, to first order in 1/n.

    tr(S)/n + (sum_ij l_i l_j / (l_i + l_j) + tr(S)/2) / (2 (n - 1)), l the eigenvalues of S: d/n + d(d + 1)/(4 (n - 1))
    for S = I. The mean's part, and half the second derivative of the distance, sum_ij E_ij^2 / (l_i + l_j), under the
    Wishart variances l_i l_j (1 + [i = j]) / (n - 1) of E, the error of the covariance. Both sets' biases add.

    Args:
      cov: [d, d], of a set much larger than n.
      n: at least 2.
    """
    values = np.linalg.eigvalsh(cov)
    values = values[values > 0]
    trace = values.sum()
    pairs = (values[:, None] * values[None, :] / (values[:, None] + values[None, :])).sum()
    return float(trace / n + (pairs + trace / 2) / (2 * (n - 1)))


def small_sample_warning(generated: Moments, reference: Moments) -> str | None:
    """What is wrong with the distance of so few images (n <= d), in one sentence; None if they are enough.

    The score it tells is that of as many draws from the reference's own Gaussian.
    """
    d, rng = len(reference.mean), np.random.default_rng(0)
    few = [moments.n is not None and moments.n <= d for moments in (generated, reference)]
    if not any(few):
        return None
    root = _root(reference.cov)
    sets = [
        Moments.of(rng.normal(size=(moments.n, root.shape[1])) @ root.T + reference.mean) if is_few else reference
        for moments, is_few in zip((generated, reference), few, strict=True)
    ]
    n = min(moments.n for moments in sets if moments.n is not None)
    return (
        f"{n} images give a covariance of {d} features a rank of {n - 1} at most: even images of the reference's own "
        f"distribution would score about {frechet_distance(*sets):.2g}; take more than {d}, better {10 * d}."
    )


def _distance(a: Moments, root_a: np.ndarray, b: Moments) -> float:
    # S_a S_b has the eigenvalues of root_a^T S_b root_a, which is symmetric, and no others but zeros.
    values = np.linalg.eigvalsh(root_a.T @ b.cov @ root_a)
    root_trace = np.sqrt(values.clip(0)).sum()
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * root_trace)


def _root(cov: np.ndarray) -> np.ndarray:
    """[d, rank] with root root^T = cov. Eigenvalues that are rounding are left out: each would add its square root."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > len(values) * np.finfo(float).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
