"""What a training loss is; those there are stand in losses.py."""

from collections.abc import Callable
from typing import NamedTuple

from ddpm.diffusion.classifier import Classifier
from ddpm.diffusion.model import Model
from ddpm.shapes import Data, PerExample, Time


class Loss(NamedTuple):
    """A training loss.

    per_example: (model, x_0, eps, t) -> one number per example, for data and unit noise [batch, *dims], times [batch].
    outputs: channels of the network's output relative to the data's: 1, or 2 with a learned variance.
    learns_uncertainty: the model has parameters of uncertainty.py.
    needs_uniform: its mean says something only over uniform t: a bound's does.
    learns_process: a process may be learned by it; others would be made less by moving the noise.
    classifies: of a Classifier.
    """

    per_example: Callable[[Model | Classifier, Data, Data, Time], PerExample]
    outputs: int = 1
    learns_uncertainty: bool = False
    needs_uniform: bool = False
    learns_process: bool = False
    classifies: bool = False
