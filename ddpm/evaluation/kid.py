"""Kernel Inception distance: the squared maximum mean discrepancy of a cubic kernel."""

from typing import NamedTuple

import numpy as np

from ddpm.errors import check_at_least
from ddpm.evaluation.points import as_points, check_same_dimension


class KernelDistance(NamedTuple):
    """Mean and standard deviation over subsets, and the subsets' size in use."""

    mean: float
    std: float
    subset_size: int


def kid(
    real: np.ndarray, generated: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """MMD^2 of k(x, y) = (x.y/d + 1)^3, unbiased: about 0, on either side, for equal distributions.

    For each of `subsets` pairs of random subsets of m images without replacement:
    sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / m^2.

    Args:
      real, generated: features [n, d] and [n', d].
      subsets: how many pairs. With subset_size = n = n' all are the same, and their deviation says nothing.
      subset_size: m; all of the smaller set where it has fewer, as the result says.
      seed: of the subsets.
    Raises:
      InputError: fewer than 2 images or a size below that, features that are not finite, other dimensions.

    Binkowski et al. 2018, Sec. 4; Gretton et al. 2012, Eq. 3.
    """
    real, generated = as_points(real, "real features", 2), as_points(generated, "generated features", 2)
    d = real.shape[1]
    check_same_dimension(d, generated.shape[1])
    check_at_least(2, subset_size=subset_size)
    check_at_least(1, subsets=subsets)
    m = min(subset_size, len(real), len(generated))
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(subsets):
        x, y = (features[rng.choice(len(features), m, replace=False)] for features in (real, generated))
        within = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
        distances.append(within / (m * (m - 1)) - 2 * _kernel(x, y).mean())
    return KernelDistance(float(np.mean(distances)), float(np.std(distances)), m)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
