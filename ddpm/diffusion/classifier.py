"""A classifier p(y | x_t, t) of noised data, for guidance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ddpm.diffusion.model import Model
from ddpm.diffusion.process import Process
from ddpm.shapes import Data, PerExample, Time


class Classifier(NamedTuple):
    """log p(y | x_t, t): the log softmax of a network's outputs, at the labels y.

    network: whose output of x_t are logits [batch, classes].
    labels: y.

    Dhariwal and Nichol 2021, section 4.
    """

    network: Model
    labels: Int[Array, "batch"]

    @property
    def process(self) -> Process:
        """The forward process."""
        return self.network.process

    def __call__(self, x_t: Data, t: Time) -> PerExample:
        """log p(y | x_t, t) of each."""
        logits = self.network.raw(x_t, t)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), self.labels[:, None], axis=1)[:, 0]
