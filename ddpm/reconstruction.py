"""From a configuration to an autoencoder of images."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ddpm.errors import InputError
from ddpm.models.autoencoders.encoder_decoder import Convolutional
from ddpm.models.patch_discriminator import PatchGAN
from ddpm.names import call, find, options_of


class Reconstruction(NamedTuple):
    """An autoencoder as functions of its parameters {'autoencoder', 'discriminator' (if any), 'latent': {'mean', 'std'}}.

    init: key -> params.
    factor, channels: pixels of a side that a latent stands for, and its channels.
    latents: (params['autoencoder'], x) -> the latents of images in [-1, 1], [batch, height / factor, width / factor, channels].
    code: (params['autoencoder'], x, keys) -> Code, as it is trained.
    features, image: (params['autoencoder'], z) -> what the decoder's last layer sees; (params['autoencoder'], that) -> images.
    discriminate: (params['discriminator'], x) -> a number for each patch, above 0 where it looks real; None without one.
    """

    init: Callable
    factor: int
    channels: int
    latents: Callable
    code: Callable
    features: Callable
    image: Callable
    discriminate: Callable | None

    def encode(self, params, x):
        """(latents - mean) / std of images in [-1, 1]: of mean 0 and deviation 1 in each channel."""
        return (self.latents(params["autoencoder"], x) - _of(params, "mean")) / _of(params, "std")

    def decode(self, params, z):
        """Images about [-1, 1] of such latents."""
        z = z * _of(params, "std") + _of(params, "mean")
        return self.image(params["autoencoder"], self.features(params["autoencoder"], z))


def reconstruction(config: ConfigDict, shape: tuple[int, int, int]) -> Reconstruction:
    """The autoencoder of `config.autoencoder` for images of a shape (height, width, channels).

    Raises:
      InputError: an unknown one, one that is not trained here, or options or a shape that do not fit.
    """
    section = config.autoencoder
    found = find("autoencoder", "ddpm.models.autoencoders", section.name)
    if not issubclass(found, Convolutional):
        raise InputError(f"autoencoder '{section.name}' comes trained: train 'kl' or 'vq'.")
    model = call("autoencoder", found, shape[-1], options=options_of(section))
    judge = PatchGAN(section.discriminator_channels) if section.discriminator_weight else None
    blank = jnp.zeros((1, *shape))

    @jax.jit  # traced once, by the check below
    def init(key):
        params = {"autoencoder": model.init(key, blank)["params"]}
        if judge:
            params["discriminator"] = judge.init(jax.random.fold_in(key, 1), blank)["params"]
        latent = {"mean": jnp.zeros(model.latent_channels), "std": jnp.ones(model.latent_channels)}
        return params | {"latent": latent}

    def applied(method):
        return lambda params, *args: model.apply({"params": params}, *args, method=method)

    jax.eval_shape(init, jax.random.key(0))  # a shape that does not fit is told now
    return Reconstruction(
        init,
        model.factor,
        model.latent_channels,
        *map(applied, ("latents", "code", "features", "image")),
        discriminate=(lambda params, x: judge.apply({"params": params}, x)) if judge else None,
    )


def _of(params, name):
    return params["latent"][name][None, None, None]
