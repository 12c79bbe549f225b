"""Diagonal Gaussians, element by element: how far two are apart, and how much of one falls on a level of an image."""

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

Values = Float[Array, "..."]
HALF_BIN = 1 / 255  # half the distance of two levels of an image in [-1, 1]


def kl(mean_1: Values, log_variance_1: Values, mean_2: Values, log_variance_2: Values) -> Values:
    """KL(N_1 || N_2) in nats: (exp(d) - 1 - d + (mean_1 - mean_2)^2 / variance_2) / 2 with d = log variance_1 / variance_2.

    Args:
      mean_1, log_variance_1, mean_2, log_variance_2: natural logarithms; of shapes that broadcast.

    Ho et al. 2020, Eq. 5 is made of such terms.
    """
    d = log_variance_1 - log_variance_2
    near = d**2 / 2 * (1 + d / 3 * (1 + d / 4 * (1 + d / 5 * (1 + d / 6))))  # where expm1(d) - d has no digits left
    of_variances = jnp.where(jnp.abs(d) < 1e-2, near, jnp.expm1(d) - d)
    return (of_variances + (mean_1 - mean_2) ** 2 * jnp.exp(-log_variance_2)) / 2


def discretised_log_likelihood(x: Values, mean: Values, log_variance: Values, *, tanh: bool = False) -> Values:
    """Log probability in nats of x's levels under a Gaussian, all of whose mass falls on levels.

    log of the mass between x - 1/255 and x + 1/255; the bins of -1 and 1 reach to -inf and +inf.

    Args:
      x: each value one of 256 levels, 2/255 apart in [-1, 1].
      mean, log_variance: of the Gaussian, of shapes that broadcast to x's.
      tanh: OpenAI's approximate normal cdf, with masses below 1e-12 taken for 1e-12: for likelihoods to be compared
        with theirs. It is off by up to 1.4 nats in rare levels.

    Ho et al. 2020, Eq. 13.
    """
    scale = jnp.exp(-log_variance / 2)
    z, h = (x - mean) * scale, HALF_BIN * scale
    if tanh:
        cdf = lambda z: 0.5 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (z + 0.044715 * z**3)))  # noqa: E731
        mass = jnp.where(x > 0.999, 1 - cdf(z - h), cdf(z + h) - cdf(z - h))
        return jnp.log(jnp.maximum(jnp.where(x < -0.999, cdf(z + h), mass), 1e-12))
    bin_and_below = log_ndtr(h - jnp.abs(z))  # a bin above the mean is mirrored: no digits are lost in either tail
    a = bin_and_below - log_ndtr(-h - jnp.abs(z))
    inner = bin_and_below + jnp.log(-jnp.expm1(-jnp.maximum(a, jnp.finfo(a.dtype).tiny)))
    return jnp.where(x < -0.999, log_ndtr(z + h), jnp.where(x > 0.999, log_ndtr(h - z), inner))
