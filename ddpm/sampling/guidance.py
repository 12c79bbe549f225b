"""Classifier-free guidance: a model that is told a class, pushed away from what it says without one."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.prediction import eps_from_x0
from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.shapes import Data, PerExample, Time, over


@dataclasses.dataclass(frozen=True)
class Guide:
    """How far a model with classes is guided.

    Args:
      scale: w.
      interval: the sigma_edm = sigma / alpha, from and to, at which it is guided; 1 is its scale elsewhere.
      rescale: phi, how far the standard deviation of x0_hat is brought back to that of the class's own, in [0, 1].
    Raises:
      InputError: an interval that holds nothing, or rescale outside [0, 1].

    Ho and Salimans 2022 (classifier-free guidance), Eq. 6; Kynkaanniemi et al. 2024 (Guidance in a limited interval);
    Lin et al. 2024, section 3.4.
    """

    scale: float | int = 1
    interval: tuple[float | int, float | int] = (0, math.inf)
    rescale: float | int = 0

    def __post_init__(self):
        if not math.isfinite(self.scale):
            raise InputError(f"guidance_scale = {self.scale} is no finite number; 1 is off, and papers use 1.5 to 8.")
        low, high = self.interval
        if not 0 <= low < high:
            raise InputError(
                f"guidance.interval = {tuple(self.interval)} holds no sigma / alpha: give (low, high), 0 <= low < high."
            )
        if not 0 <= self.rescale <= 1:
            raise InputError(f"guidance.rescale = {self.rescale} is not in [0, 1]; Lin et al. use 0.7.")

    @property
    def is_on(self) -> bool:
        """Whether the model has to be asked without a class too."""
        return self.scale != 1


class Guided(NamedTuple):
    """hat = uncond + w (cond - uncond) for eps_hat, and so for x0_hat: w = 0 is unconditional, 1 off, > 1 guided.

    The paper's (1 + w) cond - w uncond is this with w one larger. Both halves are one call of the network.

    both: the model told `condition.with_null`.
    guidance: how far.
    scale: its w, as an array, so that another does not compile anew.
    """

    both: Model
    guidance: Guide
    scale: jax.Array | float | int

    @property
    def process(self) -> Process:
        """The forward process."""
        return self.both.process

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        """As a Model's."""
        estimate = self.both(jnp.repeat(x_t, 2, axis=0), jnp.repeat(t, 2) if jnp.ndim(t) else t)
        cond, uncond = (jax.tree.map(lambda rows, half=half: rows[half::2], estimate) for half in (0, 1))
        low, high = self.guidance.interval
        sigma_edm = jnp.exp(-self.process.log_snr(t) / 2)
        w = over(jnp.where((low <= sigma_edm) & (sigma_edm <= high), self.scale, 1), x_t)
        x0, eps = (u + w * (c - u) for c, u in zip(cond[:2], uncond[:2], strict=True))
        if self.guidance.rescale:
            ratio = over(_deviation(cond.x0) / _deviation(x0), x_t)
            x0 *= 1 + self.guidance.rescale * (ratio - 1)
            eps = eps_from_x0(self.process, x0, x_t, t)
        return Estimate(x0, eps, cond.fraction)


def _deviation(x: Data) -> PerExample:
    return jnp.std(x, axis=tuple(range(1, x.ndim)))
