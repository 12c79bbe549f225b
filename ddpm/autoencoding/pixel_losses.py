"""How far images are from what was made of them, pixel by pixel."""

import jax.numpy as jnp

from ddpm.shapes import Images, PerExample


def l1(x: Images, x_hat: Images) -> PerExample:
    """mean |x - x_hat| of each image: the likelihood of a Laplacian, as VQGAN and latent diffusion have it."""
    return jnp.mean(jnp.abs(x - x_hat), axis=(1, 2, 3))


def l2(x: Images, x_hat: Images) -> PerExample:
    """mean (x - x_hat)^2 of each image: the likelihood of a Gaussian."""
    return jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3))
