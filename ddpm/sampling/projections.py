"""What can be known of an image, as a symmetric projection P of it, by name."""

from collections.abc import Callable

import jax.numpy as jnp

from ddpm.degradation import block_means
from ddpm.errors import InputError
from ddpm.sampling.known import Given, Projection


def inpainting() -> Callable[[Given], Projection]:
    """Some pixels are known: P multiplies by 1 or 0.

    Song et al. 2021 (score SDE), appendix I.2; with resampling Lugmayr et al. 2022 (RePaint).
    """
    return lambda given: lambda x: jnp.where(given.pixels[..., None], x, 0)


def colourisation() -> Callable[[Given], Projection]:
    """The grey image is known: P gives each channel their mean.

    Song et al. 2021 (score SDE), appendix I.3, whose orthogonal change of channels keeps the same thing.
    """
    return lambda given: lambda x: jnp.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)


def super_resolution(factor: int = 4) -> Callable[[Given], Projection]:
    """Means of factor x factor pixels are known: P gives each pixel of a block their mean.

    Args:
      factor: at least 2; it divides height and width.
    Raises:
      InputError: another factor.

    Choi et al. 2021 (ILVR), with the mean as its filter.
    """
    if factor < 2:
        raise InputError(f"known.super_resolution.factor = {factor} must be at least 2.")
    return lambda given: lambda x: block_means(x, factor).repeat(factor, axis=1).repeat(factor, axis=2)
