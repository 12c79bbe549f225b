"""Bytes <-> data: the only place where images change scale."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ddpm.shapes import Images, Pixels


def to_images(pixels: Pixels | Images) -> Images:
    """Bytes 0..255 to data in [-1, 1]; latents stay as they are."""
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    return pixels.astype(jnp.float32) / 127.5 - 1


def to_pixels(images: Float[Array, "*dims"]) -> UInt8[Array, "*dims"]:
    """Data in [-1, 1] to bytes 0..255, rounded; what lies outside is clipped."""
    return jnp.round(jnp.clip((images + 1) * 127.5, 0, 255)).astype(jnp.uint8)
