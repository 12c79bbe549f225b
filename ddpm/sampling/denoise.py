"""What a sampler sees of a network: (x_t, t) -> (x0_hat, eps_hat)."""

from collections.abc import Callable

import jax.numpy as jnp

from ddpm.diffusion.prediction import eps_from_x0, x0_from_eps
from ddpm.diffusion.process import Process
from ddpm.shapes import Data, Time

Denoiser = Callable[[Data, Time], tuple[Data, Data]]


def denoiser(process: Process, predict_eps: Callable[[Data, Time], Data], *, clip: bool) -> Denoiser:
    """Turns a network that predicts eps into (x_t, t) -> (x0_hat, eps_hat).

    Args:
      predict_eps: (x_t [batch, *dims], t [batch]) -> eps_hat.
      clip: clip x0_hat to [-1, 1], where the data are, and derive eps_hat anew from it.
    """

    def denoise(x_t, t):
        eps_hat = predict_eps(x_t, jnp.broadcast_to(t, x_t.shape[:1]))
        x0_hat = x0_from_eps(process, eps_hat, x_t, t)
        if clip:
            x0_hat = jnp.clip(x0_hat, -1, 1)
            eps_hat = eps_from_x0(process, x0_hat, x_t, t)
        return x0_hat, eps_hat

    return denoise
