"""Classifier-free guidance and autoguidance: a model pushed away from a worse one, such as itself told nothing."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.prediction import eps_from_x0
from ddpm.diffusion.process import Process
from ddpm.errors import InputError
from ddpm.shapes import Data, PerExample, Time, over


@dataclasses.dataclass(frozen=True)
class Guide:
    """How far a model is guided.

    Args:
      scale: w.
      interval: the sigma_edm = sigma / alpha, from and to, at which it is guided; 1 is its scale elsewhere.
      rescale: phi, how far the standard deviation of x0_hat is brought back to that of the model's own, in [0, 1].
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
        if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1]:
            raise InputError(
                f"guidance.interval = {tuple(self.interval)} holds no sigma / alpha: give (low, high), 0 <= low < high."
            )
        if not 0 <= self.rescale <= 1:
            raise InputError(f"guidance.rescale = {self.rescale} is not in [0, 1]; Lin et al. use 0.7.")

    @property
    def is_on(self) -> bool:
        """Whether the worse model has to be asked too."""
        return self.scale != 1


Pair = Callable[[Data, Time], tuple[Estimate, Estimate]]


def in_one_call(both: Model) -> Pair:
    """What a model says that is told `condition.with_null`: of the condition, and of nothing."""

    def pair(x_t, t):
        estimate = both(jnp.repeat(x_t, 2, axis=0), jnp.repeat(t, 2) if jnp.ndim(t) else t)
        return tuple(jax.tree.map(lambda rows, half=half: rows[half::2], estimate) for half in (0, 1))

    return pair


def of_two(model: Model, worse: Model) -> Pair:
    """What two models say: autoguidance, whose worse model is smaller or trained for a shorter time.

    Karras et al. 2024 (Guiding a diffusion model with a bad version of itself), Eq. 3.
    """
    return lambda x_t, t: (model(x_t, t), worse(x_t, t))


class Guided(NamedTuple):
    """hat = worse + w (better - worse) for eps_hat, and so for x0_hat: w = 0 is the worse alone, 1 off, > 1 guided.

    With `in_one_call` worse is unconditional; the paper's (1 + w) cond - w uncond is this with w one larger.

    pair: (x_t, t) -> what the better and the worse model say.
    process: the forward process.
    guidance: how far.
    scale: its w, as an array, so that another does not compile anew.
    """

    pair: Pair
    process: Process
    guidance: Guide
    scale: jax.Array | float | int

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        """As a Model's."""
        better, worse = self.pair(x_t, t)
        low, high = self.guidance.interval
        sigma_edm = jnp.exp(-self.process.log_snr(t) / 2)
        w = over(jnp.where((low <= sigma_edm) & (sigma_edm <= high), self.scale, 1), x_t)
        x0, eps = (u + w * (c - u) for c, u in zip(better[:2], worse[:2], strict=True))
        if self.guidance.rescale:
            ratio = over(_deviation(better.x0) / _deviation(x0), x_t)
            x0 *= 1 + self.guidance.rescale * (ratio - 1)
            eps = eps_from_x0(self.process, x0, x_t, t)
        return Estimate(x0, eps, better.fraction)


class Guides(NamedTuple):
    """What samples of a model are guided by.

    of: (params, others, scales, condition) -> what a sampler asks: a Model, Guided or Steered.
    others: parameters of other networks.
    scales: w, and those of other guides.
    nfe: evaluations of the model that one of the sampler takes.
    classes: how many can be asked for.
    """

    of: Callable
    others: Any
    scales: np.ndarray
    nfe: int = 1
    classes: int = 0


def alone(model: Callable[..., Model], classes: int = 0) -> Guides:
    """No guidance of (params, condition) -> Model."""
    return Guides(
        lambda params, others, scales, condition: model(params, condition), (), np.ones(1, np.float32), 1, classes
    )


def _deviation(x: Data) -> PerExample:
    return jnp.std(x, axis=tuple(range(1, x.ndim)))
