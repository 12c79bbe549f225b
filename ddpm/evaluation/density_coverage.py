"""Density and coverage: precision and recall that one outlier cannot move."""

import numpy as np

from ddpm.errors import check_at_least
from ddpm.evaluation.neighbours import distance_blocks, squared_radii
from ddpm.evaluation.points import as_points, check_same_dimension


def density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """How many real balls a generated point lies in, over k; and the share of real balls that hold a generated point.

    The ball about a real point reaches to its k-th nearest real neighbour. For n real and m generated points of one
    distribution the density is 1 on average, may be more, and the coverage
    1 - (n - 1) ... (n - k) / ((m + n - 1) ... (m + n - k)), about 1 - 2^-k for n = m.

    Args:
      real, generated: features [n, d] and [m, d], more than k real points.
      k: at least 1.
    Raises:
      InputError: too few points, features that are not finite, other dimensions.

    Naeem et al. 2020, Sec. 3.
    """
    check_at_least(1, k=k)
    real, generated = as_points(real, "real features", k + 1), as_points(generated, "generated features")
    check_same_dimension(real.shape[1], generated.shape[1])
    radii = squared_radii(real, k)
    balls, covered = 0, np.zeros(len(real), bool)
    for _, distances in distance_blocks(generated, real):
        inside = distances <= radii[None, :]
        balls += int(inside.sum())
        covered |= inside.any(axis=0)
    return balls / (k * len(generated)), float(covered.mean())
