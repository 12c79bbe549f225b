"""What differs between the trainings of a diffusion model and of an autoencoder."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ddpm.data.pipeline import Feed
from ddpm.shapes import Key
from ddpm.training.state import State


class Task(NamedTuple):
    """Something to be trained.

    name: of its network.
    init: key -> State.
    step: (state, batch, key) -> (state, metrics).
    feed: its batches.
    sheet: (params, heed) -> uint8 [height, width, channels] that shows what they do; `heed` is told of each batch of images
      and may raise Interrupted. None where nothing is to be seen.
    evaluate: (workdir, step, state, heed) -> figures, which it stores; None where there are none.
    finish: (workdir, step, state) -> lines on what there is to be looked at, once all is trained.
    """

    name: str
    init: Callable[[Key], State]
    step: Callable[[State, Any, Key], tuple[State, dict]]
    feed: Feed
    sheet: Callable[[Any, Callable[[int], None]], np.ndarray] | None
    evaluate: Callable[[pathlib.Path, int, State, Callable[[int], None]], dict[str, float]] | None
    finish: Callable[[pathlib.Path, int, State], list[str]]
