"""A trained autoencoder read from its checkpoints: images to latents of unit variance, and back."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ddpm import trained
from ddpm.config import from_json
from ddpm.data.images import Facts
from ddpm.errors import InputError
from ddpm.reconstruction import reconstruction
from ddpm.training import checkpoint


class TrainedAutoencoder(NamedTuple):
    """An autoencoder at a step of its training; `encode` and `decode` are pure and may be compiled.

    params: EMA parameters, the mean and deviation of the latents among them: NumPy arrays.
    encode: (params, x) -> z: float32 images [batch, height, width, image channels] in [-1, 1] to the mean of their latents,
      normalised: (latents - mean) / std, float32 [batch, height / factor, width / factor, channels].
    decode: (params, z) -> x: such latents to images about [-1, 1], not clipped.
    factor: pixels of a side that a latent stands for; it divides height and width.
    channels: of the latents.
    mean, std: of the latents over training images before they were normalised, float32 [channels].
    step: optimizer updates done.
    facts: shape, number and classes of the images it was trained with.
    config: the experiment.
    """

    params: Any
    encode: Callable
    decode: Callable
    factor: int
    channels: int
    mean: np.ndarray
    std: np.ndarray
    step: int
    facts: Facts
    config: ConfigDict


def trained_autoencoder(workdir: str | pathlib.Path, step: int | None = None) -> TrainedAutoencoder:
    """The autoencoder of a run at its newest intact checkpoint, or at a step.

    Args:
      workdir: the run's directory.
      step: of the checkpoint; None for the newest.
    Raises:
      InputError: no such run or step, no intact checkpoint, or a run of something else.
    """
    read = trained.read(workdir, step)
    if not read.config.autoencoder.name:
        raise InputError(f"{workdir} is the run of a diffusion model, no autoencoder: give the run of an autoencoder.")
    made = reconstruction(read.config, read.facts.shape)
    latent = read.params["latent"]
    return TrainedAutoencoder(
        read.params,
        made.encode,
        made.decode,
        made.factor,
        made.channels,
        latent["mean"],
        latent["std"],
        read.step,
        read.facts,
        read.config,
    )


def is_autoencoder(workdir: str | pathlib.Path) -> bool:
    """Whether a run is that of an autoencoder; raises InputError where there is no intact checkpoint."""
    record = trained.newest(*trained.checkpoints(workdir), checkpoint.read_record)[1]
    return bool(from_json(record["config"]).autoencoder.name)
