"""Improved precision and recall."""

import numpy as np


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Share of generated points within the real manifold, and of real points within the generated one.

    A set's manifold is the union of balls about its points, each reaching to the point's k-th nearest neighbour.

    Args:
      real, generated: features [n, d] and [m, d], more than k points each.

    Kynkaanniemi et al. 2019, Eq. 1 and 2.
    """
    return _inside(generated, real, k), _inside(real, generated, k)


def _inside(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    # Column 0 of the sorted distances is the point itself.
    radii = np.sort(_squared_distances(manifold, manifold), axis=1)[:, k]
    return float((_squared_distances(points, manifold) <= radii[None, :]).any(axis=1).mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return squares.clip(0)
