"""Improved precision and recall."""

import numpy as np

from ddpm.errors import check_at_least
from ddpm.evaluation.neighbours import distance_blocks, squared_radii
from ddpm.evaluation.points import as_points, check_same_dimension


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Share of generated points within the real manifold, and of real points within the generated one.

    A set's manifold is the union of closed balls about its points, each reaching to the point's k-th nearest neighbour.

    Args:
      real, generated: features [n, d] and [m, d], more than k points each.
      k: at least 1.
    Raises:
      InputError: too few points, features that are not finite, other dimensions.

    Kynkaanniemi et al. 2019, Eq. 1 and 2.
    """
    check_at_least(1, k=k)
    real, generated = as_points(real, "real features", k + 1), as_points(generated, "generated features", k + 1)
    check_same_dimension(real.shape[1], generated.shape[1])
    return _inside(generated, real, k), _inside(real, generated, k)


def _inside(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    radii = squared_radii(manifold, k)
    inside = [(distances <= radii[None, :]).any(axis=1) for _, distances in distance_blocks(points, manifold)]
    return float(np.concatenate(inside).mean())
