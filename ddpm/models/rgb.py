"""What networks of colour photographs make of other images."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.errors import InputError
from ddpm.shapes import Images, Pixels


def three_channels(pixels: Pixels | Images) -> Float[Array, "batch height width 3"]:
    """Bytes, or floats in 0..255, as float32; a grey image three times.

    Raises:
      InputError: they have neither 1 channel nor 3.
    """
    channels = pixels.shape[-1]
    if channels not in (1, 3):
        raise InputError(
            f"images have {channels} channels; this feature network takes 1 (grey) or 3 (colour). Choose another."
        )
    return jnp.repeat(pixels.astype(jnp.float32), 3 // channels, axis=-1)
