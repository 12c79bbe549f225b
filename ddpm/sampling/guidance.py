"""Classifier-free guidance: a model that is told a class, pushed away from what it says without one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.process import Process
from ddpm.shapes import Data, Time


def with_null(labels: Int[Array, "batch"], null_label: int) -> Int[Array, "twice"]:
    """Each label, and after it the null label: neighbours, so that a sample stays on its device."""
    return jnp.stack([labels, jnp.full_like(labels, null_label)], axis=1).reshape(-1)


class Guided(NamedTuple):
    """hat = uncond + w (cond - uncond) for eps_hat, and so for x0_hat: w = 0 is unconditional, 1 off, > 1 guided.

    The paper's (1 + w) cond - w uncond is this with w one larger. Both halves are one call of the network.

    both: the model told `with_null` of the labels.
    scale: w.

    Ho and Salimans 2022 (classifier-free guidance), Eq. 6.
    """

    both: Model
    scale: jax.Array | float | int

    @property
    def process(self) -> Process:
        """The forward process."""
        return self.both.process

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        """As a Model's."""
        estimate = self.both(jnp.repeat(x_t, 2, axis=0), jnp.repeat(t, 2) if jnp.ndim(t) else t)
        cond, uncond = (jax.tree.map(lambda rows, half=half: rows[half::2], estimate) for half in (0, 1))
        x0, eps = (u + self.scale * (c - u) for c, u in zip(cond[:2], uncond[:2], strict=True))
        return Estimate(x0, eps, cond.fraction)
