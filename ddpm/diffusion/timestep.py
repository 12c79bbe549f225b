"""The times of a batch: how they are drawn from uniform numbers. Those there are by name are in timesteps.py."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Timesteps(NamedTuple):
    """How the times of a batch are drawn, from one number u in [0, 1) per example.

    draw: (history, u [batch]) -> (t [batch], weight [batch]): the inverse of the distribution function of t. The weight
      makes means over t unbiased where the draw is an importance sampling of uniform t; it is 1 elsewhere.
    history: what draws remember of losses, at the start: () where nothing.
    update: (history, t, losses [batch]) -> history.
    is_uniform: means over t, weighted, are those over uniform t.
    """

    draw: Callable
    history: Any = ()
    update: Callable = lambda history, t, losses: history
    is_uniform: bool = True
