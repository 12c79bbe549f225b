"""How large the loss is expected to be at each noise, learned beside the network: it balances the levels of noise."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm.errors import check_at_least
from ddpm.shapes import PerExample

Params = dict[str, Float[Array, "features"]]


def init(features: int = 128) -> Params:
    """Parameters of u = 0 at every noise.

    Args:
      features: number of Fourier features, at least 1; EDM2 uses 128.
    Raises:
      InputError: features < 1.
    """
    check_at_least(1, features=features)
    return {"weight": jnp.zeros(features)}


def log_uncertainty(params: Params, condition: PerExample) -> PerExample:
    """u of the noise: a linear layer on fixed random Fourier features.

    u(c) = sum_i w_i sqrt(2) cos(omega_i c + phase_i) / sqrt(features),  omega ~ 2 pi N(0, 1),  phase ~ 2 pi U(0, 1).

    Args:
      condition: c_noise [batch], of size 1 or so as EDM's log(sigma) / 4 is: times up to 1000 are too fast for cosines.

    Karras et al. 2024 (EDM2), Appendix B.1 (MP-Fourier, Eq. 75), with the layer's factor 1 / sqrt(features).
    """
    weight = params["weight"]
    omega, phase = _waves(len(weight))
    angle = condition[:, None] * omega[None, :].astype(weight.dtype) + phase[None, :].astype(weight.dtype)
    return math.sqrt(2 / len(weight)) * jnp.cos(angle) @ weight


def balanced(loss: PerExample, u: PerExample) -> PerExample:
    """loss / exp(u) + u: least where u = log E[loss], where every noise counts the same.

    Karras et al. 2024 (EDM2), Eq. 15, with the weight of the noise already in the loss.
    """
    return loss / jnp.exp(u) + u


@functools.cache
def _waves(features):
    draw = np.random.default_rng(0)  # always the same, so that nothing has to be stored
    return 2 * np.pi * draw.standard_normal(features), 2 * np.pi * draw.random(features)
