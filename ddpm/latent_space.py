"""The space a model diffuses in where that is not pixels: images to scaled latents and back, a few at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddpm import autoencoders, sharding
from ddpm.autoencoders import Autoencoder
from ddpm.data.images import Facts, Scale
from ddpm.data.pixels import to_images, to_pixels
from ddpm.errors import InputError, check_at_least


class LatentSpace:
    """An autoencoder, and the scale of its latents.

    autoencoder: that makes them.
    encode: uint8 images [n, height, width, channels] -> latents, float32.
    decode: latents -> images; each for any n, `batch_size` at once.
    """

    def __init__(self, autoencoder: Autoencoder, scale: Scale, batch_size: int, mesh: jax.sharding.Mesh):
        check_at_least(1, **{"latents.batch_size": batch_size})
        self.autoencoder, self._scale = autoencoder, scale
        params = jax.device_put(autoencoder.params, sharding.replicated(mesh))
        size, split = -(-batch_size // mesh.size) * mesh.size, sharding.split(mesh)
        made = jax.jit(lambda params, rows: autoencoder.encode(params, to_images(rows)), out_shardings=split)
        shown = jax.jit(lambda params, rows: to_pixels(autoencoder.decode(params, rows)), out_shardings=split)
        self.encode = lambda images: scale.down(_by_batches(lambda rows: made(params, rows), images, size, split))
        self.decode = lambda latents: _by_batches(lambda rows: shown(params, rows), scale.up(latents), size, split)

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """That of the latents of images of a shape (height, width, channels).

        Raises:
          InputError: the autoencoder does not take such images.
        """
        height, width, colours = shape
        factor = self.autoencoder.factor
        if height % factor or width % factor or colours != self.autoencoder.colours:
            raise InputError(
                f"images of {height} x {width} x {colours} do not fit the autoencoder: sides must be multiples of {factor}, "
                f"channels {self.autoencoder.colours}. Resize or convert the images."
            )
        return height // factor, width // factor, self.autoencoder.channels

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """That of the images of latents of a shape."""
        factor = self.autoencoder.factor
        return shape[0] * factor, shape[1] * factor, self.autoencoder.colours


def latent_space(config: ConfigDict, scale: Scale, mesh: jax.sharding.Mesh) -> LatentSpace:
    """The space of `config.latents`.

    Raises:
      InputError: no autoencoder there, or another than the latents are of.
    """
    path, autoencoder = config.latents.autoencoder, autoencoders.read(config.latents.autoencoder)
    if autoencoder.sha256 != scale.autoencoder:
        raise InputError(
            f"the autoencoder at {path} ({autoencoder.sha256}) is another than that of the latents ({scale.autoencoder}): "
            "give the path of that one as latents.autoencoder."
        )
    return LatentSpace(autoencoder, scale, config.latents.batch_size, mesh)


def of(config: ConfigDict, facts: Facts, mesh: jax.sharding.Mesh) -> LatentSpace | None:
    """The space of a model with such data; None for pixels."""
    return latent_space(config, facts.scale, mesh) if facts.scale else None


def _by_batches(function, rows, size, split):
    """function(rows), computed for `size` rows at once, the last ones filled up."""
    done = []
    for first in range(0, len(rows), size):
        at = np.arange(first, first + size).clip(max=len(rows) - 1)
        done.append(jax.device_get(function(jax.device_put(jnp.asarray(rows[at]), split))))
    return np.concatenate(done)[: len(rows)]
