"""Distances between sets of points, in blocks: no full matrix of 50,000 x 50,000 is ever made."""

from collections.abc import Iterator

import numpy as np

BLOCK = 2**24  # distances held at a time: 128 MiB


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, |a_i - b_j|^2 [rows, m]) for a few rows of a [n, d] at a time against all of b [m, d], in float64."""
    centre = b.mean(axis=0)  # |a|^2 + |b|^2 - 2 a.b loses the digits of a common offset
    a, b = a - centre, b - centre
    a_squares, b_squares = (a**2).sum(axis=1), (b**2).sum(axis=1)
    rows = max(BLOCK // len(b), 1)
    for start in range(0, len(a), rows):
        here = slice(start, start + rows)
        yield here, (a_squares[here, None] + b_squares[None, :] - 2 * (a[here] @ b.T)).clip(0)


def squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """[n]: the squared distance of each point [n, d] to its k-th nearest other point, k = 1 .. n - 1."""
    radii = np.empty(len(points))
    for rows, distances in distance_blocks(points, points):
        own = np.arange(len(points))[rows]
        distances[own - own[0], own] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def nearest(points: np.ndarray, others: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [n, k] of the k nearest of `others` [m, d], nearest first, and the distances [n, k]; k = 1 .. m."""
    indices, distances = np.empty((len(points), k), int), np.empty((len(points), k))
    for rows, squares in distance_blocks(points, others):
        chosen = np.argpartition(squares, k - 1, axis=1)[:, :k]
        exact = np.linalg.norm(points[rows, None] - others[chosen], axis=-1)  # a copy is at 0, not at rounding's root
        order = exact.argsort(axis=1, kind="stable")
        indices[rows] = np.take_along_axis(chosen, order, axis=1)
        distances[rows] = np.take_along_axis(exact, order, axis=1)
    return indices, distances
