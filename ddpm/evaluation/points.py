"""A set of points: what every metric takes, checked once."""

import numpy as np

from ddpm.errors import InputError


def as_points(array: np.ndarray, name: str, at_least: int = 1) -> np.ndarray:
    """The array [n, d] in float64.

    Raises:
      InputError: not [n, d], fewer than `at_least` rows, or rows with NaN or infinity.
    """
    points = np.asarray(array, np.float64)
    if points.ndim != 2:
        raise InputError(f"{name} of shape {points.shape} must be [n, d]: one row an image.")
    if len(points) < at_least:
        raise InputError(f"{name}: {len(points)} image(s) are too few; take at least {at_least}.")
    broken = int((~np.isfinite(points).all(axis=1)).sum())
    if broken:
        raise InputError(f"{name}: {broken} of {len(points)} rows hold NaN or infinity; look at these images first.")
    return points


def check_same_dimension(a: int, b: int) -> None:
    """Raises InputError where two sets of points have different numbers of features."""
    if a != b:
        raise InputError(f"{a} and {b} features an image cannot be compared: take both sets from the same extractor.")
