"""Training losses: one number per example."""

import jax.numpy as jnp

from ddpm.shapes import Data, PerExample


def simple(eps_hat: Data, eps: Data) -> PerExample:
    """L_simple: the squared error of the predicted noise, averaged over all but the batch dimension.

    ||eps - eps_hat||^2 / dims.

    Args:
      eps_hat, eps: predicted and true unit noise [batch, *dims].

    Ho et al. 2020, Eq. 14.
    """
    return jnp.mean((eps_hat - eps) ** 2, axis=tuple(range(1, eps.ndim)))
