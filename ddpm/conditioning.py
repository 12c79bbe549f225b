"""What a model is told, by `config.condition`."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError, check_inside


class Conditioning(NamedTuple):
    """What a model is told of each image.

    classes: how many it tells apart; 0 if it is told none.
    some: a condition of one sample, as an example of what they look like.
    null: the condition of one sample that tells nothing; None if the model learned none.
    """

    classes: int = 0
    some: Condition = NOTHING
    null: Condition | None = None

    @property
    def num_labels(self) -> int:
        """Classes, and one for none if the model knows that."""
        return self.classes + (self.null is not None) if self.classes else 0


def conditioning(config: ConfigDict, classes: int) -> Conditioning:
    """What the model of an experiment is told.

    Args:
      classes: of the data.
    Raises:
      InputError: there are no classes to tell, or null_rate is outside [0, 1).
    """
    told = config.condition
    if told.labels and not classes:
        raise InputError(
            "condition.labels = True, but the data have no classes: use data that have (a folder with a sub-folder a class, "
            "an .npz with labels, most TFDS sets), or set it to False."
        )
    check_inside(-1e-9, 1, usual="classifier-free guidance uses 0.1 to 0.2", **{"condition.null_rate": told.null_rate})
    if not told.labels:
        return Conditioning()
    null = Condition(np.int32(classes)) if told.null_rate else None
    return Conditioning(classes, Condition(np.int32(0)), null)
