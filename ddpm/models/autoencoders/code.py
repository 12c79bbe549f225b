"""What an autoencoder says of images while it is trained."""

from typing import NamedTuple

import jax

from ddpm.models.autoencoders.encoder_decoder import Latents
from ddpm.shapes import PerExample


class Code(NamedTuple):
    """Images as an autoencoder keeps them.

    z: the latents that are decoded, noise and rounding included.
    penalty: what is added to the loss of each image for them.
    rate: what each image costs, in bits/dim of its pixels.
    figures: more that is to be known, by name.
    """

    z: Latents
    penalty: PerExample
    rate: PerExample
    figures: dict[str, jax.Array]
