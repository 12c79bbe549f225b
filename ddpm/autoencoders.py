"""Autoencoders by path: runs that were trained here, folders of diffusers' AutoencoderKL, and TAESDs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm import remote
from ddpm.data.images import Scale
from ddpm.errors import InputError
from ddpm.evaluation.sources import params_digest
from ddpm.interop import autoencoder_kl, taesd
from ddpm.models.autoencoders.taesd import Taesd
from ddpm.trained_autoencoder import trained_autoencoder


class Autoencoder(NamedTuple):
    """Images to latents and back, as functions of parameters.

    params: of both networks.
    encode: (params, x_0 [batch, height, width, colours] in [-1, 1]) -> latents [batch, height / factor, width / factor, channels].
    decode: (params, latents) -> images about [-1, 1].
    factor: pixels of a side that become one.
    channels: of the latents; `colours`: of the images.
    sha256: 16 hexadecimal digits, of its weights.
    scale: that its latents are known to have; None where it is to be measured.
    """

    params: Any
    encode: Callable
    decode: Callable
    factor: int
    channels: int
    colours: int
    sha256: str
    scale: Scale | None = None


@functools.cache  # its weights are read once
def read(path: str) -> Autoencoder:
    """The autoencoder of a run's workdir, a folder with config.json and its weights, or files of a TAESD.

    Raises:
      InputError: nothing of the kind is there.
    """
    place = remote.local(path).expanduser()
    if not place.exists():
        raise InputError(
            f"no autoencoder at {path!r}: give the workdir of one that was trained here (experiments/autoencoder_fashion.py), a "
            f"folder of diffusers' AutoencoderKL, or a TAESD. {taesd.REMEDY}"
        )
    if remote.checkpoints(place).is_dir():
        return _trained(place)
    return _published(place) if autoencoder_kl.is_one(place) else _taesd(place)


def _trained(workdir):
    read = trained_autoencoder(workdir)
    colours, sha256 = read.facts.shape[-1], params_digest(read.params)
    unit = Scale((0.0,) * read.channels, (1.0,) * read.channels, sha256)  # its latents leave it scaled
    return Autoencoder(read.params, read.encode, read.decode, read.factor, read.channels, colours, sha256, unit)


def _published(path):
    read = autoencoder_kl.read(path)
    module = read.module

    def applied(method):
        return lambda params, x: module.apply({"params": params}, x, method=method)

    count = module.latent_channels
    scale = Scale((read.shift_factor,) * count, (1 / read.scaling_factor,) * count, read.sha256)
    encode, decode = applied("latents"), applied("decode")
    return Autoencoder(read.params, encode, decode, module.factor, count, module.image_channels, read.sha256, scale)


def _taesd(path):
    options, params, sha256 = taesd.read(path)
    network = Taesd(**options)
    expected = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))["params"]
    taesd.check(path, params, expected)

    def encode(params, x_0):
        return network.apply({"params": params}, (x_0 + 1) / 2, method="encode")

    def decode(params, z):
        return 2 * network.apply({"params": params}, z, method="decode") - 1

    return Autoencoder(params, encode, decode, 8, options["latent_channels"], 3, sha256)
