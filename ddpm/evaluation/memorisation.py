"""Which generated images are copies of training images."""

from typing import NamedTuple

import numpy as np

from ddpm.evaluation.neighbours import nearest
from ddpm.evaluation.points import as_points, check_same_dimension


class Memorisation(NamedTuple):
    """What `memorisation` finds; `np.argsort(ratio)` has the likeliest copies first.

    Attributes:
      share: of generated images that count as copies.
      ratio: [n], distance to the nearest training image over that to the second nearest; 0 is an exact copy.
      nearest: [n], the nearest training image's index.
      distance: [n], to it, in the features' unit.
    """

    share: float
    ratio: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def memorisation(generated: np.ndarray, training: np.ndarray, *, threshold: float = 1 / 3) -> Memorisation:
    """A generated image is a copy if d(x, nearest) <= threshold d(x, second nearest), Euclidean.

    An image twice in the training set hides all its copies but exact ones: remove duplicates first.

    Args:
      generated, training: pixels or features, [n, d] and [m >= 2, d].
      threshold: 1/3 in the paper.
    Raises:
      InputError: too few points, features that are not finite, other dimensions.

    Yoon et al. 2023; Gu et al. 2023.
    """
    generated, training = as_points(generated, "generated features"), as_points(training, "training features", 2)
    check_same_dimension(generated.shape[1], training.shape[1])
    indices, distances = nearest(generated, training, 2)
    first, second = distances.T
    ratio = np.divide(first, second, out=np.zeros(len(first)), where=second > 0)
    return Memorisation(float((ratio <= threshold).mean()), ratio, indices[:, 0], first)
