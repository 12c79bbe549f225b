"""Mean and covariance of any number of points, gathered batch by batch."""

import dataclasses

import numpy as np

from ddpm.errors import InputError
from ddpm.evaluation.points import as_points, check_same_dimension


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and unbiased covariance of points, in float64.

    `Moments.of(x) + Moments.of(y)` are the moments of x and y together, so that
    `functools.reduce(operator.add, map(Moments.of, batches))` needs one batch in memory.

    Attributes:
      n: the number of points; None where a file does not say.
      mean: [d].
      cov: [d, d], sum (x - mean)(x - mean)^T / (n - 1); zeros for a single point.
    """

    n: int | None
    mean: np.ndarray
    cov: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray) -> "Moments":
        """The moments of points [n, d].

        Raises:
          InputError: no points, or some that are not finite.
        """
        points = as_points(points, "features")
        n = len(points)
        mean = points[0] + (points - points[0]).mean(axis=0)  # shifted: no digits lost to a large common offset
        centred = points - mean
        return cls(n, mean, centred.T @ centred / max(n - 1, 1))

    def __add__(self, other: "Moments") -> "Moments":
        """Chan, Golub and LeVeque 1983: sums of squares add, plus n_a n_b / n of the means' difference squared."""
        check_same_dimension(len(self.mean), len(other.mean))
        if self.n is None or other.n is None:
            raise InputError("moments of an unknown number of images cannot be added to: take all images in one set.")
        n, delta = self.n + other.n, other.mean - self.mean
        scatter = (self.n - 1) * self.cov + (other.n - 1) * other.cov
        scatter += np.outer(delta, delta) * (self.n * other.n / n)
        return Moments(n, self.mean + delta * (other.n / n), scatter / (n - 1))
