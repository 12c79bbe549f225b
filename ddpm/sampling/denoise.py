"""What a sampler sees of a model: (x_t, t) -> Estimate."""

from collections.abc import Callable

import jax.numpy as jnp

from ddpm.diffusion.model import Estimate, Model
from ddpm.diffusion.prediction import eps_from_x0
from ddpm.shapes import Data, Time

Denoiser = Callable[[Data, Time], Estimate]


def denoiser(model: Model, *, clip: bool) -> Denoiser:
    """The model; with `clip`, its x0_hat is clipped to [-1, 1], where the data are, and eps_hat derived anew from that."""

    def clipped(x_t, t):
        estimate = model(x_t, t)
        x0_hat = jnp.clip(estimate.x0, -1, 1)
        return estimate._replace(x0=x0_hat, eps=eps_from_x0(model.process, x0_hat, x_t, t))

    return clipped if clip else model
