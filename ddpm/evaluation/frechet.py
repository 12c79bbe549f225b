"""The Frechet distance between the Gaussians of two sets of features."""

import numpy as np


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), in float64 with unbiased covariances.

    The trace of the root is the sum of square roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric.

    Args:
      features_a, features_b: [n, d], with n well above d for the covariances to mean anything.

    Dowson and Landau 1982; Heusel et al. 2017, Eq. 6.
    """
    (mu_a, cov_a), (mu_b, cov_b) = (_moments(features) for features in (features_a, features_b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    root_trace = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return float(((mu_a - mu_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))
