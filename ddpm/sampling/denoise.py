"""What a sampler sees of a model: (x_t, t) -> Estimate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.prediction import eps_from_x0
from ddpm.errors import InputError
from ddpm.sampling.guidance import Guided
from ddpm.sampling.steering import Steered
from ddpm.shapes import Data, Time, over

Denoiser = Callable[[Data, Time], Estimate]


class Told(NamedTuple):
    """A denoiser that is told something of each sample, such as its class.

    of: what samples are told -> their denoiser.
    given: that, for each of the samples: any tree of arrays [batch, ...].
    """

    of: Callable[[Any], Denoiser]
    given: Any

    def __call__(self, x_t: Data, t: Time) -> Estimate:
        return self.of(self.given)(x_t, t)


def denoiser(model: Model | Guided | Steered, *, clip: bool, percentile: float | int = 0) -> Denoiser:
    """A model, guided or not; with `clip`, its x0_hat is clipped to [-1, 1], where the data are, and eps_hat derived anew from that.

    With a percentile p of dynamic thresholding, x0_hat is clipped to [-c, c] and divided by c = max(1, the fraction p of
    the |x0_hat| of that image is below it): pixels that guidance has driven beyond 1 do not all saturate.

    Args:
      percentile: in [0, 1); 0 for c = 1. Imagen has 0.995.
    Raises:
      InputError: a percentile outside [0, 1), or one without `clip`.

    Saharia et al. 2022 (Imagen), section 2.3.
    """
    if not 0 <= percentile < 1:
        raise InputError(f"sampler.percentile = {percentile} is not in [0, 1); Imagen uses 0.995, and 0 is clipping.")
    if percentile and not clip:
        raise InputError(
            f"sampler.percentile = {percentile} thresholds nothing with sampler.clip=False: set it to True."
        )

    def clipped(x_t, t):
        estimate = model(x_t, t)
        c = jnp.ones(())
        if percentile:
            magnitudes = jnp.abs(estimate.x0).reshape(len(x_t), -1)
            c = over(jnp.maximum(jnp.quantile(magnitudes, percentile, axis=1), 1), x_t)
        x0_hat = jnp.clip(estimate.x0, -c, c) / c
        return estimate._replace(x0=x0_hat, eps=eps_from_x0(model.process, x0_hat, x_t, t))

    return clipped if clip else model
