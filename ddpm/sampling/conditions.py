"""What samples are asked for: classes, prompts, images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.condition import NOTHING, Condition
from ddpm.errors import InputError
from ddpm.rng import per_index, stream
from ddpm.sampling.known import Given


class Asked(NamedTuple):
    """What samples are asked for.

    rows: (seed, indices) -> the Condition of those samples, NumPy arrays; sample i of a seed is always asked the same.
    said: whether somebody said what; else it is drawn.
    given: (seed, indices) -> the images that they are to agree with, if there are any.
    """

    rows: Callable[[int, np.ndarray], Condition] = lambda seed, indices: NOTHING
    said: bool = False
    given: Callable[[int, np.ndarray], Given | None] = lambda seed, indices: None


UNASKED = Asked()


def in_turn(conditions: Condition, count: int) -> Asked:
    """Sample i is asked row i modulo `count` of arrays."""
    return Asked(lambda seed, indices: jax.tree.map(lambda rows: rows[indices % count], conditions), said=True)


def of_classes(classes: int, labels: Sequence[int] = ()) -> Asked:
    """These classes in turn; without any, evenly drawn by the seed.

    Args:
      classes: how many the model tells apart; 0 if it is told none.
    Raises:
      InputError: labels that are no classes.
    """
    check_labels(labels, classes)
    if not classes:
        return UNASKED
    if len(labels):
        return in_turn(Condition(np.asarray(labels, np.int32)), len(labels))

    def drawn(seed, indices):
        keys = per_index(stream(seed, "label"), jnp.asarray(indices))
        return Condition(np.asarray(jax.vmap(lambda key: jax.random.randint(key, (), 0, classes))(keys), np.int32))

    return Asked(drawn)


def check_labels(labels: Sequence[int], classes: int) -> None:
    """Refuses labels that are no classes.

    Raises:
      InputError: a label that is not in 0..classes-1, or a model without classes.
    """
    if len(labels) and not classes:
        raise InputError("labels are for a model that is told classes: train it with condition.labels=True.")
    for label in labels:
        if label not in range(classes):
            raise InputError(f"label {label} is none of the {classes} classes 0..{classes - 1} of the data.")
